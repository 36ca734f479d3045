"""The shop's promises, tried on the whole shop: what goes through, what is undone, and who may be away meanwhile."""

import asyncio

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from deploy.stack import Stack
from tests.e2e.shop import Order, Shop, Wish

PLACED = ["OrderReceived", "OrderPlaced", "CouponIssued", "DeliveryStarted", "StockAdjusted"]
UNDONE = ["CouponRevoked", "DeliveryCanceled", "StockRestored", "PaymentRefunded", "OrderCanceled"]


async def assert_undone(shop: Shop, order_id: str) -> Order:
    """The order is cancelled, and no money of its customer is left here."""
    order = await shop.until(order_id, "OrderCanceled")
    charged, refunded = await shop.money(order_id)
    assert charged == refunded
    assert charged in (0, order.amount)
    assert order.payStatus == ("Refunded" if charged else "NotPaid")
    assert not order.needsAttention
    return order


async def test_three_products_go_to_two_customers_and_one_order_is_undone(shop: Shop) -> None:
    wishes = [Wish("1001", 1, "kim"), Wish("2001", 2, "kim"), Wish("3001", 3, "lee")]
    before = [await shop.stock(wish.product_id) for wish in wishes]
    orders = await asyncio.gather(*(shop.place(wish) for wish in wishes))

    for wish, order, on_hand in zip(wishes, orders, before, strict=True):
        started = await shop.until(order.orderId, "DeliveryStarted")
        assert (started.payStatus, started.deliveryStatus) == ("Paid", "Started")
        assert await shop.stock(wish.product_id) == on_hand - wish.qty
        assert await shop.money(order.orderId) == (order.amount, 0)
        coupon = (await shop.coupons(wish.user))[order.orderId]
        assert (coupon.couponId, coupon.status) == (started.couponId, "Issued")
        assert await shop.timeline(order.orderId) == PLACED

    await shop.cancel(orders[1])
    canceled = await assert_undone(shop, orders[1].orderId)
    assert (canceled.cancelReason, canceled.deliveryStatus) == ("customer", "Canceled")
    assert await shop.timeline(canceled.orderId) == [*PLACED, "OrderCanceling", *UNDONE]
    assert await shop.money(canceled.orderId) == (canceled.amount, canceled.amount)
    assert (await shop.coupons("kim"))[canceled.orderId].status == "Revoked"
    assert await shop.delivery(canceled.orderId) == "Canceled"
    assert [await shop.stock(wish.product_id) for wish in wishes] == [before[0] - 1, before[1], before[2] - 3]

    for order in (orders[0], orders[2]):
        assert (await shop.order(order.orderId)).orderStatus == "DeliveryStarted"
        assert (await shop.coupons(order.userId))[order.orderId].status == "Issued"


