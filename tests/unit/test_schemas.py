"""What a field of a request may hold, what becomes of it, and that its JSON schema says the same."""

import json
import math
import re
import timeit
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from services.gateway.fields import (
    EARLIEST,
    HIGHEST_PRICE,
    LATEST,
    TEXT,
    Flag,
    Instant,
    Limit,
    Movement,
    Name,
    OrderId,
    Phone,
    Price,
    Qty,
)
from services.gateway.schemas import OrderRequest
from services.shared.ids import first_order_id, new_order_id

ORDER: dict[str, Any] = {
    "productId": "tea",
    "qty": 2,
    "username": "김민지",
    "address": "서울시 중구 12번가 1",
    "phoneNo": "010-1234-5678",
    "paymentMethod": "pm_card_visa",
}
NAME, PHONE = TypeAdapter[str](Name), TypeAdapter[str](Phone)
LONGEST_NAME = 100
SURROGATE = "[\ud800-\udfff]"  # cannot be sent as UTF-8


def refuses(field: Any, value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Any](field).validate_python(value)


def pattern(field: Any) -> str:
    return TypeAdapter[Any](field).json_schema()["pattern"]


# Texts


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("  김민지\n", "김민지"),
        (unicodedata.normalize("NFD", "김민지"), "김민지"),
        ("\u3000홍\u3000길동\u3000", "홍\u3000길동"),
        ("Zoe\u0308", "Zoë"),
        ("👩‍👩‍👧‍👦", "👩‍👩‍👧‍👦"),
        ("می‌خواهم", "می‌خواهم"),
        ("𠮷野家", "𠮷野家"),
        ("'; DROP TABLE orders; --", "'; DROP TABLE orders; --"),
    ],
)
def test_a_text_is_trimmed_and_composed(sent: str, kept: str) -> None:
    assert NAME.validate_python(sent) == kept


@pytest.mark.parametrize(
    "code",
    [
        *(0x00, 0x1B, 0x1F, 0x7F, 0x85, 0x9F, 0x2028, 0x2029, 0xFEFF),
        *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
        *(0xFDD0, 0xFDEF, 0xFFFE, 0xFFFF, 0x1FFFE, 0x8FFFF, 0x10FFFF, 0xD800, 0xDFFF),
    ],
)
def test_a_text_holds_nothing_that_cannot_be_seen_for_what_it_is(code: int) -> None:
    refuses(Name, f"김{chr(code)}민지")
    refuses(Name, f"김민지{chr(code)}")


@pytest.mark.parametrize("sent", ["", " ", "\t\n\r ", "\u3000", "\u00a0", "\u200b", "\u200d\u200d", "\u3164", "\u115f"])
def test_a_text_has_something_to_read(sent: str) -> None:
    refuses(Name, sent)


@pytest.mark.parametrize("sent", ["a\nb", "a\tb", 1, True, None, [], {}])
def test_a_text_is_one_line_of_text(sent: object) -> None:
    refuses(Name, sent)


def test_a_text_is_bounded_as_it_is_sent_and_as_it_is_kept() -> None:
    assert len(NAME.validate_python("🍵" * LONGEST_NAME)) == LONGEST_NAME
    refuses(Name, "a" * (LONGEST_NAME + 1))
    refuses(Name, "a" * LONGEST_NAME + " ")
    assert len(NAME.validate_python("\u0958" * 50)) == LONGEST_NAME  # NFC takes each of them apart
    refuses(Name, "\u0958" * 51)


@given(st.from_regex(re.compile(pattern(Name))))
def test_whatever_text_the_schema_allows_is_taken_and_stays_as_it_is_kept(sent: str) -> None:
    assume(len(sent) <= LONGEST_NAME and len(unicodedata.normalize("NFC", sent)) <= LONGEST_NAME)
    assume(not re.search(SURROGATE, sent))
    kept = NAME.validate_python(sent)
    assert NAME.validate_python(kept) == kept
    assert unicodedata.is_normalized("NFC", kept)
    assert kept == kept.strip()


