"""Placing, reading and cancelling orders."""

import asyncio
import dataclasses

import httpx2
import pytest

from api import create_app
from services.delivery.stock import Warehouse
from services.order.statuses import EventType, OrderStatus, PayStatus
from services.shared.errors import DatabaseUnavailable
from tests.api.conftest import CARRIER, KIM, LEE, MAC, OPERATOR, World

ORDER_FIELDS = """
    orderId orderStatus payStatus deliveryStatus cancelReason needsAttention productId productName productPrice qty
    amount currency userId username address phoneNo couponId couponKind couponUseYn orderDate updatedAt version
"""
KEY = {"Idempotency-Key": "first"}


async def test_an_order_is_accepted_and_handed_to_the_engine(world: World) -> None:
    answer = await world.http.post("/orders", json=MAC, headers=KIM | KEY)
    order = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/orders/{order['orderId']}")
    assert (order["orderStatus"], order["payStatus"], order["amount"]) == ("OrderReceived", "NotPaid", 6_000_000)
    async with asyncio.timeout(5):
        assert await world.engine.started.get() == order["orderId"]


async def test_an_order_reads_in_exactly_the_designs_fields(world: World) -> None:
    order = await world.order()
    assert sorted(order) == sorted(ORDER_FIELDS.split())
    assert order["orderDate"].endswith("Z")
    assert order["updatedAt"].endswith("Z")


async def test_without_a_key_no_order_is_taken(world: World) -> None:
    answer = await world.http.post("/orders", json=MAC, headers=KIM)
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency-key-missing")
    assert (await world.http.get("/orders", headers=KIM)).json()["items"] == []


async def test_the_same_key_answers_the_same_order(world: World) -> None:
    first = await world.http.post("/orders", json=MAC, headers=KIM | KEY)
    again = await world.http.post("/orders", json=MAC, headers=KIM | KEY)
    assert again.json()["orderId"] == first.json()["orderId"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers


async def test_the_same_key_for_another_order_is_refused(world: World) -> None:
    await world.order()
    answer = await world.http.post("/orders", json=MAC | {"qty": 3}, headers=KIM | KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-key-reused")


async def test_the_key_of_another_customer_is_another_key(world: World) -> None:
    assert (await world.order(KIM))["orderId"] != (await world.order(LEE))["orderId"]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"productPrice": 1}, 409, "price-changed"),
        ({"productId": "none"}, 404, "unknown-product"),
        ({"qty": 11}, 409, "out-of-stock"),
    ],
)
async def test_what_cannot_be_sold_is_refused(world: World, changes: dict[str, object], status: int, code: str) -> None:
    answer = await world.http.post("/orders", json=MAC | changes, headers=KIM | KEY)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_delivery_team_that_does_not_answer_holds_no_order_back(world: World) -> None:
    class Silent(Warehouse):
        async def on_hand(self, product_id: str) -> int:
            await asyncio.Event().wait()
            return 0

    await _accepts_with(world, Silent(world.parts.order_database))


async def test_a_delivery_team_that_is_away_holds_no_order_back(world: World) -> None:
    class Away(Warehouse):
        async def on_hand(self, product_id: str) -> int:
            raise DatabaseUnavailable("away")

    await _accepts_with(world, Away(world.parts.order_database))


async def _accepts_with(world: World, warehouse: Warehouse) -> None:
    app = create_app(dataclasses.replace(world.parts, warehouse=warehouse))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop") as http:
        assert (await http.post("/orders", json=MAC | {"qty": 100}, headers=KIM | KEY)).status_code == 202


async def test_an_engine_that_is_away_holds_no_order_back(world: World) -> None:
    world.engine.away = True
    order = await world.order()
    answer = await world.http.get(f"/orders/{order['orderId']}", headers=KIM)
    assert answer.json()["orderStatus"] == "OrderReceived"


