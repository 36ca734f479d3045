"""Lists over HTTP: pages, cursors and filters."""

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

import pytest

from services.gateway.caller import Role
from services.order.statuses import EventType, OrderStatus
from tests.api.world import CANCELING, HANEUL, MINJI, OPERATOR, PLACED, Shop, bearer, is_problem

SEOUL = timezone(timedelta(hours=9))
LISTS = ["/orders", "/coupons", "/stockDeliveries"]


async def listed(
    shop: Shop, query: Mapping[str, str] | None = None, *, who: dict[str, str] = MINJI, path: str = "/orders"
) -> list[str]:
    """The ids of the orders on the one page that a list has."""
    answer = await shop.client.get(path, params=query, headers=who)
    assert answer.status_code == 200, answer.text
    assert answer.json()["nextCursor"] is None
    return [item["orderId"] for item in answer.json()["items"]]


async def with_coupons_and_deliveries(shop: Shop, orders: int) -> list[str]:
    """The ids of new orders of 민지, the newest first, whose coupons are issued and deliveries started."""
    placed = [await shop.ordered() for _ in range(orders)]
    for order_id in placed:
        await shop.parts.coupons.issue(order_id=order_id, user_id="minji", amount=9000)
        await shop.parts.deliveries.start(order_id=order_id, product_id="tea", qty=2)
    return placed[::-1]


# Pages


@pytest.mark.parametrize("path", LISTS)
async def test_a_list_comes_newest_first_page_by_page_whoever_orders_meanwhile(shop: Shop, path: str) -> None:
    placed = await with_coupons_and_deliveries(shop, 5)
    pages: list[list[str]] = []
    cursor: str | None = None
    for limit in (2, 1, 2):  # which may change from page to page
        query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        answer = await shop.client.get(path, params=query, headers=MINJI)
        assert answer.status_code == 200
        assert answer.json().keys() == {"items", "nextCursor"}
        pages.append([item["orderId"] for item in answer.json()["items"]])
        cursor = answer.json()["nextCursor"]
        await with_coupons_and_deliveries(shop, 1)
    assert [len(page) for page in pages] == [2, 1, 2]
    assert [order_id for page in pages for order_id in page] == placed
    assert cursor is None


@pytest.mark.parametrize("path", LISTS)
async def test_a_page_that_is_just_full_is_the_last(shop: Shop, path: str) -> None:
    assert await listed(shop, path=path) == []
    placed = await with_coupons_and_deliveries(shop, 2)
    assert await listed(shop, {"limit": "2"}, path=path) == placed


async def test_a_page_holds_twenty_unless_asked_for_more(shop: Shop) -> None:
    for number in range(101):
        await shop.parts.coupons.issue(order_id=f"order-{number:03}", user_id="minji", amount=1)
    for query, items in (("", 20), ("?limit=1", 1), ("?limit=100", 100)):
        answer = await shop.client.get(f"/coupons{query}", headers=MINJI)
        assert len(answer.json()["items"]) == items


# Cursors


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "cursor", ["", "!", "b3JkZXI", "%ff", "한글", "_" * 199, "b3JkZXJf/w", "a" * 5, "AAAAAAAAAAAxYQ=="]
)
async def test_a_cursor_that_we_did_not_give_out_is_refused(shop: Shop, path: str, cursor: str) -> None:
    is_problem(await shop.client.get(path, params={"cursor": cursor}, headers=MINJI), 400, "invalid-cursor")


async def test_a_cursor_that_was_changed_is_refused_or_leads_nowhere_else(shop: Shop) -> None:
    await with_coupons_and_deliveries(shop, 3)
    first = (await shop.client.get("/orders", params={"limit": 1}, headers=MINJI)).json()
    kept = base64.urlsafe_b64decode(first["nextCursor"] + "=" * (-len(first["nextCursor"]) % 4))
    for changed in (b"\0" + kept[1:], kept[:8], kept + b"\0", kept[:8] + b"' OR 1=1 --", kept + b"x" * 64):
        cursor = base64.urlsafe_b64encode(changed).decode().rstrip("=")
        answer = await shop.client.get("/orders", params={"cursor": cursor}, headers=MINJI)
        is_problem(answer, 400, "invalid-cursor")


FILTERED = {"orderStatus": "OrderReceived", "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("who", "path", "query"),
    [
        (HANEUL, "/orders", FILTERED),
        (bearer("minji", Role.OPERATOR), "/orders", FILTERED),
        (MINJI, "/coupons", {}),
        (MINJI, "/stockDeliveries", {}),
        (MINJI, "/orders", {}),
        (MINJI, "/orders", {**FILTERED, "orderStatus": "OrderPlaced"}),
        (MINJI, "/orders", {**FILTERED, "from": "2020-01-01T00:00:01Z"}),
        (MINJI, "/orders", {**FILTERED, "to": "2020-01-01T00:00:00Z"}),
        (MINJI, "/orders", {"orderStatus": "OrderReceived", "to": "2100-01-01T00:00:00Z"}),
    ],
)
async def test_a_cursor_is_of_its_list_its_filters_and_its_reader(
    shop: Shop, who: dict[str, str], path: str, query: dict[str, str]
) -> None:
    placed = await with_coupons_and_deliveries(shop, 2)
    first = (await shop.client.get("/orders", params={**FILTERED, "limit": 1}, headers=MINJI)).json()
    cursor = first["nextCursor"]
    answer = await shop.client.get(path, params={**query, "cursor": cursor}, headers=who)
    is_problem(answer, 400, "invalid-cursor")
    # The same moments, told otherwise.
    same = {**FILTERED, "from": "2020-01-01T09:00:00+09:00", "to": "2100-01-01T00:00:00.000Z"}
    assert await listed(shop, {**same, "cursor": cursor}) == placed[1:]


