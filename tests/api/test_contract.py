"""What every route asks of a request before anything else: forms that it knows, and nothing that it would pass over."""

import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from services.order.statuses import EventType
from tests.api.test_access import RULES, call
from tests.api.world import CANCELED, MINJI, OPERATOR, ORDER, Shop, is_problem

JSON = {"Content-Type": "application/json"}
KEYED = {**MINJI, "Idempotency-Key": "key"}
PROBES = ["GET /livez", "GET /readyz", "GET /metrics"]
ROUTES = [what for what in RULES if what not in PROBES]


# The form of an answer


async def read(shop: Shop, path: str, *accept: str) -> httpx2.Response:
    """Read as 민지, with these `Accept` lines."""
    return await shop.client.get(path, headers=[*MINJI.items(), *(("Accept", line) for line in accept)])


@pytest.mark.parametrize(
    "accept",
    [
        [""],
        [" "],
        ["*/*"],
        ["application/*"],
        ["application/json"],
        ["Application/JSON"],
        ["application/json;charset=utf-8"],
        ["application/json;q=0.001"],
        ["text/html, application/xhtml+xml, */*;q=0.1"],
        ["text/html ; q=0.9 , application/json ; q=0.1"],
        ["application/*;q=0, application/json"],
        ["*/*;q=0, application/*;q=0.5"],
        ["text/html", "application/json"],
        ["text/html;q=x, application/json;q=x"],
        ["text/html," * 90 + "application/json"],
    ],
    ids=lambda value: str(value)[:60],
)
async def test_who_takes_json_is_answered(shop: Shop, accept: list[str]) -> None:
    answer = await read(shop, "/orders", *accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize(
    "accept",
    [
        ["text/html"],
        ["json"],
        ["application/xml, text/*"],
        ["text/event-stream"],
        ["application/json;q=0"],
        ["application/json; Q = 0.000"],
        ["application/json;charset=utf-8;q=0"],
        ["*/*;q=0"],
        ["application/json;q=0, */*"],
        ["application/*;q=0, */*;q=1"],
        [","],
        ["text/html," * 200 + "application/json"],
    ],
    ids=lambda value: str(value)[:60],
)
async def test_who_takes_no_json_is_told_that_there_is_nothing_else(shop: Shop, accept: list[str]) -> None:
    is_problem(await read(shop, "/orders", *accept), 406, "not-acceptable")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream, application/json", "application/json"),
        ("text/event-stream;q=0.5, application/json", "application/json"),
        ("text/event-stream;q=0.5, */*;q=0.6", "application/json"),
        ("text/event-stream, */*;q=0.6", "text/event-stream"),
        ("text/event-stream, application/json;q=0.9", "text/event-stream"),
        ("text/*", "text/event-stream"),
        ("TEXT/Event-Stream", "text/event-stream"),
    ],
)
async def test_a_timeline_comes_in_the_form_that_is_liked_best(shop: Shop, accept: str, kind: str) -> None:
    order_id = await shop.ordered()
    await shop.record(order_id, CANCELED, EventType.ORDER_CANCELED)
    answer = await read(shop, f"/orders/{order_id}/events", accept)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)


@pytest.mark.parametrize("what", ROUTES)
async def test_no_route_answers_in_a_form_that_is_not_taken_or_passes_over_a_parameter(shop: Shop, what: str) -> None:
    who = {**RULES[what][-1], "Accept": "image/png"}
    is_problem(await call(shop, what, who), 406, "not-acceptable")
    found = is_problem(await call(shop, f"{what}?color=red", RULES[what][-1]), 422, "invalid-request")
    assert {"in": "query", "pointer": "/color"}.items() <= found["errors"][0].items()


async def test_who_may_not_come_in_is_told_so_before_anything_else(shop: Shop) -> None:
    is_problem(await shop.client.get("/orders?color=red", headers={"Accept": "image/png"}), 401, "unauthorized")
    answer = await shop.client.post("/orders?color=red", content=b"{", headers={"Content-Type": "text/plain"})
    is_problem(answer, 401, "unauthorized")


# Query parameters


async def test_a_parameter_that_comes_twice_is_refused(shop: Shop) -> None:
    for query in ("limit=5&limit=5", "limit=5&orderStatus=OrderReceived&limit=6"):
        found = is_problem(await shop.client.get(f"/orders?{query}", headers=MINJI), 422, "invalid-request")
        assert [(error["in"], error["pointer"]) for error in found["errors"]] == [("query", "/limit")]


