"""Whatever is killed in the middle of orders: every order that was accepted goes through, once."""

import asyncio
import signal

import pytest

from tests.e2e.shop import Order, Shop, Wish

PAYMENTS = ("pm_card_visa", "pm_sim_slow", "pm_sim_lostReply", "pm_sim_outage", "pm_card_visa", "pm_sim_slow")
PLACED = ["OrderReceived", "OrderPlaced", "CouponIssued", "DeliveryStarted", "StockAdjusted"]


async def assert_gone_through_once(shop: Shop, order: Order) -> None:
    started = await shop.until(order.orderId, "DeliveryStarted")
    assert (started.payStatus, started.needsAttention) == ("Paid", False)
    assert await shop.timeline(order.orderId) == PLACED
    assert await shop.money(order.orderId) == (order.amount, 0)
    assert (await shop.coupons(order.userId))[order.orderId].couponId == started.couponId
    assert await shop.delivery(order.orderId) == "Started"


async def assert_ordered_before(shop: Shop, wish: Wish, order: Order) -> None:
    """The same request again is answered with the order that is there."""
    answer = await shop.insist(wish)
    assert (answer.json()["orderId"], answer.headers["Idempotent-Replayed"]) == (order.orderId, "true")


@pytest.mark.parametrize(
    "victim", ["api", "worker-order", "worker-delivery", "worker-marketing", "payments", "temporal"]
)
async def test_orders_in_flight_go_through_once_when_a_process_is_killed(shop: Shop, victim: str) -> None:
    product, user = await shop.product(on_hand=100), f"survivor-of-{victim}"
    wishes = [Wish(product, 1 + number, user, pay) for number, pay in enumerate(PAYMENTS)]
    placing = [asyncio.create_task(shop.place(wish)) for wish in wishes]
    await asyncio.wait(placing, return_when=asyncio.FIRST_COMPLETED if victim == "api" else asyncio.ALL_COMPLETED)
    if victim in ("worker-delivery", "worker-marketing"):
        await shop.until_event(placing[0].result().orderId, "OrderPlaced")
    await shop.kill(victim)

    orders = await asyncio.gather(*placing)
    assert len({order.orderId for order in orders}) == len(await shop.orders_of(user)) == len(wishes)
    await asyncio.gather(*(assert_gone_through_once(shop, order) for order in orders))
    assert await shop.stock(product) == 100 - sum(wish.qty for wish in wishes)


async def test_an_accepted_order_is_started_once_though_its_api_dies_and_the_engine_was_away(shop: Shop) -> None:
    product = await shop.product(on_hand=10)
    wish = Wish(product, 2, "unlucky")
    shop.signal("temporal", signal.SIGSTOP)
    try:
        order = await shop.place(wish)
    finally:
        # The engine dies too: were it to go on, it might still read what the API had asked of it.
        await shop.kill("api", "temporal")
    assert [event.type for event in await shop.events(order.orderId)] == ["OrderReceived"]
    await assert_ordered_before(shop, wish, order)

    await assert_gone_through_once(shop, order)
    assert await shop.stock(product) == 8
    assert [mine.orderId for mine in await shop.orders_of("unlucky")] == [order.orderId]
