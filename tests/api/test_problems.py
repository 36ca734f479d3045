"""Every error is a problem document, in the caller's language, that gives nothing away; and nothing breaks the API."""

import importlib
import json
import pkgutil
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import activities
import services
import workflows
from services.gateway.guard import BodyTimeout
from services.gateway.wording import WORDING
from services.shared.errors import Refused, ShopError
from tests.api.world import CARRIER, HANEUL, MINJI, OPERATOR, ORDER, Shop, is_problem
from workflows.steps import DECLINES

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}
KEYED = {**MINJI, **JSON, "Idempotency-Key": "key"}
# Codes that no `ShopError` has: what the framework refuses.
OF_THE_GATEWAY = {"bad-request", "not-found", "method-not-allowed", "payload-too-large", "invalid-request"}


def every_error(base: type[ShopError] = ShopError) -> set[type[ShopError]]:
    return {base}.union(*(every_error(error) for error in base.__subclasses__()))


def test_every_error_has_its_texts_and_every_text_its_error() -> None:
    for package in (services, activities, workflows):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if ".migrations" not in module.name:
                importlib.import_module(module.name)
    errors = [error for error in every_error() if error.__module__.startswith(("services", "workflows"))]
    codes = {error.code for error in errors}
    assert len(codes) > 20
    for error in errors:
        assert error.status == WORDING[error.code].status or error in (BodyTimeout, Refused), error
    assert codes | OF_THE_GATEWAY == WORDING.keys()
    assert WORDING.keys() >= DECLINES
    for _, korean, english in WORDING.values():
        assert re.search("[가-힣]", korean)
        assert english.isascii()


def test_the_docs_tell_of_every_code_what_it_means_and_who_does_what() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert sorted(code for code, _ in rows) == sorted(WORDING)
    for code, row in rows:
        status, *told = row.split(" | ")
        if len(told) == 3:
            assert str(WORDING[code].status) in status.split(", ")
        else:
            assert len(told) == 1
        assert all(told)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        (None, "ko"),
        ("ko-KR,ko;q=0.9,en;q=0.8", "ko"),
        ("en-US,en;q=0.9", "en"),
        ("EN", "en"),
        ("fr, en;q=0.5", "en"),
        ("en;q=0.5, ko;q=0.9", "ko"),
        ("ko;q=0, en", "en"),
        ("fr", "ko"),
        ("*", "ko"),
        ("", "ko"),
        (";;,q=,en;q=x", "ko"),
    ],
)
async def test_a_problem_is_told_in_the_callers_language(shop: Shop, accepted: str | None, language: str) -> None:
    headers = {} if accepted is None else {"Accept-Language": accepted}
    answer = await shop.client.get("/products/coffee", headers=headers)
    found = is_problem(answer, 404, "unknown-product")
    assert answer.headers["content-language"] == language
    assert found["detail"] == WORDING["unknown-product"][1 + (language == "en")]
    assert found["title"] == "Unknown product"


async def test_an_unknown_route_and_a_wrong_method_are_problems(shop: Shop) -> None:
    is_problem(await shop.client.get("/no/such/route"), 404, "not-found")
    answer = await shop.client.delete("/products")
    is_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD"
    assert (await shop.client.delete("/orders")).headers["allow"] == "GET, HEAD, POST"
    assert (await shop.client.delete("/docs")).headers["allow"] == "GET"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"qty": }',
        b"\xff\xfe\x00",
        b"{" + b'"a":' * 3000,
        b"[" * 60_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        json.dumps(ORDER).replace(": 2", ": " + "9" * 5000).encode(),
    ],
)
async def test_malformed_json_is_a_bad_request(shop: Shop, body: bytes) -> None:
    is_problem(await shop.client.post("/orders", content=body, headers=KEYED), 400, "bad-request")


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"x"', b"1", b"true", b"{}"])
async def test_a_body_that_is_no_order_is_refused(shop: Shop, body: bytes) -> None:
    found = is_problem(await shop.client.post("/orders", content=body, headers=KEYED), 422, "invalid-request")
    assert found["errors"]


async def test_a_body_of_another_type_is_refused(shop: Shop) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "\x85;;"):
        own = [(header.encode(), value.encode()) for header, value in MINJI.items()]
        headers = [*own, (b"Idempotency-Key", b"k"), (b"Content-Type", kind.encode("latin-1"))]
        answer = await shop.client.post("/orders", content=json.dumps(ORDER).encode(), headers=headers)
        is_problem(answer, 415, "unsupported-media-type")