@pytest.mark.parametrize(
    ("name", "pointer"),
    [
        ("orderstatus", "/orderstatus"),
        ("a/b~c", "/a~1b~0c"),
        ("~1", "/~01"),
        ("x" * 64, "/" + "x" * 64),
        ("x" * 65, ""),
        ("<script>", ""),
        ("한글 이름", "/한글 이름"),
        ('"', ""),
    ],
)
async def test_a_name_is_repeated_only_if_somebody_could_give_it_a_field(shop: Shop, name: str, pointer: str) -> None:
    in_query = await shop.client.get("/orders", params={name: "1"}, headers=MINJI)
    in_body = await shop.client.post("/orders", json={**ORDER, name: 1}, headers=KEYED)
    for answer in (in_query, in_body):
        found = is_problem(answer, 422, "invalid-request")
        assert [error["pointer"] for error in found["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("changes", "korean", "english"),
    [
        ({"qty": 101}, "100 이하여야 합니다.", "This must be at most 100."),
        ({"qty": 0}, "1 이상이어야 합니다.", "This must be at least 1."),
        ({"qty": "many"}, "정수여야 합니다.", "This must be a whole number."),
        ({"colour": 1}, "알 수 없는 항목입니다.", "This is not known here."),
        ({"username": 5}, "문자열이어야 합니다.", "This must be text."),
        ({"userId": "haneul"}, "로그인한 사용자와 다릅니다.", "This is not who is calling."),
    ],
)
async def test_what_is_wrong_with_a_value_is_told_in_the_callers_language(
    shop: Shop, changes: dict[str, object], korean: str, english: str
) -> None:
    for language, told in (("ko", korean), ("en", english)):
        answer = await shop.order({**MINJI, "Accept-Language": language}, **changes)
        found = is_problem(answer, 422, "invalid-request")
        assert [error["detail"] for error in found["errors"]] == [told]


# Bodies


async def send(shop: Shop, content: bytes | AsyncIterator[bytes], *headers: tuple[str, str]) -> httpx2.Response:
    """Send the body of an order; of a `Content-Type` nothing is said but what is in `headers`."""
    return await shop.client.post("/orders", content=content, headers=[*KEYED.items(), *headers])


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


BODY = json.dumps(ORDER).encode()


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON",
        "application/json;",
        "application/json;charset=utf-8",
        'application/json ; Charset="UTF-8"',
        "application/merge-patch+json",
        "application/vnd.shop.order-2+json; charset=utf8",
    ],
)
async def test_a_body_of_any_kind_of_json_is_read(shop: Shop, kind: str) -> None:
    assert (await send(shop, BODY, ("Content-Type", kind))).status_code == 202
    assert (await send(shop, BODY, ("Content-Type", kind), ("Content-Encoding", "Identity"))).status_code == 202


@pytest.mark.parametrize(
    "kinds",
    [
        [],
        [""],
        ["application/json; charset=euc-kr"],
        ["application/json; charset=utf-16"],
        ["application/jsonp"],
        ["xapplication/json"],
        ["application/xml"],
        ["application/x-www-form-urlencoded"],
        ["text/json"],
        ["application/json, text/plain"],
        ["application/json", "application/json"],
    ],
    ids=str,
)
async def test_a_body_of_any_other_kind_is_not(shop: Shop, kinds: list[str]) -> None:
    headers = [("Content-Type", kind) for kind in kinds]
    is_problem(await send(shop, BODY, *headers), 415, "unsupported-media-type")
    is_problem(await send(shop, chunks(BODY), *headers), 415, "unsupported-media-type")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", ""])
async def test_a_packed_body_is_not_read(shop: Shop, encoding: str) -> None:
    answer = await send(shop, BODY, ("Content-Type", "application/json"), ("Content-Encoding", encoding))
    is_problem(answer, 415, "unsupported-media-type")


async def test_where_there_is_no_body_its_fields_are_missed_and_not_its_type(shop: Shop) -> None:
    for headers in ([], [("Content-Length", "0")]):
        found = is_problem(await send(shop, b"", *headers), 422, "invalid-request")
        assert found["errors"][0]["in"] == "body"


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain"])
async def test_a_call_that_takes_no_body_does_not_mind_of_what_type_it_is(shop: Shop, kind: str) -> None:
    """Command lines name one even where they send nothing."""
    headers = {**OPERATOR, "Content-Type": kind}
    assert (await shop.client.post(f"/orders/{await shop.ordered()}/cancel", headers=headers)).status_code == 202


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "euc-kr"])
async def test_json_is_utf_8(shop: Shop, encoding: str) -> None:
    content = json.dumps(ORDER, ensure_ascii=False).encode(encoding)
    is_problem(await send(shop, content, *JSON.items()), 400, "bad-request")
    assert await shop.count() == 0


async def test_a_field_that_is_named_twice_is_refused_however_deep_it_is(shop: Shop) -> None:
    for twice in (
        BODY[:-1] + b', "qty": 2}',
        BODY[:-1] + b', "a": [{"b": {"c": 1, "c": 1}}]}',
        b'[{"a": 1, "\\u0061": 1}]',
    ):
        is_problem(await send(shop, twice, *JSON.items()), 400, "bad-request")
    assert await shop.count() == 0