@given(st.text(max_size=12))
def test_a_text_is_taken_if_and_only_if_the_schema_allows_it(sent: str) -> None:
    if len(sent) >= 1 and re.search(pattern(Name), sent):
        NAME.validate_python(sent)
    else:
        refuses(Name, sent)


# Phone numbers


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("010-1234-5678", "010-1234-5678"),
        ("01012345678", "010-1234-5678"),
        ("010.1234.5678", "010-1234-5678"),
        (" 010 1234 5678\n", "010-1234-5678"),
        ("+82-10-1234-5678", "010-1234-5678"),
        ("+821012345678", "010-1234-5678"),
        ("+82 010-1234-5678", "010-1234-5678"),
        ("+8201012345678", "010-1234-5678"),
        ("011-123-4567", "011-123-4567"),
        ("01912345678", "019-1234-5678"),
        ("02-123-4567", "02-123-4567"),
        ("0212345678", "02-1234-5678"),
        ("+82 2 123 4567", "02-123-4567"),
        ("031-123-4567", "031-123-4567"),
        ("06412345678", "064-1234-5678"),
        ("070-1234-5678", "070-1234-5678"),
        ("080-123-4567", "080-123-4567"),
        ("0505-123-4567", "0505-123-4567"),
        ("050412345678", "0504-1234-5678"),
    ],
)
def test_a_korean_phone_number_is_kept_in_its_national_form(sent: str, kept: str) -> None:
    assert PHONE.validate_python(sent) == kept


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "1",
        "010-123-4567",
        "010-12345-678",
        "010-1234-56789",
        "010--1234-5678",
        "010 - 1234 - 5678",
        "012-1234-5678",
        "0212-3456",
        "034-123-4567",
        "065-123-4567",
        "0501-123-4567",
        "10-1234-5678",
        "8210-1234-5678",
        "+81-10-1234-5678",
        "+82-0-10-1234-5678",
        "0082-10-1234-5678",
        "０１０-１２３４-５６７８",
        "٠١٠-١٢٣٤-٥٦٧٨",
        "010‐1234‐5678",
        "010-1234-5678x",
        "010-1234-5678;010-1234-5678",
        "+1 212 555 0100",
        1012345678,
        None,
    ],
)
def test_what_is_no_korean_phone_number_is_refused(sent: object) -> None:
    refuses(Phone, sent)


@given(st.from_regex(re.compile(pattern(Phone), re.ASCII)))
def test_whatever_phone_number_the_schema_allows_is_taken_and_stays_as_it_is_kept(sent: str) -> None:
    assume(len(sent) <= 30)
    kept = PHONE.validate_python(sent)
    assert PHONE.validate_python(kept) == kept
    assert re.fullmatch(r"0[0-9]{1,3}-[0-9]{3,4}-[0-9]{4}", kept)
    digits = re.sub(r"^\s*\+82\D?0?|\D", lambda found: "0" if "+" in found[0] else "", sent)
    assert kept.replace("-", "") == digits


# Every dialect


@pytest.mark.parametrize("field", [Name, Phone, OrderId])
def test_a_pattern_is_understood_by_other_engines_than_pythons(field: Any) -> None:
    try:
        TypeAdapter(Annotated[str, Field(pattern=pattern(field))])  # of Rust, which knows as little as RE2
    except SchemaError as error:
        pytest.fail(str(error))
    assert not re.search(r"\(\?[^:]|\\[AZzUpPNsSwWdDbBk]", pattern(field))  # ECMAScript has no more in common with it


@given(st.one_of(st.text(max_size=8), st.from_regex(re.compile(pattern(Name))).map(lambda text: text[:8])))
def test_rust_reads_the_pattern_of_a_text_as_python_does(sent: str) -> None:
    assume(not re.search(SURROGATE, sent))
    rust = TypeAdapter[str](Annotated[str, Field(pattern=pattern(Name))])
    try:
        rust.validate_python(sent)
    except ValidationError:
        assert not re.search(pattern(Name), sent)
    else:
        assert re.search(pattern(Name), sent)


# Numbers