@pytest.mark.parametrize(
    ("pay", "code"),
    [
        ("pm_card_chargeDeclined", "payment-declined"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient-funds"),
    ],
)
async def test_a_declined_payment_leaves_nothing_behind(shop: Shop, pay: str, code: str) -> None:
    product = await shop.product(on_hand=5)
    order = await shop.place(Wish(product, 2, pay=pay))

    declined = await shop.until(order.orderId, "PaymentDeclined")
    assert (declined.payStatus, declined.couponId) == ("Declined", None)
    events = await shop.events(order.orderId)
    assert [event.type for event in events] == ["OrderReceived", "PaymentDeclined"]
    assert events[-1].detail == {"code": code}
    assert await shop.money(order.orderId) == (0, 0)
    assert order.orderId not in await shop.coupons(order.userId)
    assert await shop.delivery(order.orderId) is None
    assert await shop.stock(product) == 5


async def test_an_order_for_more_than_there_is_is_refused(shop: Shop) -> None:
    product = await shop.product(on_hand=2)
    answer = await shop.post(Wish(product, 3, "modest"))
    assert (answer.status_code, answer.json()["code"]) == (409, "out-of-stock")
    assert await shop.orders_of("modest") == []


async def test_stock_that_is_gone_when_the_delivery_starts_gives_the_money_back(shop: Shop) -> None:
    product = await shop.product(on_hand=3)
    async with shop.away("worker-delivery"):
        order = await shop.place(Wish(product, 3))
        await shop.until(order.orderId, "CouponIssued")
        assert await shop.move_stock(product, -1) == 2

    canceled = await assert_undone(shop, order.orderId)
    assert (canceled.cancelReason, canceled.payStatus) == ("outOfStock", "Refunded")
    timeline = await shop.timeline(order.orderId)
    assert timeline == [*PLACED[:3], "OrderCanceling", "CouponRevoked", "PaymentRefunded", "OrderCanceled"]
    assert (await shop.coupons(order.userId))[order.orderId].status == "Revoked"
    assert await shop.delivery(order.orderId) is None
    assert await shop.stock(product) == 2


async def test_orders_wait_with_their_coupons_while_delivery_is_away_and_then_go_through_once(shop: Shop) -> None:
    product = await shop.product(on_hand=10)
    async with shop.away("worker-delivery"):
        orders = await asyncio.gather(*(shop.place(Wish(product, 2)) for _ in range(3)))
        for order in orders:
            waiting = await shop.until(order.orderId, "CouponIssued")
            assert (waiting.payStatus, waiting.deliveryStatus) == ("Paid", "None")
            assert await shop.money(order.orderId) == (order.amount, 0)
            assert await shop.delivery(order.orderId) is None
        assert await shop.stock(product) == 10

    for order in orders:
        await shop.until(order.orderId, "DeliveryStarted")
        assert await shop.timeline(order.orderId) == PLACED
        assert await shop.money(order.orderId) == (order.amount, 0)
    assert await shop.stock(product) == 4


async def test_while_marketing_is_away_orders_wait_and_cancelled_ones_are_refunded(shop: Shop) -> None:
    product = await shop.product(on_hand=10)
    under_way = await shop.place(Wish(product, 3, "park"))
    await shop.until(under_way.orderId, "DeliveryStarted")

    async with shop.away("worker-marketing"):
        waits, regretted = await asyncio.gather(*(shop.place(Wish(product, 2, "park")) for _ in range(2)))
        for order in (waits, regretted):
            assert (await shop.until(order.orderId, "OrderPlaced")).payStatus == "Paid"
        for order in (regretted, under_way):
            await shop.cancel(order)
        for order in (regretted, under_way):
            await shop.until_event(order.orderId, "PaymentRefunded")
            canceling = await shop.order(order.orderId)
            assert (canceling.orderStatus, canceling.payStatus) == ("OrderCanceling", "Refunded")
            assert await shop.money(order.orderId) == (order.amount, order.amount)
        assert await shop.delivery(under_way.orderId) == "Canceled"
        assert (await shop.coupons("park"))[under_way.orderId].status == "Issued"
        assert await shop.stock(product) == 10

        # No delivery without its coupon.
        assert (await shop.order(waits.orderId)).orderStatus == "OrderPlaced"
        for order in (waits, regretted):
            assert await shop.delivery(order.orderId) is None

    await shop.until(waits.orderId, "DeliveryStarted")
    assert await shop.timeline(waits.orderId) == PLACED
    await assert_undone(shop, regretted.orderId)
    assert await shop.timeline(regretted.orderId) == [*PLACED[:2], "OrderCanceling", "PaymentRefunded", "OrderCanceled"]
    await assert_undone(shop, under_way.orderId)
    assert (await shop.timeline(under_way.orderId))[-2:] == ["CouponRevoked", "OrderCanceled"]
    statuses = {order_id: coupon.status for order_id, coupon in (await shop.coupons("park")).items()}
    assert statuses == {waits.orderId: "Issued", under_way.orderId: "Revoked"}
    assert await shop.stock(product) == 8


@pytest.mark.parametrize("pay", ["pm_card_visa", "pm_sim_slow", "pm_sim_lostReply", "pm_sim_outage"])
async def test_an_order_cancelled_at_any_moment_costs_nothing(shop: Shop, pay: str) -> None:
    product = await shop.product(on_hand=50)

    async def change_ones_mind(after_seconds: float) -> None:
        order = await shop.place(Wish(product, 2, pay=pay))
        await asyncio.sleep(after_seconds)
        await shop.cancel(order)
        await assert_undone(shop, order.orderId)

    await asyncio.gather(*map(change_ones_mind, (0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.1)))
    assert await shop.stock(product) == 50


async def test_an_order_cancelled_as_each_event_appears_costs_nothing(shop: Shop) -> None:
    product = await shop.product(on_hand=50)

    async def change_ones_mind(event: str) -> None:
        order = await shop.place(Wish(product, 2))
        await shop.until_event(order.orderId, event)
        await shop.cancel(order)
        await assert_undone(shop, order.orderId)
        assert await shop.delivery(order.orderId) in (None, "Canceled")
        coupon = (await shop.coupons(order.userId)).get(order.orderId)
        assert coupon is None or coupon.status == "Revoked"

    await asyncio.gather(*map(change_ones_mind, PLACED))
    assert await shop.stock(product) == 50


async def test_what_the_carrier_delivered_can_no_longer_be_cancelled(shop: Shop) -> None:
    product = await shop.product(on_hand=5)
    order = await shop.place(Wish(product))
    await shop.until(order.orderId, "DeliveryStarted")
    for _ in range(2):
        assert (await shop.deliver(order.orderId)).status_code == 202

    delivered = await shop.until(order.orderId, "Delivered")
    assert (delivered.payStatus, delivered.deliveryStatus) == ("Paid", "Delivered")
    refusal = await shop.try_cancel(order)
    assert (refusal.status_code, refusal.json()["code"]) == (409, "too-late-to-cancel")
    assert (await shop.deliver(order.orderId)).status_code == 202
    assert await shop.timeline(order.orderId) == [*PLACED, "Delivered"]
    assert await shop.money(order.orderId) == (order.amount, 0)
    assert await shop.stock(product) == 4


async def test_what_was_cancelled_can_no_longer_be_delivered(shop: Shop) -> None:
    order = await shop.place(Wish(await shop.product()))
    await shop.until(order.orderId, "DeliveryStarted")
    await shop.cancel(order)
    refusals = [await shop.deliver(order.orderId)]
    await shop.until(order.orderId, "OrderCanceled")
    refusals.append(await shop.deliver(order.orderId))
    assert [(answer.status_code, answer.json()["code"]) for answer in refusals] == [(409, "not-deliverable")] * 2
    await shop.cancel(order)  # repeating it is harmless
    assert await shop.delivery(order.orderId) == "Canceled"


async def test_the_same_idempotency_key_makes_one_order(shop: Shop) -> None:
    product = await shop.product(on_hand=20)
    wish = Wish(product, 2, "choi")
    answers = [*await asyncio.gather(*(shop.post(wish) for _ in range(4))), await shop.post(wish)]

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["orderId"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 4
    [order] = await shop.orders_of("choi")
    await shop.until(order.orderId, "DeliveryStarted")
    assert await shop.money(order.orderId) == (order.amount, 0)
    assert await shop.stock(product) == 18

    other = await shop.post(Wish(product, 3, "choi", key=wish.key))
    assert other.json()["code"] == "idempotency-key-reused"


async def test_a_customer_who_prefers_to_wait_learns_whether_they_paid(shop: Shop) -> None:
    product = await shop.product()
    paid = await shop.post(Wish(product), Prefer="wait=10")
    assert (paid.status_code, paid.json()["payStatus"]) == (201, "Paid")
    declined = await shop.post(Wish(product, pay="pm_card_chargeDeclined"), Prefer="wait=10")
    assert (declined.status_code, declined.json()["code"]) == (402, "payment-declined")
    order_id = declined.headers["Location"].rpartition("/")[2]
    await shop.until(order_id, "PaymentDeclined")


async def test_the_engine_answers_the_polls_of_a_worker_that_ends(shop: Shop) -> None:
    """Else it gives them one more task that nobody is there to take."""
    client = await Client.connect(Stack.read(shop.data_dir).urls.temporal)
    described = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    assert described.namespace_info.capabilities.worker_poll_complete_on_shutdown