@pytest.mark.parametrize(
    ("prefer", "paid", "status"),
    [
        ("wait=5", PayStatus.PAID, 201),
        ("wait=5", None, 202),
        ("respond-async", PayStatus.PAID, 202),
    ],
)
async def test_who_prefers_to_wait_learns_of_the_payment(
    world: World, prefer: str, paid: PayStatus | None, status: int
) -> None:
    world.engine.paid = paid
    answer = await world.http.post("/orders", json=MAC, headers=KIM | KEY | {"Prefer": prefer})
    assert answer.status_code == status


@pytest.mark.parametrize("code", ["payment-declined", "insufficient-funds"])
async def test_a_declined_payment_is_a_problem_that_names_the_order(world: World, code: str) -> None:
    world.engine.paid, world.engine.decline = PayStatus.DECLINED, code
    answer = await world.http.post("/orders", json=MAC, headers=KIM | KEY | {"Prefer": "wait=5"})
    assert (answer.status_code, answer.json()["code"]) == (402, code)
    assert answer.headers["Location"].startswith("/orders/order_")


async def test_nobody_waits_longer_than_thirty_seconds(world: World) -> None:
    await world.http.post("/orders", json=MAC, headers=KIM | KEY | {"Prefer": "wait=9999"})
    assert [timeout for _, _, timeout in world.engine.told] == [30]