@pytest.mark.parametrize(("field", "most"), [(Qty, 100), (Price, HIGHEST_PRICE)])
def test_a_number_may_come_as_its_digits(field: Any, most: int) -> None:
    taken = TypeAdapter[int](field)
    digits = taken.json_schema()["anyOf"][1]["pattern"]
    for number in (1, 9, 10, 99, most - 1, most):
        assert taken.validate_python(number) == taken.validate_python(str(number)) == number
        assert re.search(digits, str(number))
    for number in (0, most + 1, most * 10, -1):
        refuses(field, number)
        refuses(field, str(number))
        assert not re.search(digits, str(number))


@pytest.mark.parametrize("field", [Qty, Price, Limit])
@pytest.mark.parametrize(
    "sent",
    [
        True,
        False,
        1.5,
        math.inf,
        math.nan,
        None,
        [],
        "",
        " 1",
        "1 ",
        "1\n",
        "+1",
        "-1",
        "1_0",
        "1e1",
        "1.0",
        "0x1",
        "01",
        "１",
    ],
)
def test_nothing_else_is_a_number(field: Any, sent: object) -> None:
    refuses(field, sent)


@pytest.mark.parametrize("field", [Qty, Price, Limit, Movement])
def test_a_whole_number_may_be_written_with_a_point(field: Any) -> None:
    taken = TypeAdapter[int](field).validate_python(1.0)
    assert (taken, type(taken)) == (1, int)


def test_a_hundred_of_the_dearest_product_can_be_paid_for() -> None:
    assert 100 * HIGHEST_PRICE <= 99_999_999_999 < 100 * (HIGHEST_PRICE + 1)


def test_a_movement_moves_something() -> None:
    taken = TypeAdapter[int](Movement)
    assert [taken.validate_python(qty) for qty in (-1_000_000, -1, 1, 1_000_000)] == [-1_000_000, -1, 1, 1_000_000]
    for qty in (0, 0.0, 1_000_001, -1_000_001, True, False, 1.5, "1"):
        refuses(Movement, qty)


@pytest.mark.parametrize("sent", ["yes", "1", "True", "", "on", " true", None])
def test_a_flag_is_true_or_false(sent: object) -> None:
    assert [TypeAdapter[bool](Flag).validate_python(flag) for flag in ("true", "false")] == [True, False]
    refuses(Flag, sent)


# Ids and moments


def test_our_own_ids_are_taken_as_they_are() -> None:
    order_id = new_order_id()
    assert TypeAdapter[str](OrderId).validate_python(order_id) == order_id
    for sent in ("", " x", "x\n", "김", "a" * 65, "a/b", "a%", "\x00"):
        refuses(OrderId, sent)


def test_the_first_id_of_a_moment_sorts_before_those_made_later_and_behind_those_made_earlier() -> None:
    before, order_id, after = datetime.now(UTC), new_order_id(), datetime.now(UTC) + timedelta(milliseconds=1)
    assert first_order_id(before) <= order_id < first_order_id(after)
    assert len(first_order_id(before)) == len(order_id)
    assert first_order_id(EARLIEST - timedelta(seconds=10)) == first_order_id(EARLIEST) == f"order_{'0' * 26}"
    assert first_order_id(EARLIEST) < order_id < first_order_id(LATEST)


