"""Placing, reading, watching and cancelling orders over HTTP."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from services.delivery.stock import Warehouse
from services.gateway.stock_hint import StockHint
from services.order.acceptance import Acceptance
from services.order.statuses import EventType, OrderState
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import PoolSettings
from tests.api.world import (
    CANCELED,
    CARRIER,
    DECLINED,
    DELIVERED,
    HANEUL,
    LEASE,
    MINJI,
    OPERATOR,
    ORDER,
    PLACED,
    RECEIVED,
    Racing,
    Shop,
    is_problem,
)

EVENT_STREAM = {"Accept": "text/event-stream"}


# Placing an order


async def test_an_accepted_order_is_answered_in_full_and_started(shop: Shop) -> None:
    answer = await shop.order(productPrice=4500)
    assert answer.status_code == 202
    order = answer.json()
    assert answer.headers["location"] == f"/orders/{order['orderId']}"
    assert answer.headers["etag"] == '"v1"'
    assert answer.headers["cache-control"] == "private, no-cache"
    assert "idempotent-replayed" not in answer.headers
    assert order.pop("orderId").startswith("order_")
    moments = order.pop("orderDate"), order.pop("updatedAt")
    assert moments[0] == moments[1]
    assert moments[0].endswith("Z")
    assert order == {
        "orderStatus": "OrderReceived",
        "payStatus": "NotPaid",
        "deliveryStatus": "None",
        "cancelReason": None,
        "needsAttention": False,
        "productId": "tea",
        "productName": "보성 녹차",
        "productPrice": 4500,
        "qty": 2,
        "amount": 9000,
        "currency": "KRW",
        "userId": "minji",
        "username": "김민지",
        "address": "서울시 중구 12번가 1",
        "phoneNo": "010-1234-5678",
        "couponId": None,
        "couponKind": None,
        "couponUseYn": None,
        "version": 1,
    }
    assert await asyncio.wait_for(shop.engine.started.get(), 30) == answer.json()["orderId"]
    read = await shop.client.get(answer.headers["location"], headers=MINJI)
    assert read.json() == answer.json()


@pytest.mark.parametrize("key", [None, "", "   "])
async def test_an_order_without_a_key_is_refused(shop: Shop, key: str | None) -> None:
    headers = MINJI if key is None else {**MINJI, "Idempotency-Key": key}
    is_problem(await shop.client.post("/orders", json=ORDER, headers=headers), 400, "idempotency-key-missing")
    assert await shop.count() == 0


async def test_a_key_that_is_too_long_is_refused(shop: Shop) -> None:
    headers = {**MINJI, "Idempotency-Key": "k" * 256}
    found = is_problem(await shop.client.post("/orders", json=ORDER, headers=headers), 422, "invalid-request")
    assert found["errors"][0]["in"] == "header"


async def test_the_same_request_again_is_the_same_order(shop: Shop) -> None:
    headers = {**MINJI, "Idempotency-Key": "once"}
    first = await shop.client.post("/orders", json=ORDER, headers=headers)
    again = await shop.client.post("/orders", json=ORDER, headers=headers)
    assert again.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.json() == first.json()
    assert await shop.count() == 1
    metrics = (await shop.client.get("/metrics")).text
    assert "street12_orders_accepted_total 1.0" in metrics


async def test_simultaneous_requests_with_one_key_are_one_order(shop: Shop) -> None:
    headers = {**MINJI, "Idempotency-Key": "once"}
    answers = await asyncio.gather(*(shop.client.post("/orders", json=ORDER, headers=headers) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["orderId"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 4


async def test_a_key_reused_for_another_request_is_refused(shop: Shop) -> None:
    headers = {**MINJI, "Idempotency-Key": "once"}
    await shop.client.post("/orders", json=ORDER, headers=headers)
    answer = await shop.client.post("/orders", json={**ORDER, "qty": 3}, headers=headers)
    is_problem(answer, 422, "idempotency-key-reused")


async def test_a_key_belongs_to_its_caller(shop: Shop) -> None:
    for who in (MINJI, HANEUL):
        answer = await shop.client.post("/orders", json=ORDER, headers={**who, "Idempotency-Key": "once"})
        assert answer.status_code == 202
        assert "idempotent-replayed" not in answer.headers
    assert await shop.count() == 2


async def test_another_price_than_the_catalogues_is_refused_and_frees_the_key(shop: Shop) -> None:
    headers = {**MINJI, "Idempotency-Key": "once"}
    for price in (4400, 999_999_999):
        answer = await shop.client.post("/orders", json={**ORDER, "productPrice": price}, headers=headers)
        is_problem(answer, 409, "price-changed")
    answer = await shop.client.post("/orders", json={**ORDER, "productPrice": 4500}, headers=headers)
    assert answer.status_code == 202


async def test_an_order_for_an_unknown_product_is_refused(shop: Shop) -> None:
    is_problem(await shop.order(productId="coffee"), 404, "unknown-product")
    assert await shop.count() == 0


async def test_more_than_there_is_in_stock_is_refused_at_once(shop: Shop) -> None:
    is_problem(await shop.order(qty=11), 409, "out-of-stock")
    assert await shop.count() == 0


async def test_an_order_that_was_accepted_is_replayed_even_when_stock_ran_out(shop: Shop) -> None:
    headers = {**MINJI, "Idempotency-Key": "once"}
    first = await shop.client.post("/orders", json=ORDER, headers=headers)
    await shop.parts.warehouse.move(product_id="tea", qty=-10, reason="lost", reference="r")
    again = await shop.client.post("/orders", json=ORDER, headers=headers)
    assert again.json() == first.json()


class Silent(Warehouse):
    """A delivery team that never answers."""

    def __init__(self) -> None:
        self.cancelled = False

    async def on_hand_of(self, product_ids: Collection[str]) -> dict[str, int]:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True
        raise AssertionError


def hint_from(shop: Shop, hint: StockHint) -> None:
    shop.exchange(
        acceptance=Acceptance(shop.parts.order_database, shop.parts.admission, lease=LEASE, on_hand=hint.on_hand)
    )


class Broken(Warehouse):
    """A delivery team that answers with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def on_hand_of(self, product_ids: Collection[str]) -> dict[str, int]:
        raise self._error


