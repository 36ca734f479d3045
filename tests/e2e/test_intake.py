"""How orders come in: a crowd, a silent engine, lost answers, and the limits that keep payments from piling up."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from deploy.stack import Stack
from tests.e2e.shop import LIMITS, OPERATOR, Order, Shop, Wish, assert_paused, eventually, open_shop
from tests.e2e.test_kills import PLACED, assert_gone_through_once, assert_ordered_before

on_sqlite = pytest.mark.parametrize("shop", ["sqlite"], indirect=True)
SLOW_MS, COOLDOWN_SECONDS = 1_800, 3
# A slow payment (2 s) is slow, and one that is not is fast even on a machine that is busy with others.
SLOW_PAYMENTS = {
    "STREET12_MAX_PENDING_PAYMENTS": "10",
    "STREET12_SLOW_PAYMENT_MS": str(SLOW_MS),
    "STREET12_ADMISSION_COOLDOWN_SECONDS": str(COOLDOWN_SECONDS),
}


@pytest.fixture
async def own_shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Shop]:
    """A shop of the test's own, with the limits that it comes with, or what the test sets instead."""
    async with open_shop(tmp_path / "shop", getattr(request, "param", {})) as shop:
        yield shop


async def assert_all_gone_through_once(shop: Shop, orders: Collection[Order], *, left: int) -> None:
    """These are all the orders for their product, each went through once, and so many pieces are left."""
    await shop.until_all(orders, "DeliveryStarted")
    [product] = {order.productId for order in orders}
    assert sorted(order.orderId for order in await shop.orders_for(product)) == sorted(one.orderId for one in orders)
    ledger = await shop.ledger()
    for order in orders:
        row = ledger[order.orderId]
        assert (row.charged, row.refunded) == (order.amount, 0)
        assert await shop.timeline(order.orderId) == PLACED
    assert await shop.stock(product) == left


def accepted(answers: Collection[httpx2.Response]) -> list[Order]:
    """The orders of those who were not refused; nobody had another answer."""
    assert_paused(*(answer for answer in answers if answer.status_code != 202))
    return [Order.model_validate(answer.json()) for answer in answers if answer.status_code == 202]


async def test_a_hundred_customers_at_once_are_taken_or_told_to_come_back(own_shop: Shop) -> None:
    product = await own_shop.product(on_hand=10_000, price=1_200)
    wishes = [Wish(product, 1 + number % 3, f"customer-{number}") for number in range(1500)]
    async with httpx2.AsyncClient(
        base_url=own_shop.http.base_url, trust_env=False, timeout=15.0, limits=LIMITS
    ) as crowd:
        served = await replace(own_shop, http=crowd).serve(wishes, customers=100)

    orders = accepted([answer for _, answer in served])
    assert 3 <= len(orders) < len(wishes) == len(served)
    for wish, answer in served:
        if answer.status_code == 202:
            order = Order.model_validate(answer.json())
            assert (order.userId, order.qty, order.amount) == (wish.user, wish.qty, wish.qty * 1_200)
    await assert_all_gone_through_once(own_shop, orders, left=10_000 - sum(order.qty for order in orders))
    assert (await own_shop.ledger()).keys() == {order.orderId for order in orders}


@on_sqlite
async def test_orders_are_taken_as_ever_while_the_engine_is_silent_and_starts_anew(shop: Shop) -> None:
    product = await shop.product(on_hand=1_000)

    def wishes() -> Iterator[Wish]:
        """Of these 200 the engine stands still for a hundred, and then dies."""
        for number in range(200):
            if number == 60:
                shop.signal("temporal", signal.SIGSTOP)
            if number == 160:
                shop.signal("temporal", signal.SIGKILL)
            yield Wish(product, 1 + number % 2, f"steady-{number}")

    async with httpx2.AsyncClient(
        base_url=shop.http.base_url, trust_env=False, timeout=5.0, limits=LIMITS
    ) as customers:
        try:
            served = await replace(shop, http=customers).serve(wishes(), customers=20)
        finally:
            with suppress(ProcessLookupError):
                shop.signal("temporal", signal.SIGCONT)

    assert [answer.status_code for _, answer in served] == [202] * 200
    orders = [Order.model_validate(answer.json()) for _, answer in served]
    await assert_all_gone_through_once(shop, orders, left=1_000 - sum(order.qty for order in orders))


@on_sqlite
async def test_a_customer_whose_api_dies_while_they_wait_for_their_payment_has_one_order(shop: Shop) -> None:
    product = await shop.product(on_hand=10)
    wish = Wish(product, 2, "cut-off")
    async with shop.suspended("worker-order"):
        waiting = asyncio.create_task(shop.post(wish, Prefer="wait=20"))
        order = await eventually(lambda: only_order_of(shop, wish), "the order to be accepted")
        await eventually(lambda: has_workflow(shop, order), "its workflow to be started")
        await shop.kill("api")
        with pytest.raises(httpx2.TransportError):
            await waiting
    await assert_ordered_before(shop, wish, order)

    await assert_gone_through_once(shop, order)
    assert await shop.stock(product) == 8
    assert await only_order_of(shop, wish) is not None


async def test_a_customer_whose_answer_is_lost_has_one_order(shop: Shop) -> None:
    product = await shop.product(on_hand=10)
    wish = Wish(product, 2, "unheard")
    async with sent(shop, wish):
        order = await eventually(lambda: only_order_of(shop, wish), "the order to be accepted")
    await assert_ordered_before(shop, wish, order)
    await assert_all_gone_through_once(shop, [order], left=8)