async def test_unknown_fields_are_refused_by_a_pointer_and_nothing_is_echoed(shop: Shop) -> None:
    secret = "hunter2-숨김"
    wrong: dict[str, Any] = {"cardNumber": secret, "qty": secret, "username": [secret], "a/b~c": secret}
    answer = await shop.client.post("/orders", json={**ORDER, **wrong}, headers=KEYED)
    found = is_problem(answer, 422, "invalid-request")
    assert {error["pointer"] for error in found["errors"]} == {"/cardNumber", "/a~1b~0c", "/qty", "/username"}
    assert {error["in"] for error in found["errors"]} == {"body"}
    assert all(error.keys() == {"in", "pointer", "detail"} for error in found["errors"])
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("field", ["userId", "user_id", "orderId", "amount", "currency", "product_id", "orderStatus"])
async def test_what_the_shop_decides_cannot_be_sent(shop: Shop, field: str) -> None:
    answer = await shop.client.post("/orders", json={**ORDER, field: "x"}, headers=KEYED)
    found = is_problem(answer, 422, "invalid-request")
    assert [error["pointer"] for error in found["errors"]] == [f"/{field}"]


@pytest.mark.parametrize("size", [64 * 1024 + 1, 1024 * 1024])
async def test_a_body_that_is_too_large_is_refused(shop: Shop, size: int) -> None:
    body = json.dumps({**ORDER, "address": "a" * size}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    is_problem(await shop.client.post("/orders", content=body, headers=KEYED), 413, "payload-too-large")
    is_problem(await shop.client.post("/orders", content=chunks(), headers=KEYED), 413, "payload-too-large")
    for method, path, who in (
        ("PUT", "/products/tea", OPERATOR),
        ("PATCH", "/orders/x", MINJI),
        ("POST", "/deliveries/x/events", CARRIER),
    ):
        answer = await shop.client.request(method, path, content=body, headers={**who, **JSON})
        is_problem(answer, 413, "payload-too-large")


async def test_an_unexpected_error_gives_nothing_away(shop: Shop) -> None:
    order_id = await shop.ordered()
    shop.engine.error = RuntimeError("hunter2 at /srv/secret.py")
    answer = await shop.client.post(f"/orders/{order_id}/cancel", headers=MINJI)
    found = is_problem(answer, 500, "internal-error")
    assert found["detail"] == WORDING["internal-error"].korean
    for leak in ("hunter2", "Traceback", ".py", "RuntimeError"):
        assert leak not in answer.text


@pytest.mark.parametrize("given", ["abc-1.2_3", "A" * 64])
async def test_a_sane_request_id_is_kept(shop: Shop, given: str) -> None:
    for path in ("/products", "/no/such/route"):
        assert (await shop.client.get(path, headers={"X-Request-Id": given})).headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"A" * 65, b"a b", b"a\nb", b"\xed\x95\x9c", b'"><script>'])
async def test_any_other_request_id_is_replaced(shop: Shop, given: bytes) -> None:
    answer = await shop.client.get("/no/such/route", headers=[(b"X-Request-Id", given)])
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    is_problem(answer, 404, "not-found")


# Hostile values


TEXTS = ['"1.0"', '"+1"', '" 1"', '"1_0"', '"１"', '"101"', '""']


@pytest.mark.parametrize(
    "qty",
    ["0", "-1", "101", "1e400", "1.5", "NaN", "Infinity", "-Infinity", "9" * 400, "true", "null", "[1]", *TEXTS],
)
async def test_a_quantity_is_a_whole_number_of_pieces(shop: Shop, qty: str) -> None:
    body = json.dumps({**ORDER, "qty": "QTY"}).replace('"QTY"', qty)
    answer = await shop.client.post("/orders", content=body.encode(), headers=KEYED)
    found = is_problem(answer, 422, "invalid-request")
    assert [error["pointer"] for error in found["errors"]] == ["/qty"]


async def test_a_whole_number_may_be_written_with_a_point(shop: Shop) -> None:
    assert (await shop.order(qty=1.0, productPrice=4500.0)).json()["amount"] == 4500


async def test_a_key_is_plain_ascii(shop: Shop) -> None:
    for key in (b"\xed\x95\x9c", b"\x01", b"\x85"):
        headers = [*[(name.encode(), value.encode()) for name, value in MINJI.items()], (b"Idempotency-Key", key)]
        is_problem(await shop.client.post("/orders", json=ORDER, headers=headers), 422, "invalid-request")
    assert await shop.count() == 0


@pytest.mark.parametrize("price", ["0", "-4500", "4500.5", '"4,500"', "true", "NaN"])
async def test_a_price_is_a_whole_number(shop: Shop, price: str) -> None:
    body = json.dumps({**ORDER, "productPrice": "PRICE"}).replace('"PRICE"', price)
    answer = await shop.client.post("/orders", content=body.encode(), headers=KEYED)
    is_problem(answer, 422, "invalid-request")


