"""Catalogue, stock, deliveries, coupons, settlements, and what the platform asks."""

import re

import pytest

from services.order.statuses import EventType, OrderStatus
from tests.api.conftest import CARRIER, KIM, LEE, MAC, OPERATOR, World

MAC_MINI = {"productName": "Mac mini", "productPrice": 900_000}


async def test_anyone_reads_the_catalogue(world: World) -> None:
    mac = {"productId": "1001", "productName": "Mac", "productPrice": 3_000_000, "currency": "KRW"}
    assert (await world.http.get("/products")).json() == {"items": [mac]}
    assert (await world.http.get("/products/1001")).json() == mac
    assert (await world.http.get("/products/none")).status_code == 404


async def test_an_operator_changes_the_catalogue(world: World) -> None:
    answer = await world.http.put("/products/3001", json=MAC_MINI, headers=OPERATOR)
    assert answer.status_code == 200
    assert (await world.http.get("/products/3001")).json() == MAC_MINI | {"productId": "3001", "currency": "KRW"}


async def test_an_operator_moves_stock(world: World) -> None:
    answer = await world.http.post("/stocks/1001/movements", json={"qty": 5, "reason": "restock"}, headers=OPERATOR)
    assert (answer.status_code, answer.json()) == (201, {"productId": "1001", "onHand": 15})
    assert (await world.http.get("/stocks/1001", headers=OPERATOR)).json()["onHand"] == 15


async def test_stock_moves_once_for_each_key(world: World) -> None:
    for _ in range(2):
        body, headers = {"qty": 5, "reason": "restock"}, OPERATOR | {"Idempotency-Key": "k"}
        answer = await world.http.post("/stocks/1001/movements", json=body, headers=headers)
        assert answer.json()["onHand"] == 15


@pytest.mark.parametrize(
    ("product_id", "who"),
    [("2001", OPERATOR), ("1001", OPERATOR | {"X-User-Id": "x" * 127 + "2"})],
    ids=["another product", "another operator"],
)
async def test_the_same_key_elsewhere_is_another_movement(world: World, product_id: str, who: dict[str, str]) -> None:
    key, body = {"Idempotency-Key": "k"}, {"qty": 5, "reason": "restock"}
    first = OPERATOR if product_id == "2001" else OPERATOR | {"X-User-Id": "x" * 127 + "1"}
    await world.http.post("/stocks/1001/movements", json=body, headers=first | key)
    before = 15 if product_id == "1001" else 0
    answer = await world.http.post(f"/stocks/{product_id}/movements", json=body, headers=who | key)
    assert answer.json()["onHand"] == before + 5


async def test_stock_never_falls_below_zero(world: World) -> None:
    answer = await world.http.post("/stocks/1001/movements", json={"qty": -11, "reason": "lost"}, headers=OPERATOR)
    assert (answer.status_code, answer.json()["code"]) == (409, "out-of-stock")


async def test_a_customer_reads_their_delivery(world: World) -> None:
    order_id = (await world.order())["orderId"]
    assert (await world.http.get(f"/deliveries/{order_id}", headers=KIM)).status_code == 404
    await world.parts.deliveries.start(order_id=order_id, product_id="1001", qty=2)
    answer = (await world.http.get(f"/deliveries/{order_id}", headers=KIM)).json()
    assert (answer["orderId"], answer["deliveryStatus"]) == (order_id, "Started")


async def test_the_carrier_delivers_and_may_say_so_again(world: World) -> None:
    url = f"/deliveries/{(order_id := (await world.order())['orderId'])}/events"
    assert (await world.http.post(url, json={"event": "Delivered"}, headers=CARRIER)).status_code == 202
    assert world.engine.told == [("delivered", order_id)]
    await world.happen(order_id, 2, EventType.DELIVERED, OrderStatus.DELIVERED)
    world.engine.away = True
    assert (await world.http.post(url, json={"event": "Delivered"}, headers=CARRIER)).status_code == 202


async def test_a_cancelled_order_is_not_delivered(world: World) -> None:
    order_id = (await world.order())["orderId"]
    await world.happen(order_id, 2, EventType.ORDER_CANCELED, OrderStatus.ORDER_CANCELED)
    world.engine.refuses = True
    answer = await world.http.post(f"/deliveries/{order_id}/events", json={"event": "Delivered"}, headers=CARRIER)
    assert (answer.status_code, answer.json()["code"]) == (409, "not-deliverable")


async def test_customers_see_their_own_coupons(world: World) -> None:
    for order_id, user_id in [("order_1", "kim"), ("order_2", "lee"), ("order_3", "kim")]:
        await world.parts.coupons.issue(order_id=order_id, user_id=user_id, amount=6_000_000)
    await world.parts.coupons.revoke(order_id="order_1", user_id="kim", amount=6_000_000)
    items = (await world.http.get("/coupons", headers=KIM)).json()["items"]
    assert [(item["orderId"], item["status"]) for item in items] == [("order_3", "Issued"), ("order_1", "Revoked")]
    assert sorted(items[0]) == ["couponId", "couponKind", "couponUseYn", "issuedAt", "orderId", "status"]
    assert (items[0]["couponKind"], items[0]["couponUseYn"]) == ("Gold", "N")
    assert [item["orderId"] for item in (await world.http.get("/coupons", headers=LEE)).json()["items"]] == ["order_2"]


async def test_an_operator_settles_a_stuck_undo(world: World) -> None:
    order_id = (await world.order())["orderId"]
    body = {"step": "refund_payment", "action": "skip", "reason": "paid in cash"}
    answer = await world.http.post(f"/orders/{order_id}/settlements", json=body, headers=OPERATOR)
    assert answer.status_code == 202
    assert world.engine.told == [("settle", order_id, "refund_payment", "skip", "boss", "paid in cash")]
    world.engine.refuses = True
    answer = await world.http.post(f"/orders/{order_id}/settlements", json=body, headers=OPERATOR)
    assert (answer.status_code, answer.json()["code"]) == (409, "not-stuck")


async def test_the_process_is_ready_while_its_database_answers_whatever_the_engine_does(world: World) -> None:
    world.engine.away = True
    assert (await world.http.get("/livez")).status_code == 200
    assert (await world.http.get("/readyz")).status_code == 200


async def test_metrics_count_orders_once_and_requests_by_template(world: World) -> None:
    order_id = (await world.order())["orderId"]
    await world.http.post("/orders", json=MAC, headers=KIM | {"Idempotency-Key": "first"})
    await world.http.get(f"/orders/{order_id}", headers=KIM)
    text = (await world.http.get("/metrics")).text
    assert "street12_orders_accepted_total 1.0" in text
    assert 'route="/orders/{order_id}"' in text
    assert order_id not in text


async def test_strangers_add_no_labels_to_the_metrics(world: World) -> None:
    for number in range(3):
        await world.http.request(f"STRANGE{number}", f"/nowhere/{number}")
    text = (await world.http.get("/metrics")).text
    assert not re.search(r"STRANGE|nowhere", text)