async def test_an_order_is_accepted_when_the_warehouse_hangs(shop: Shop) -> None:
    silent = Silent()
    hint_from(shop, StockHint(silent, seconds=0.01))
    assert (await shop.order(qty=50)).status_code == 202
    assert silent.cancelled


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), OSError("gone"), RuntimeError("nobody expects this")])
async def test_an_order_is_accepted_when_the_warehouse_fails(shop: Shop, error: Exception) -> None:
    hint_from(shop, StockHint(Broken(error)))
    assert (await shop.order(qty=50)).status_code == 202


async def test_an_order_is_accepted_when_the_delivery_database_is_not_migrated(shop: Shop, tmp_path: Path) -> None:
    empty = Database(f"sqlite+aiosqlite:///{tmp_path}/empty.db", PoolSettings(attempts=1))
    shop.exchange(warehouse=Warehouse(empty))
    assert (await shop.order()).status_code == 202
    await empty.close()


async def test_an_order_for_a_product_that_was_never_stocked_is_accepted(shop: Shop) -> None:
    await shop.parts.catalogue.put(product_id="cup", product_name="찻잔", product_price=100)
    assert (await shop.order(productId="cup")).status_code == 202


async def test_who_waits_is_told_that_the_order_is_paid(shop: Shop) -> None:
    async def paid(order_id: str) -> None:
        await shop.record(order_id, PLACED, EventType.ORDER_PLACED)

    shop.engine.on_payment = paid
    answer = await shop.order({**MINJI, "Prefer": "respond-async, wait=5"})
    assert answer.status_code == 201
    assert answer.json()["orderStatus"] == "OrderPlaced"
    assert answer.json()["payStatus"] == "Paid"
    assert answer.headers["etag"] == '"v2"'
    assert answer.headers["location"] == f"/orders/{answer.json()['orderId']}"
    assert shop.engine.waits == [5]


@pytest.mark.parametrize("code", ["payment-declined", "insufficient-funds"])
async def test_who_waits_is_told_that_the_payment_was_declined(shop: Shop, code: str) -> None:
    async def declined(order_id: str) -> None:
        await shop.record(order_id, DECLINED, EventType.PAYMENT_DECLINED, detail={"code": code})

    shop.engine.on_payment = declined
    headers = {**MINJI, "Prefer": "wait=5", "Idempotency-Key": "once"}
    answer = await shop.client.post("/orders", json=ORDER, headers=headers)
    is_problem(answer, 402, code)
    location = answer.headers["location"]
    assert (await shop.client.get(location, headers=MINJI)).json()["orderStatus"] == "PaymentDeclined"
    again = await shop.client.post("/orders", json=ORDER, headers=headers)
    is_problem(again, 402, code)
    assert again.headers["location"] == location
    assert again.headers["idempotent-replayed"] == "true"
    assert shop.engine.waits == [5]