@pytest.mark.parametrize(
    ("sent", "moment"),
    [
        ("2026-11-24T09:00:00+09:00", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24T09:00:00 09:00", datetime(2026, 11, 24, tzinfo=UTC)),  # a plus that was not encoded
        ("2026-11-24T00:00:00Z", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24t00:00:00.5z", datetime(2026, 11, 24, 0, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-23T19:00:00.123456789-05:00", datetime(2026, 11, 24, 0, 0, 0, 123456, tzinfo=UTC)),
        ("0001-01-01T00:00:00+23:59", EARLIEST),
        ("9999-12-31T23:59:59-23:59", LATEST),
    ],
)
def test_a_moment_has_its_offset_and_is_brought_to_what_the_databases_can_hold(sent: str, moment: datetime) -> None:
    assert TypeAdapter[datetime](Instant).validate_python(sent) == moment


@pytest.mark.parametrize(
    "sent",
    [
        "2026-11-24T09:00:00",
        "2026-11-24",
        "2026-11-24T09:00+09:00",
        "2026-11-24 09:00:00+09:00",
        "2026-W48-2T09:00:00Z",
        "20261124T090000Z",
        "2026-02-30T00:00:00Z",
        "2026-11-24T24:00:00Z",
        "2026-11-24T00:00:00+24:00",
        "2026-11-24T00:00:00,5Z",
        "２０２６-11-24T00:00:00Z",
        "1764000000",
        1764000000,
        "",
        "now",
    ],
)
def test_no_other_form_of_a_moment_is_taken(sent: object) -> None:
    refuses(Instant, sent)


@given(st.datetimes(), st.integers(-1439, 1439))
def test_every_moment_of_the_calendar_is_taken(wall_clock: datetime, offset: int) -> None:
    at = wall_clock.replace(tzinfo=timezone(timedelta(minutes=offset)))
    found = TypeAdapter[datetime](Instant).validate_python(at.isoformat())
    assert EARLIEST - timedelta(days=1) < found <= LATEST
    if EARLIEST.year <= at.year < LATEST.year:
        assert found == at


# An order


@pytest.mark.parametrize(
    "classic",
    [
        {"userId": "minji"},
        {"payStatus": "Y"},
        {"payStatus": "Paid"},
        {"payStatus": "NotPaid"},
        {"productName": "맥북"},
        {"qty": "2"},
        {"phoneNo": "+82 10 1234 5678"},
        {"username": unicodedata.normalize("NFD", "김민지 ")},
        dict.fromkeys(["userId", "payStatus", "productName", "productPrice"]),
    ],
)
def test_an_order_is_the_same_however_it_is_written(classic: dict[str, Any]) -> None:
    assert OrderRequest.model_validate({**ORDER, **classic}).by("minji") == OrderRequest.model_validate(ORDER).by(
        "minji"
    )


def test_an_order_is_its_callers() -> None:
    for somebody in ("haneul", "Minji", "minji ", ""):
        with pytest.raises(RequestValidationError) as refused:
            OrderRequest.model_validate({**ORDER, "userId": somebody}).by("minji")
        assert [error["loc"] for error in refused.value.errors()] == [("body", "userId")]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("payStatus", "N"),
        ("payStatus", "paid"),
        ("payStatus", True),
        ("productName", ""),
        ("productName", "a\x00"),
        ("userId", 1),
        ("userId", "u" * 129),
        ("user_id", "minji"),
        ("orderId", "x"),
        ("amount", 1),
    ],
)
def test_an_order_holds_nothing_else(field: str, wrong: object) -> None:
    with pytest.raises(ValidationError) as refused:
        OrderRequest.model_validate({**ORDER, field: wrong})
    assert [error["loc"] for error in refused.value.errors()] == [(field,)]


def test_what_the_first_version_needed_is_marked_as_deprecated() -> None:
    fields = OrderRequest.model_json_schema()["properties"]
    assert {name for name, field in fields.items() if field.get("deprecated")} == {"userId", "payStatus", "productName"}


def test_a_refusal_says_what_is_asked_for_and_repeats_nothing() -> None:
    class Sent(BaseModel):
        name: Name
        phone: Phone

    with pytest.raises(ValidationError) as refused:
        Sent.model_validate({"name": "hunter2\x00", "phone": "hunter2"})
    told = json.dumps([error["msg"] for error in refused.value.errors()])
    assert "hunter2" not in told
    assert "[^" not in told  # nor the pattern, which nobody can read
    assert "010-1234-5678" in told


def test_a_text_is_judged_in_one_pass_however_its_blanks_are_placed() -> None:
    """An engine that tries each way to share out the blanks takes minutes for a few thousand of them."""

    def seconds(size: int) -> float:
        hostile = " " * size + "a" * size + "\u00a0" * size + "\x00"
        return min(timeit.repeat(lambda: re.fullmatch(TEXT, hostile), number=1, repeat=5))

    assert seconds(800) < 40 * seconds(100)  # 8 in one pass, 512 with three loops that overlap
