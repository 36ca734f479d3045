"""Catalogue, stock, deliveries, coupons, settlements, and what the platform asks of the process."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.delivery.stock import MOST_ON_HAND
from services.gateway.caller import Role
from services.order import figures
from services.order.admission import Admission, AdmissionReport
from services.order.circuit import AdmissionRules
from services.order.statuses import EventType, OrderState, OrderStatus, PayStatus
from services.shared.database import Database
from services.shared.settings import PoolSettings
from tests.api.world import (
    CANCELED,
    CARRIER,
    DELIVERED,
    HANEUL,
    MINJI,
    OPERATOR,
    PLACED,
    Racing,
    Shop,
    is_problem,
)
from tests.issuer import bearer

UNDERWAY = OrderState(order_status=OrderStatus.DELIVERY_STARTED, pay_status=PayStatus.PAID)
TEA = {"productId": "tea", "productName": "보성 녹차", "productPrice": 4500, "currency": "KRW"}
POT = {"productId": "pot", "productName": "백자 주전자", "productPrice": 90_000, "currency": "KRW"}
SETTLEMENT = {"step": "refund_payment", "action": "skip", "reason": "refunded by bank transfer"}


# Who may do what


@pytest.mark.parametrize(
    ("method", "path", "body", "allowed"),
    [
        ("PUT", "/products/tea", {"productName": "차", "productPrice": 1}, [OPERATOR]),
        ("GET", "/stocks/tea", None, [OPERATOR]),
        ("POST", "/stocks/tea/movements", {"qty": 1, "reason": "restock"}, [OPERATOR]),
        ("POST", "/orders/x/settlements", SETTLEMENT, [OPERATOR]),
        ("POST", "/orders/x/waivers", {"reason": "away"}, [OPERATOR]),
        ("POST", "/orders/x/clearances", {"reason": "seen to"}, [OPERATOR]),
        ("POST", "/deliveries/x/events", {"event": "Delivered"}, [CARRIER]),
        ("GET", "/deliveries/x", None, [MINJI, OPERATOR]),
        ("GET", "/coupons", None, [MINJI, OPERATOR]),
        ("GET", "/promotes", None, [MINJI, OPERATOR]),
        ("GET", "/stockDeliveries", None, [MINJI, OPERATOR]),
        ("GET", "/orderStatus", None, [MINJI, OPERATOR]),
        ("GET", "/orders", None, [MINJI, OPERATOR]),
        ("GET", "/orders/x", None, [MINJI, OPERATOR]),
        ("GET", "/orders/x/events", None, [MINJI, OPERATOR]),
        ("POST", "/orders/x/cancel", None, [MINJI, OPERATOR]),
    ],
)
async def test_each_role_may_do_its_own_work_alone(
    shop: Shop, method: str, path: str, body: Any, allowed: list[dict[str, str]]
) -> None:
    is_problem(await shop.client.request(method, path, json=body), 401, "unauthorized")
    for who in (MINJI, OPERATOR, CARRIER):
        answer = await shop.client.request(method, path, json=body, headers=who)
        if who in allowed:
            assert answer.status_code in (200, 201, 404)
        else:
            is_problem(answer, 403, "forbidden")


# The catalogue


async def test_anyone_reads_the_catalogue(shop: Shop) -> None:
    assert (await shop.client.get("/products")).json() == {"items": [POT, TEA]}
    assert (await shop.client.get("/products/tea")).json() == TEA
    is_problem(await shop.client.get("/products/coffee"), 404, "unknown-product")


async def test_an_operator_puts_a_product(shop: Shop) -> None:
    body = {"productName": " 찻잔 🍵 ", "productPrice": 12_000}
    expected = {"productId": "찻잔-1", "productName": "찻잔 🍵", "productPrice": 12_000, "currency": "KRW"}
    for _ in range(2):
        answer = await shop.client.put("/products/찻잔-1", json=body, headers=OPERATOR)
        assert answer.status_code == 200
        assert answer.json() == expected
    assert (await shop.client.get("/products/찻잔-1")).json() == expected


async def test_an_order_keeps_the_price_at_which_it_was_accepted(shop: Shop) -> None:
    order_id = await shop.ordered()
    await shop.client.put("/products/tea", json={"productName": "녹차", "productPrice": 1}, headers=OPERATOR)
    assert (await shop.client.get(f"/orders/{order_id}", headers=MINJI)).json()["amount"] == 9000


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"productName": "차", "productPrice": 0}, "/productPrice"),
        ({"productName": "차", "productPrice": -1}, "/productPrice"),
        ({"productName": "차", "productPrice": 10**9}, "/productPrice"),
        ({"productName": "차", "productPrice": "01"}, "/productPrice"),
        ({"productName": "차", "productPrice": 1.5}, "/productPrice"),
        ({"productName": "차", "productPrice": True}, "/productPrice"),
        ({"productName": "", "productPrice": 1}, "/productName"),
        ({"productName": "차" * 201, "productPrice": 1}, "/productName"),
        ({"productName": "차", "productPrice": 1, "currency": "USD"}, "/currency"),
        ({"productName": "차", "productPrice": 1, "productId": "tea"}, "/productId"),
        ({"product_name": "차", "productName": "차", "productPrice": 1}, "/product_name"),
    ],
)
async def test_a_wrong_product_is_refused(shop: Shop, body: Any, pointer: str) -> None:
    found = is_problem(await shop.client.put("/products/tea", json=body, headers=OPERATOR), 422, "invalid-request")
    assert [error["pointer"] for error in found["errors"]] == [pointer]
    assert (await shop.client.get("/products/tea")).json() == TEA


# Stock


async def test_stock_is_moved_by_hand(shop: Shop) -> None:
    path = "/stocks/tea"
    assert (await shop.client.get(path, headers=OPERATOR)).json() == {"productId": "tea", "onHand": 10}
    for qty, on_hand in ((5, 15), (-15, 0), (3, 3)):
        body = {"qty": qty, "reason": "재고 조사"}
        answer = await shop.client.post(f"{path}/movements", json=body, headers=OPERATOR)
        assert (answer.status_code, answer.json()) == (201, {"productId": "tea", "onHand": on_hand})
    is_problem(await shop.client.get("/stocks/coffee", headers=OPERATOR), 404, "unknown-product")


async def test_stock_never_falls_below_zero_by_hand(shop: Shop) -> None:
    body = {"qty": -11, "reason": "lost"}
    answer = await shop.client.post("/stocks/tea/movements", json=body, headers=OPERATOR)
    is_problem(answer, 409, "out-of-stock")
    assert await shop.parts.warehouse.on_hand("tea") == 10


async def test_stock_is_not_put_in_without_end(shop: Shop) -> None:
    await shop.parts.warehouse.open_if_new("rice", MOST_ON_HAND - 5)
    headers = {**OPERATOR, "Idempotency-Key": "delivery-note-7"}
    for _ in range(2):
        body = {"qty": 6, "reason": "restock"}
        answer = await shop.client.post("/stocks/rice/movements", json=body, headers=headers)
        is_problem(answer, 409, "stock-limit")
    body = {"qty": 5, "reason": "restock"}
    answer = await shop.client.post("/stocks/rice/movements", json=body, headers=headers)
    assert (answer.status_code, answer.json()["onHand"]) == (201, MOST_ON_HAND)


async def test_a_movement_with_a_key_happens_once(shop: Shop) -> None:
    body = {"qty": 5, "reason": "restock"}
    for who, on_hand in ((OPERATOR, 15), (OPERATOR, 15), (bearer("ops-2", Role.OPERATOR), 20)):
        headers = {**who, "Idempotency-Key": "delivery-note-7"}
        answer = await shop.client.post("/stocks/tea/movements", json=body, headers=headers)
        assert (answer.status_code, answer.json()["onHand"]) == (201, on_hand)


@pytest.mark.parametrize("other", [{"qty": 6, "reason": "restock"}, {"qty": 5, "reason": "found again"}])
async def test_a_key_that_came_with_another_movement_is_refused(shop: Shop, other: dict[str, Any]) -> None:
    headers = {**OPERATOR, "Idempotency-Key": "delivery-note-7"}
    await shop.client.post("/stocks/tea/movements", json={"qty": 5, "reason": "restock"}, headers=headers)
    answer = await shop.client.post("/stocks/tea/movements", json=other, headers=headers)
    is_problem(answer, 422, "idempotency-key-reused")
    assert await shop.parts.warehouse.on_hand("tea") == 15


@pytest.mark.parametrize(
    ("first", "second"),
    [(("ops/1", "a"), ("ops", "1/a")), (("o" * 60 + "1", "a"), ("o" * 60 + "2", "a"))],
)
async def test_keys_of_two_operators_are_never_the_same(
    shop: Shop, first: tuple[str, str], second: tuple[str, str]
) -> None:
    for user_id, key in (first, second):
        headers = {**bearer(user_id, Role.OPERATOR), "Idempotency-Key": key}
        body = {"qty": 5, "reason": "restock"}
        assert (await shop.client.post("/stocks/tea/movements", json=body, headers=headers)).status_code == 201
    assert await shop.parts.warehouse.on_hand("tea") == 20


async def test_a_movement_stocks_a_new_product(shop: Shop) -> None:
    body = {"qty": 7, "reason": "opening"}
    answer = await shop.client.post("/stocks/cup/movements", json=body, headers=OPERATOR)
    assert answer.json() == {"productId": "cup", "onHand": 7}


@pytest.mark.parametrize("qty", [0, 1_000_001, -1_000_001, 10**30, 1.5, "1", True, None])
async def test_a_wrong_movement_is_refused(shop: Shop, qty: Any) -> None:
    body = {"qty": qty, "reason": "restock"}
    answer = await shop.client.post("/stocks/tea/movements", json=body, headers=OPERATOR)
    is_problem(answer, 422, "invalid-request")


@pytest.mark.parametrize("key", ["", "k" * 65])
async def test_a_wrong_key_of_a_movement_is_refused(shop: Shop, key: str) -> None:
    headers = {**OPERATOR, "Idempotency-Key": key}
    body = {"qty": 1, "reason": "restock"}
    is_problem(await shop.client.post("/stocks/tea/movements", json=body, headers=headers), 422, "invalid-request")


# Deliveries


async def test_where_the_goods_are(shop: Shop) -> None:
    order_id = await shop.ordered()
    path = f"/deliveries/{order_id}"
    is_problem(await shop.client.get(path, headers=MINJI), 404, "not-found")
    await shop.parts.deliveries.start(order_id=order_id, product_id="tea", qty=2)
    answer = await shop.client.get(path, headers=MINJI)
    assert answer.status_code == 200
    delivery = answer.json()
    assert delivery.pop("startedAt") == delivery.pop("updatedAt")
    assert delivery == {"orderId": order_id, "deliveryStatus": "Started", "productId": "tea", "qty": 2}
    await shop.parts.deliveries.cancel(order_id=order_id, product_id="tea", qty=2)
    assert (await shop.client.get(path, headers=OPERATOR)).json()["deliveryStatus"] == "Canceled"
    is_problem(await shop.client.get(path, headers=HANEUL), 404, "not-found")


async def test_the_carrier_delivers_once(shop: Shop) -> None:
    order_id = await shop.ordered()
    await shop.record(order_id, UNDERWAY, EventType.DELIVERY_STARTED)
    for _ in range(2):
        answer = await shop.client.post(f"/deliveries/{order_id}/events", json={"event": "Delivered"}, headers=CARRIER)
        assert answer.status_code == 202
        assert answer.json() == {"orderId": order_id, "deliveryStatus": "Delivered"}
    assert shop.engine.told == [("delivered", order_id)]


async def test_the_carrier_cannot_deliver_a_cancelled_or_an_unknown_order(shop: Shop) -> None:
    order_id = await shop.ordered()
    await shop.record(order_id, CANCELED, EventType.ORDER_CANCELED)
    body = {"event": "Delivered"}
    answer = await shop.client.post(f"/deliveries/{order_id}/events", json=body, headers=CARRIER)
    is_problem(answer, 409, "not-deliverable")
    is_problem(await shop.client.post("/deliveries/x/events", json=body, headers=CARRIER), 404, "not-found")


async def test_a_delivery_that_another_message_overtook_is_harmless(shop: Shop) -> None:
    racing = Racing(shop.parts.book)
    racing.final, racing.event = DELIVERED, EventType.DELIVERED
    shop.exchange(engine=racing)
    order_id = await shop.ordered()
    answer = await shop.client.post(f"/deliveries/{order_id}/events", json={"event": "Delivered"}, headers=CARRIER)
    assert answer.status_code == 202


async def test_the_carrier_tries_again_while_the_engine_is_away(shop: Shop) -> None:
    order_id = await shop.ordered()
    shop.engine.away = True
    answer = await shop.client.post(f"/deliveries/{order_id}/events", json={"event": "Delivered"}, headers=CARRIER)
    is_problem(answer, 503, "engine-unavailable")


@pytest.mark.parametrize("body", [{"event": "Lost"}, {}, {"event": ["Delivered"]}, {"event": None}])
async def test_an_unknown_event_of_the_carrier_is_refused(shop: Shop, body: Any) -> None:
    answer = await shop.client.post("/deliveries/x/events", json=body, headers=CARRIER)
    is_problem(answer, 422, "invalid-request")


# Coupons


async def test_a_customer_lists_their_own_coupons(shop: Shop) -> None:
    coupons = shop.parts.coupons
    first = await coupons.issue(order_id="order_1", user_id="minji", amount=9000)
    await coupons.issue(order_id="order_2", user_id="minji", amount=1_000_000)
    await coupons.revoke(order_id="order_2", user_id="minji", amount=1_000_000)
    await coupons.revoke(order_id="order_3", user_id="minji", amount=9000)  # never issued
    await coupons.issue(order_id="order_4", user_id="haneul", amount=5_000_000)
    answer = (await shop.client.get("/coupons", headers=MINJI)).json()
    assert answer["nextCursor"] is None
    assert [(item["orderId"], item["couponKind"], item["status"], item["couponUseYn"]) for item in answer["items"]] == [
        ("order_2", "Silver", "Revoked", "N"),
        ("order_1", "Bronze", "Issued", "N"),
    ]
    assert answer["items"][1].keys() == {"couponId", "couponKind", "couponUseYn", "status", "orderId", "issuedAt"}
    assert answer["items"][1]["couponId"] == first.coupon_id
    assert (await shop.client.get("/coupons", headers=OPERATOR)).json()["items"] == []


# Settlements


async def test_an_operator_settles_a_stuck_compensation(shop: Shop) -> None:
    order_id = await shop.ordered()
    shop.engine.stuck.add("refund_payment")
    answer = await shop.client.post(f"/orders/{order_id}/settlements", json=SETTLEMENT, headers=OPERATOR)
    assert (answer.status_code, answer.json()["orderId"]) == (202, order_id)
    told = ("settle", order_id, "refund_payment", "skip", "ops-1", "refunded by bank transfer")
    assert shop.engine.told == [told]


async def test_what_is_not_stuck_cannot_be_settled(shop: Shop) -> None:
    order_id = await shop.ordered()
    path = f"/orders/{order_id}/settlements"
    is_problem(await shop.client.post(path, json=SETTLEMENT, headers=OPERATOR), 409, "not-stuck")
    is_problem(await shop.client.post("/orders/x/settlements", json=SETTLEMENT, headers=OPERATOR), 404, "not-found")
    shop.engine.away = True
    is_problem(await shop.client.post(path, json=SETTLEMENT, headers=OPERATOR), 503, "engine-unavailable")
    body = {**SETTLEMENT, "action": "forget"}
    is_problem(await shop.client.post(path, json=body, headers=OPERATOR), 422, "invalid-request")


@pytest.mark.parametrize(
    ("path", "told", "code"),
    [("waivers", "waive_coupon", "not-waiting"), ("clearances", "clear_attention", "not-flagged")],
)
async def test_an_operator_decides_with_a_reason(shop: Shop, path: str, told: str, code: str) -> None:
    order_id = await shop.ordered()
    path, body = f"/orders/{order_id}/{path}", {"reason": "marketing is away since noon"}
    is_problem(await shop.client.post(path, json=body, headers=OPERATOR), 409, code)
    await shop.record(order_id, replace(PLACED, needs_attention=True), EventType.ORDER_PLACED)
    answer = await shop.client.post(path, json=body, headers=OPERATOR)
    assert (answer.status_code, answer.json()["orderId"]) == (202, order_id)
    assert shop.engine.told == [(told, order_id, "ops-1", "marketing is away since noon")]
    for nothing in ({}, {"reason": " "}):
        is_problem(await shop.client.post(path, json=nothing, headers=OPERATOR), 422, "invalid-request")
    shop.engine.away = True
    is_problem(await shop.client.post(path, json=body, headers=OPERATOR), 503, "engine-unavailable")


async def test_an_operator_may_name_what_is_seen_to(shop: Shop) -> None:
    order_id = await shop.ordered()
    await shop.record(order_id, replace(PLACED, needs_attention=True), EventType.ORDER_PLACED)
    body = {"reason": "told the customer", "about": "pay_order"}
    answer = await shop.client.post(f"/orders/{order_id}/clearances", json=body, headers=OPERATOR)
    assert answer.status_code == 202
    assert shop.engine.told == [("clear_attention", order_id, "ops-1", "told the customer", "pay_order")]


async def test_an_operator_may_say_why_they_cancel_and_a_customer_need_not(shop: Shop) -> None:
    order_id = await shop.ordered()
    path, body = f"/orders/{order_id}/cancel", {"reason": "the parcel fell into the sea"}
    is_problem(await shop.client.post(path, json=body, headers=MINJI), 403, "forbidden")
    assert (await shop.client.post(path, json=body, headers=OPERATOR)).status_code == 202
    assert shop.engine.told == [("cancel", order_id, "operator", "ops-1", "the parcel fell into the sea")]


# The platform


async def test_the_process_says_that_it_is_alive_and_ready(shop: Shop) -> None:
    assert (await shop.client.get("/livez")).json() == {"status": "alive"}
    assert (await shop.client.get("/readyz")).json() == {"status": "ready"}


async def test_without_its_database_the_process_is_alive_and_not_ready(shop: Shop, tmp_path: Path) -> None:
    gone = Database(f"sqlite+aiosqlite:///{tmp_path}/no/such/directory/order.db", PoolSettings(attempts=1))
    shop.exchange(order_database=gone)
    assert (await shop.client.get("/livez")).status_code == 200
    is_problem(await shop.client.get("/readyz"), 503, "database-unavailable")
    await gone.close()


async def test_a_process_that_is_told_to_end_is_alive_and_not_ready(shop: Shop) -> None:
    shop.app.state.leaving.set()
    is_problem(await shop.client.get("/readyz"), 503, "draining")
    assert (await shop.client.get("/livez")).status_code == 200


async def test_requests_are_counted_by_route_and_never_by_what_a_stranger_sends(shop: Shop) -> None:
    order_id = await shop.ordered()
    await shop.client.get(f"/orders/{order_id}", headers=MINJI)
    await shop.client.get(f"/{order_id}/no/such/route")
    await shop.client.request("BREW", "/products")
    shop.engine.error = RuntimeError("boom")
    await shop.client.post(f"/orders/{order_id}/cancel", headers=MINJI)
    answer = await shop.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    for labels in (
        'method="POST",route="/orders",status="202"',
        'method="GET",route="/orders/{orderId}",status="200"',
        'method="GET",route="unknown",status="404"',
        'method="POST",route="/orders/{orderId}/cancel",status="500"',
    ):
        assert f"street12_http_request_seconds_count{{{labels}}} 1.0" in answer.text
    assert order_id not in answer.text
    assert "BREW" not in answer.text


class Hanging(Admission):
    """An intake that nobody can tell of, as its database does not answer."""

    async def report(self, database: Database) -> AdmissionReport:
        await asyncio.Event().wait()
        raise AssertionError


async def test_figures_of_a_database_that_does_not_answer_keep_no_others_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "READ_SECONDS", 0.01)
    shop.exchange(admission=Hanging(AdmissionRules()))
    async with asyncio.timeout(30):
        answer = await shop.client.get("/metrics")
    assert answer.status_code == 200
    assert "street12_payments_pending NaN" in answer.text
    assert "street12_orders_accepted_total 0.0" in answer.text


async def test_the_payments_in_flight_are_counted(shop: Shop) -> None:
    orders = [await shop.ordered() for _ in range(3)]
    await shop.record(orders[0], PLACED, EventType.ORDER_PLACED)
    assert "street12_payments_pending 2.0" in (await shop.client.get("/metrics")).text
    gone = Database("sqlite+aiosqlite:////nowhere/order.db", PoolSettings(attempts=1))
    shop.exchange(order_database=gone)
    answer = await shop.client.get("/metrics")
    assert "street12_payments_pending NaN" in answer.text
    assert 'street12_admission_state{state="open"} NaN' in answer.text
    assert "street12_orders_accepted_total 3.0" in answer.text
    await gone.close()