@pytest.mark.parametrize("away", [False, True])
async def test_who_waits_too_short_is_told_that_the_order_is_accepted(shop: Shop, away: bool) -> None:
    shop.engine.away = away
    answer = await shop.order({**MINJI, "Prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.json()["orderStatus"] == "OrderReceived"


async def test_who_waits_is_told_that_the_order_is_accepted_when_the_database_goes_away_meanwhile(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(shop.parts.book, "get", away)
    answer = await shop.order({**MINJI, "Prefer": "wait=5"})
    assert (answer.status_code, answer.json()["orderStatus"]) == (202, "OrderReceived")
    assert shop.engine.waits == [5]


@pytest.mark.parametrize(
    ("prefer", "waited"),
    [
        ("wait=5", [5]),
        ("wait=999999999", [30]),
        ("wait=99999999999999999999", []),
        ("wait=0", []),
        ("wait=-1", []),
        ("wait=1.5", []),
        ("wait=abc", []),
        ("await=5", []),
        ("respond-async; wait=7", [7]),
    ],
)
async def test_how_long_a_caller_may_wait(shop: Shop, prefer: str, waited: list[float]) -> None:
    assert (await shop.order({**MINJI, "Prefer": prefer})).status_code == 202
    assert shop.engine.waits == waited


@pytest.mark.parametrize(("state", "status"), [(PLACED, 201), (DECLINED, 402), (RECEIVED, 202)])
async def test_who_waits_is_told_for_how_long_at_most(shop: Shop, state: OrderState, status: int) -> None:
    async def settled(order_id: str) -> None:
        if state is not RECEIVED:
            await shop.record(
                order_id, state, EventType.PAYMENT_DECLINED if state is DECLINED else EventType.ORDER_PLACED
            )

    shop.engine.on_payment = settled
    for prefer, applied in (("wait=5", "wait=5"), ("wait=31", "wait=30")):
        headers = {**MINJI, "Prefer": prefer, "Idempotency-Key": prefer}
        for _ in range(2):  # a repetition waits, or need not
            answer = await shop.client.post("/orders", json=ORDER, headers=headers)
            assert (answer.status_code, answer.headers["preference-applied"]) == (status, applied)


@pytest.mark.parametrize("prefer", ["", "wait=0", "respond-async", "wait=soon"])
async def test_who_does_not_wait_is_not_told_that_they_did(shop: Shop, prefer: str) -> None:
    assert "preference-applied" not in (await shop.order({**MINJI, "Prefer": prefer})).headers


async def test_who_does_not_wait_is_told_that_the_order_is_accepted_though_it_is_paid(shop: Shop) -> None:
    headers = {**MINJI, "Idempotency-Key": "once"}
    first = await shop.client.post("/orders", json=ORDER, headers=headers)
    await shop.record(first.json()["orderId"], PLACED, EventType.ORDER_PLACED)
    again = await shop.client.post("/orders", json=ORDER, headers=headers)
    assert (again.status_code, again.json()["payStatus"]) == (202, "Paid")


async def test_an_order_is_accepted_while_the_engine_is_away(shop: Shop) -> None:
    shop.engine.away = True
    order_id = await shop.ordered()
    assert (await shop.client.get(f"/orders/{order_id}", headers=MINJI)).status_code == 200


# Whose order it is


async def test_a_customer_sees_and_touches_only_their_own_orders(shop: Shop) -> None:
    order_id = await shop.ordered()
    await shop.parts.deliveries.start(order_id=order_id, product_id="tea", qty=2)
    get, post, patch = shop.client.get, shop.client.post, shop.client.patch
    for somebody in (order_id, "order_00000000000000000000000000", "x"):
        for answer in (
            await get(f"/orders/{somebody}", headers=HANEUL),
            await get(f"/orders/{somebody}", headers={**HANEUL, "If-None-Match": "*"}),
            await get(f"/orders/{somebody}/events", headers=HANEUL),
            await get(f"/orders/{somebody}/events", headers={**HANEUL, **EVENT_STREAM}),
            await get(f"/deliveries/{somebody}", headers=HANEUL),
            await post(f"/orders/{somebody}/cancel", headers=HANEUL),
            await patch(f"/orders/{somebody}", json={"orderStatus": "OrderCanceled"}, headers=HANEUL),
        ):
            is_problem(answer, 404, "not-found")
    assert (await get("/orders", headers=HANEUL)).json() == {"items": [], "nextCursor": None}
    assert shop.engine.told == []


async def test_an_operator_sees_all_orders(shop: Shop) -> None:
    ids = [await shop.ordered(MINJI), await shop.ordered(HANEUL)]
    listed = (await shop.client.get("/orders", headers=OPERATOR)).json()["items"]
    assert [order["orderId"] for order in listed] == ids[::-1]
    for order_id in ids:
        assert (await shop.client.get(f"/orders/{order_id}", headers=OPERATOR)).status_code == 200
        assert (await shop.client.get(f"/orders/{order_id}/events", headers=OPERATOR)).status_code == 200


async def test_a_carrier_has_no_business_with_orders(shop: Shop) -> None:
    order_id = await shop.ordered()
    for method, path, body in (
        ("POST", "/orders", ORDER),
        ("GET", "/orders", None),
        ("GET", f"/orders/{order_id}", None),
        ("GET", f"/orders/{order_id}/events", None),
        ("POST", f"/orders/{order_id}/cancel", None),
        ("PATCH", f"/orders/{order_id}", {"orderStatus": "OrderCanceled"}),
    ):
        is_problem(await shop.client.request(method, path, json=body, headers=CARRIER), 403, "forbidden")


# Reading one order


async def test_an_order_that_did_not_change_is_not_sent_again(shop: Shop) -> None:
    order_id = await shop.ordered()
    path = f"/orders/{order_id}"
    tag = (await shop.client.get(path, headers=MINJI)).headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await shop.client.get(path, headers={**MINJI, "If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    await shop.record(order_id, PLACED, EventType.ORDER_PLACED)
    answer = await shop.client.get(path, headers={**MINJI, "If-None-Match": tag})
    assert answer.status_code == 200
    assert answer.headers["etag"] != tag
    assert answer.json()["version"] == 2


# Cancelling


@pytest.mark.parametrize("way", ["POST", "PATCH"])
@pytest.mark.parametrize(("who", "by"), [(MINJI, "customer"), (OPERATOR, "operator")])
async def test_an_order_is_cancelled(shop: Shop, way: str, who: dict[str, str], by: str) -> None:
    order_id = await shop.ordered()

    async def cancel() -> Any:
        if way == "POST":
            return await shop.client.post(f"/orders/{order_id}/cancel", headers=who)
        return await shop.client.patch(f"/orders/{order_id}", json={"orderStatus": "OrderCanceled"}, headers=who)

    answer = await cancel()
    assert answer.status_code == 202
    assert answer.json()["orderStatus"] == "OrderCanceling"
    again = await cancel()
    assert again.status_code == 202
    await shop.record(order_id, CANCELED, EventType.ORDER_CANCELED)
    shop.engine.away = True
    done = await cancel()
    assert (done.status_code, done.json()["orderStatus"]) == (202, "OrderCanceled")
    assert shop.engine.told == [("cancel", order_id, by, "minji" if who is MINJI else "ops-1")]


@pytest.mark.parametrize(("state", "event"), [(DELIVERED, EventType.DELIVERED), (DECLINED, EventType.PAYMENT_DECLINED)])
async def test_an_order_at_its_end_can_no_longer_be_cancelled(shop: Shop, state: Any, event: EventType) -> None:
    order_id = await shop.ordered()
    await shop.record(order_id, state, event)
    for _ in range(2):
        answer = await shop.client.post(f"/orders/{order_id}/cancel", headers=MINJI)
        is_problem(answer, 409, "too-late-to-cancel")


async def test_a_cancel_that_another_one_overtook_is_harmless(shop: Shop) -> None:
    shop.exchange(engine=Racing(shop.parts.book))
    order_id = await shop.ordered()
    answer = await shop.client.post(f"/orders/{order_id}/cancel", headers=MINJI)
    assert (answer.status_code, answer.json()["orderStatus"]) == (202, "OrderCanceled")


async def test_cancelling_while_the_engine_is_away_can_be_tried_again(shop: Shop) -> None:
    order_id = await shop.ordered()
    shop.engine.away = True
    answer = await shop.client.post(f"/orders/{order_id}/cancel", headers=MINJI)
    is_problem(answer, 503, "engine-unavailable")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "body", [{}, {"orderStatus": "Delivered"}, {"orderStatus": "OrderCanceled", "qty": 1}, {"qty": 3}, [], None, "x"]
)
async def test_a_patch_can_do_nothing_but_cancel(shop: Shop, body: Any) -> None:
    order_id = await shop.ordered()
    answer = await shop.client.patch(f"/orders/{order_id}", json=body, headers=MINJI)
    is_problem(answer, 422, "invalid-request")
    assert shop.engine.told == []


# The timeline


async def test_the_timeline_tells_what_happened(shop: Shop) -> None:
    order_id = await shop.ordered()
    await shop.record(order_id, PLACED, EventType.ORDER_PLACED, detail={"code": "줄\n바꿈"})
    items = (await shop.client.get(f"/orders/{order_id}/events", headers=MINJI)).json()["items"]
    assert [item.pop("at").endswith("Z") for item in items] == [True, True]
    assert items == [
        {"version": 1, "type": "OrderReceived", "detail": {}},
        {"version": 2, "type": "OrderPlaced", "detail": {"code": "줄\n바꿈"}},
    ]