async def test_a_cursor_of_one_list_is_none_of_another_that_is_filtered_alike(shop: Shop) -> None:
    await with_coupons_and_deliveries(shop, 2)
    for path, other in (("/coupons", "/stockDeliveries"), ("/stockDeliveries", "/coupons")):
        cursor = (await shop.client.get(path, params={"limit": 1}, headers=MINJI)).json()["nextCursor"]
        assert (await shop.client.get(path, params={"cursor": cursor}, headers=MINJI)).status_code == 200
        is_problem(await shop.client.get(other, params={"cursor": cursor}, headers=MINJI), 400, "invalid-cursor")


async def test_a_cursor_is_of_the_operators_filter_on_attention(shop: Shop) -> None:
    await with_coupons_and_deliveries(shop, 2)
    query = {"needsAttention": "false", "limit": "1"}
    cursor = (await shop.client.get("/orders", params=query, headers=OPERATOR)).json()["nextCursor"]
    assert len(await listed(shop, {"needsAttention": "false", "cursor": cursor}, who=OPERATOR)) == 1
    for other in ({"needsAttention": "true"}, {}):
        answer = await shop.client.get("/orders", params={**other, "cursor": cursor}, headers=OPERATOR)
        is_problem(answer, 400, "invalid-cursor")


# Filters


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "x"},
        {"limit": "+1"},
        {"limit": "1.0"},
        {"limit": "9" * 5000},
        {"cursor": "b" * 201},
        {"orderStatus": "Lost"},
        {"from": "2026-11-24T00:00:00"},
        {"from": "1764000000"},
        {"to": "2026-11-24"},
        {"to": "now"},
        {"to": "\x00"},
    ],
)
async def test_a_wrong_query_is_refused(shop: Shop, query: dict[str, str]) -> None:
    found = is_problem(await shop.client.get("/orders", params=query, headers=MINJI), 422, "invalid-request")
    assert [(error["in"], error["pointer"]) for error in found["errors"]] == [("query", f"/{next(iter(query))}")]


async def test_orders_are_listed_by_status(shop: Shop) -> None:
    order_id = await shop.ordered()
    await shop.ordered()
    await shop.record(order_id, PLACED, EventType.ORDER_PLACED)
    assert await listed(shop, {"orderStatus": "OrderPlaced"}) == [order_id]


async def test_every_status_can_be_asked_for(shop: Shop) -> None:
    for status in OrderStatus:
        assert await listed(shop, {"orderStatus": status}) == []


async def test_orders_are_listed_from_a_moment_on_and_before_another(shop: Shop) -> None:
    placed = [await shop.ordered() for _ in range(3)]
    answer = await shop.client.get("/orders", headers=MINJI)
    newest, middle, oldest = [item["orderDate"] for item in answer.json()["items"]]
    assert oldest < middle < newest
    first, second, third = placed
    assert await listed(shop, {"from": middle}) == [third, second]
    assert await listed(shop, {"to": middle}) == [first]
    assert await listed(shop, {"from": oldest, "to": newest}) == [second, first]
    assert await listed(shop, {"from": middle, "to": middle}) == []
    assert await listed(shop, {"from": newest, "to": oldest}) == []
    assert await listed(shop, {"from": oldest, "orderStatus": "OrderPlaced"}) == []
    assert await listed(shop, {"from": oldest}, who=HANEUL) == []
    assert await listed(shop, {"from": oldest}, who=OPERATOR) == placed[::-1]


async def test_a_plus_that_a_query_turned_into_a_blank_is_understood(shop: Shop) -> None:
    placed = await shop.ordered()
    moment = (datetime.now(SEOUL) - timedelta(hours=1)).isoformat()
    for query in (moment, quote(moment)):
        answer = await shop.client.get(f"/orders?from={query}", headers=MINJI)
        assert [item["orderId"] for item in answer.json()["items"]] == [placed]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"from": "0001-01-01T00:00:00+23:59"}, True),
        ({"to": "0001-01-01T00:00:00-23:59"}, False),
        ({"from": "9999-12-31T23:59:59.999999-23:59"}, False),
        ({"to": "9999-12-31T23:59:59.999999999Z"}, True),
        ({"from": "1969-12-31T23:59:59Z", "to": "9998-12-31T23:59:59Z"}, True),
    ],
)
async def test_moments_that_no_order_can_have_are_no_fault(shop: Shop, query: dict[str, str], found: bool) -> None:
    placed = await shop.ordered()
    assert await listed(shop, query) == [placed] * found


async def test_an_operator_lists_what_needs_attention(shop: Shop) -> None:
    flagged, other = await shop.ordered(), await shop.ordered(HANEUL)
    await shop.record(flagged, replace(CANCELING, needs_attention=True), EventType.ATTENTION_RAISED)
    assert await listed(shop, {"needsAttention": "true"}, who=OPERATOR) == [flagged]
    assert await listed(shop, {"needsAttention": "false"}, who=OPERATOR) == [other]
    answer = await shop.client.get("/orders", params={"needsAttention": "yes"}, headers=OPERATOR)
    is_problem(answer, 422, "invalid-request")


@pytest.mark.parametrize("value", ["true", "false"])
async def test_a_customer_may_not_ask_what_needs_attention(shop: Shop, value: str) -> None:
    answer = await shop.client.get("/orders", params={"needsAttention": value}, headers=MINJI)
    is_problem(answer, 403, "forbidden")