async def test_orders_are_listed_newest_first_page_by_page(world: World) -> None:
    placed = [(await world.order(key=str(number)))["orderId"] for number in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await world.http.get(f"/orders?limit=2{cursor}", headers=KIM)).json()
        seen += [order["orderId"] for order in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert seen == placed[::-1]


@pytest.mark.parametrize("cursor", ["!", "b3JkZXI", "%00", "é", "a" * 150])
async def test_a_cursor_that_was_not_given_out_is_refused(world: World, cursor: str) -> None:
    answer = await world.http.get(f"/orders?cursor={cursor}", headers=KIM)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-cursor")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "orderStatus=Lost"])
async def test_a_list_refuses_what_it_cannot_filter(world: World, query: str) -> None:
    assert (await world.http.get(f"/orders?{query}", headers=KIM)).status_code == 422


async def test_operators_filter_all_orders(world: World) -> None:
    mine, other = await world.order(KIM), await world.order(LEE)
    placed, flagged = mine["orderId"], other["orderId"]
    await world.happen(placed, 2, EventType.ORDER_PLACED, OrderStatus.ORDER_PLACED)
    await world.happen(flagged, 2, EventType.ATTENTION_RAISED, OrderStatus.DELIVERY_STARTED, needs_attention=True)
    for query, expected in [("orderStatus=OrderPlaced", [placed]), ("needsAttention=true", [flagged])]:
        page = (await world.http.get(f"/orders?{query}", headers=OPERATOR)).json()
        assert [order["orderId"] for order in page["items"]] == expected


async def test_an_order_that_has_not_changed_is_not_sent_again(world: World) -> None:
    url = f"/orders/{(await world.order())['orderId']}"
    first = await world.http.get(url, headers=KIM)
    assert first.headers["ETag"] == '"v1"'
    same = await world.http.get(url, headers=KIM | {"If-None-Match": '"v0", "v1"'})
    assert (same.status_code, same.content) == (304, b"")
    await world.happen(url.removeprefix("/orders/"), 2, EventType.ORDER_PLACED, OrderStatus.ORDER_PLACED)
    changed = await world.http.get(url, headers=KIM | {"If-None-Match": '"v1"'})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"v2"')


CANCELS = [("POST", "/cancel", None), ("PATCH", "", {"orderStatus": "OrderCanceled"})]


@pytest.mark.parametrize(("method", "path", "body"), CANCELS)
@pytest.mark.parametrize(("who", "by"), [(KIM, "customer"), (OPERATOR, "operator")])
async def test_an_order_is_cancelled(
    world: World, method: str, path: str, body: object, who: dict[str, str], by: str
) -> None:
    order_id = (await world.order())["orderId"]
    answer = await world.http.request(method, f"/orders/{order_id}{path}", json=body, headers=who)
    assert (answer.status_code, answer.json()["orderId"]) == (202, order_id)
    assert world.engine.told == [("cancel", order_id, by, who["X-User-Id"])]


@pytest.mark.parametrize("status", [OrderStatus.ORDER_CANCELING, OrderStatus.ORDER_CANCELED])
async def test_cancelling_again_is_harmless_and_needs_no_engine(world: World, status: OrderStatus) -> None:
    order_id = (await world.order())["orderId"]
    await world.happen(order_id, 2, EventType(status), status)
    world.engine.away = True
    answer = await world.http.post(f"/orders/{order_id}/cancel", headers=KIM)
    assert (answer.status_code, answer.json()["orderStatus"]) == (202, status)


@pytest.mark.parametrize("status", [OrderStatus.DELIVERED, OrderStatus.PAYMENT_DECLINED])
async def test_an_order_at_its_end_cannot_be_cancelled_even_without_an_engine(
    world: World, status: OrderStatus
) -> None:
    order_id = (await world.order())["orderId"]
    await world.happen(order_id, 2, EventType(status), status)
    world.engine.away = True
    answer = await world.http.post(f"/orders/{order_id}/cancel", headers=KIM)
    assert (answer.status_code, answer.json()["code"]) == (409, "too-late-to-cancel")


async def test_the_engine_has_the_last_word_on_a_cancel(world: World) -> None:
    order_id = (await world.order())["orderId"]
    world.engine.refuses = True
    answer = await world.http.post(f"/orders/{order_id}/cancel", headers=KIM)
    assert (answer.status_code, answer.json()["code"]) == (409, "too-late-to-cancel")


async def test_a_cancel_waits_for_no_engine(world: World) -> None:
    order_id = (await world.order())["orderId"]
    world.engine.away = True
    answer = await world.http.post(f"/orders/{order_id}/cancel", headers=KIM)
    assert (answer.status_code, answer.json()["code"]) == (503, "engine-unavailable")
    assert int(answer.headers["Retry-After"]) > 0


SOMEBODY_ELSES = [
    ("GET", "/orders/{}", None),
    ("GET", "/orders/{}/events", None),
    ("POST", "/orders/{}/cancel", None),
    ("PATCH", "/orders/{}", {"orderStatus": "OrderCanceled"}),
    ("GET", "/deliveries/{}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), SOMEBODY_ELSES)
async def test_somebody_elses_order_looks_like_none(world: World, method: str, path: str, body: object) -> None:
    order_id = (await world.order(KIM))["orderId"]
    theirs = await world.http.request(method, path.format(order_id), json=body, headers=LEE)
    nobodys = await world.http.request(method, path.format("order_none"), json=body, headers=LEE)
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.json() | {"requestId": ""} == nobodys.json() | {"requestId": ""}
    assert world.engine.told == []


async def test_customers_list_their_own_orders_alone(world: World) -> None:
    mine = (await world.order(KIM))["orderId"]
    await world.order(LEE)
    page = (await world.http.get("/orders", headers=KIM)).json()
    assert [order["orderId"] for order in page["items"]] == [mine]


OPERATORS_ONLY = [
    ("PUT", "/products/9", {"productName": "x", "productPrice": 1}),
    ("GET", "/stocks/1001", None),
    ("POST", "/stocks/1001/movements", {"qty": 1, "reason": "x"}),
    ("POST", "/orders/order_1/settlements", {"step": "x", "action": "skip", "reason": "x"}),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "who"),
    [
        *((*call, who) for call in OPERATORS_ONLY for who in (KIM, CARRIER)),
        *(("POST", "/deliveries/order_1/events", {"event": "Delivered"}, who) for who in (KIM, OPERATOR)),
        ("GET", "/orders", None, CARRIER),
        ("POST", "/orders", MAC, CARRIER),
    ],
)
async def test_the_wrong_role_is_refused(
    world: World, method: str, path: str, body: object, who: dict[str, str]
) -> None:
    answer = await world.http.request(method, path, json=body, headers=who | KEY)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