async def test_customers_whose_connection_breaks_behind_the_request_have_one_order_each(shop: Shop) -> None:
    product = await shop.product(on_hand=100)

    async def order_twice(number: int) -> Order:
        wish = Wish(product, 2, f"hung-up-{number}")
        async with sent(shop, wish):
            await asyncio.sleep(number * 0.002)  # at one moment or another of its way
        return await shop.place(wish)

    orders = await asyncio.gather(*map(order_twice, range(20)))
    await assert_all_gone_through_once(shop, orders, left=60)


@on_sqlite
@pytest.mark.parametrize("silent", ["worker-order", "temporal"])
async def test_who_waits_for_a_payment_in_vain_is_told_that_the_order_is_accepted(shop: Shop, silent: str) -> None:
    product = await shop.product(on_hand=10)
    async with shop.suspended(silent):
        answer = await shop.post(Wish(product, 2), Prefer="wait=2")
        order = Order.model_validate(answer.json())
        assert (answer.status_code, order.orderStatus) == (202, "OrderReceived")
    await assert_all_gone_through_once(shop, [order], left=8)


async def test_payments_that_are_stuck_keep_new_orders_out_until_one_is_called_off(own_shop: Shop) -> None:
    product = await own_shop.product(on_hand=100)
    async with own_shop.suspended("payments"):
        stuck = [await own_shop.place(Wish(product)) for _ in range(3)]
        refusal = await own_shop.post(Wish(product))
        assert_paused(refusal)
        admission = await own_shop.admission()
        assert (admission.state, admission.pendingPayments, admission.maxPendingPayments) == ("paymentsPending", 3, 3)
        assert admission.since is not None
        assert admission.oldestPendingPayment is not None
        assert admission.oldestPendingPayment.orderId == stuck[0].orderId
        assert await own_shop.metric("street12_payments_pending") == 3
        assert await own_shop.metric('street12_orders_refused_total{reason="paymentsPending"}') == 1

        assert (await own_shop.try_cancel(stuck[1], by=OPERATOR)).status_code == 202
        late = await own_shop.place(Wish(product))
        assert_paused(await own_shop.post(Wish(product)))

    await own_shop.until(stuck[1].orderId, "OrderCanceled")
    charged, refunded = await own_shop.money(stuck[1].orderId)
    assert charged == refunded
    for order in (stuck[0], stuck[2], late):
        await assert_gone_through_once(own_shop, order)
    assert len(await own_shop.orders_for(product)) == 4
    assert await own_shop.stock(product) == 97


@pytest.mark.parametrize("own_shop", [SLOW_PAYMENTS], indirect=True)
async def test_slow_payments_keep_new_orders_out_until_one_trial_was_fast(own_shop: Shop) -> None:
    product = await own_shop.product(on_hand=100)

    async def everybody_orders(pay: str) -> list[Order]:
        return accepted(await asyncio.gather(*(own_shop.post(Wish(product, pay=pay)) for _ in range(10))))

    orders = await everybody_orders("pm_sim_slow")
    assert len(orders) == 10
    slow = await own_shop.until_admission(lambda now: now.state == "paymentsSlow", "read paymentsSlow")
    assert slow.medianPaymentMs is not None
    assert slow.medianPaymentMs > SLOW_MS
    refusal = await own_shop.post(Wish(product))
    assert_paused(refusal)
    assert int(refusal.headers["Retry-After"]) <= COOLDOWN_SECONDS

    # A trial that is slow, too: exactly one gets in, and nobody after it.
    await own_shop.until_admission(lambda now: now.has_room, "have cooled down")
    [trial] = await everybody_orders("pm_sim_slow")
    now = await own_shop.admission()
    assert (now.state, now.since, now.trialOrderId) == ("paymentsSlow", slow.since, trial.orderId)
    await own_shop.until_admission(lambda now: now.trialOrderId is None, "have judged the trial")
    assert_paused(await own_shop.post(Wish(product)))

    # A trial that is fast.
    await own_shop.until_admission(lambda now: now.has_room, "have cooled down again")
    fast = await own_shop.place(Wish(product))
    await own_shop.until_admission(lambda now: now.state == "open", "read open")
    last = await everybody_orders("pm_card_visa")
    assert len(last) > 1  # not one after the other
    orders += [trial, fast, *last]
    await assert_all_gone_through_once(own_shop, orders, left=100 - len(orders))


async def only_order_of(shop: Shop, wish: Wish) -> Order | None:
    """The one order of this customer, if they have any."""
    orders = await shop.orders_of(wish.user)
    assert len(orders) <= 1
    return orders[0] if orders else None


async def has_workflow(shop: Shop, order: Order) -> bool:
    client = await Client.connect(Stack.read(shop.data_dir).urls.temporal)
    try:
        await client.get_workflow_handle(order.orderId).describe()
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True


@asynccontextmanager
async def sent(shop: Shop, wish: Wish) -> AsyncGenerator[None]:
    """While inside, an order is sent; then its connection is cut, and nobody has read the answer."""
    request = shop.http.build_request("POST", "/orders", json=wish.body, headers=wish.headers)
    head = b"".join(b"%s: %s\r\n" % header for header in request.headers.raw)
    _, writer = await asyncio.open_connection(request.url.host, request.url.port)
    try:
        writer.write(b"POST /orders HTTP/1.1\r\n" + head + b"\r\n" + request.content)
        await writer.drain()
        yield
    finally:
        writer.transport.abort()