@pytest.mark.parametrize(
    "value", ["", "   ", "a\x00b", "a\nb", "a\x1b[31mb", "a\x7fb", "a\x85b", "\ud800", "x" * 301, None, 1, True, {}, []]
)
async def test_a_text_is_printable_and_of_a_sane_length(shop: Shop, value: Any) -> None:
    fields = ["productId", "username", "address", "phoneNo", "paymentMethod"]
    body = json.dumps({**ORDER, **dict.fromkeys(fields, value)})
    answer = await shop.client.post("/orders", content=body.encode(), headers=KEYED)
    found = is_problem(answer, 422, "invalid-request")
    assert {error["pointer"] for error in found["errors"]} == {f"/{field}" for field in fields}


@pytest.mark.parametrize(
    "value", ["🍵" * 100, "👩‍👩‍👧‍👦", "'; DROP TABLE orders; --", "<script>", "م ع", "%s{0}${jndi}", "김"]
)
async def test_any_name_comes_back_as_it_was_sent(shop: Shop, value: str) -> None:
    answer = await shop.order(username=value)
    assert answer.status_code == 202
    read = await shop.client.get(answer.headers["location"], headers=MINJI)
    assert read.json()["username"] == value


@pytest.mark.parametrize("name", ["\ud800", "a\x00", "x" * 5000, "한글", "🍵", "", "__proto__"])
async def test_any_name_of_an_unknown_field_is_refused(shop: Shop, name: str) -> None:
    body = json.dumps({**ORDER, name: 1})
    is_problem(await shop.client.post("/orders", content=body.encode(), headers=KEYED), 422, "invalid-request")


IDS = [
    "%00",
    "a%00b",
    "%0a",
    "%ff",
    "%ed%a0%80",
    "%2e%2e",
    "%2e%2e%2fetc%2fpasswd",
    "a" * 65,
    "a" * 5000,
    quote("🍵"),
    quote("' OR 1=1 --"),
    "%25",
    "%",
    "order_%5f",
    "%20",
]


@pytest.mark.parametrize("order_id", IDS)
async def test_any_id_in_a_path_is_answered(shop: Shop, order_id: str) -> None:
    for method, path, who, body in (
        ("GET", f"/orders/{order_id}", MINJI, None),
        ("GET", f"/orders/{order_id}/events", OPERATOR, None),
        ("POST", f"/orders/{order_id}/cancel", HANEUL, None),
        ("PATCH", f"/orders/{order_id}", MINJI, {"orderStatus": "OrderCanceled"}),
        ("GET", f"/deliveries/{order_id}", MINJI, None),
        ("POST", f"/deliveries/{order_id}/events", CARRIER, {"event": "Delivered"}),
        ("GET", f"/products/{order_id}", MINJI, None),
        ("GET", f"/stocks/{order_id}", OPERATOR, None),
    ):
        answer = await shop.client.request(method, path, json=body, headers=who)
        assert answer.status_code in (404, 405, 422), (method, path, answer.text)
        is_problem(answer, answer.status_code, answer.json()["code"])


async def test_a_product_may_have_any_printable_id(shop: Shop) -> None:
    for product_id in ("🍵", "' OR 1=1 --", "%", "a?b#c", "a" * 64):
        body = {"productName": "차", "productPrice": 1}
        answer = await shop.client.put(f"/products/{quote(product_id, safe='')}", json=body, headers=OPERATOR)
        assert (answer.status_code, answer.json()["productId"]) == (200, product_id)
        assert (await shop.order(productId=product_id)).status_code == 202


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"Prefer", b"\xff\xfe"),
        (b"Prefer", b"wait=\xb2"),
        (b"Idempotency-Key", b"\xed\x95\x9c\xea\xb8\x80"),
        (b"Idempotency-Key", b"\x00"),
        (b"Accept-Language", b"\xff,\x00;q=\xb2"),
        (b"Content-Length", b"7"),
        (b"If-None-Match", b"\xff"),
        (b"Last-Event-ID", b"\xb2"),
    ],
)
async def test_no_header_breaks_the_api(shop: Shop, name: bytes, value: bytes) -> None:
    own = [(header.encode(), given.encode()) for header, given in (MINJI | JSON).items()]
    headers = [*own, (name, value)]
    answer = await shop.client.post("/orders", content=json.dumps(ORDER).encode(), headers=headers)
    assert answer.status_code in (202, 400, 422)
    order_id = await shop.ordered()
    assert (await shop.client.get(f"/orders/{order_id}", headers=headers)).status_code == 200
    assert (await shop.client.get(f"/orders/{order_id}/events", headers=headers)).status_code == 200


async def test_two_keys_are_no_key(shop: Shop) -> None:
    headers = [*MINJI.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    is_problem(await shop.client.post("/orders", json=ORDER, headers=headers), 400, "bad-request")


async def test_a_json_object_that_names_a_field_twice_is_refused(shop: Shop) -> None:
    body = json.dumps(ORDER)[:-1] + ', "qty": 3}'
    is_problem(await shop.client.post("/orders", content=body.encode(), headers=KEYED), 400, "bad-request")
    assert await shop.count() == 0
