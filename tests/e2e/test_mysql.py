"""The shop while its MySQL server dies, falls silent, or is started anew with the whole shop."""

import asyncio
import signal
from collections.abc import Awaitable
from pathlib import Path

import httpx2
import pytest
from temporalio.client import Client

from deploy.stack import Stack
from tests.e2e.shop import OPERATOR, Order, Shop, Wish, eventually, open_shop
from tests.e2e.test_kills import PAYMENTS, assert_gone_through_once
from tests.issuer import bearer
from tests.mariadb import need_mariadb

on_mysql = pytest.mark.parametrize("shop", ["mysql"], indirect=True)


async def assert_refused_for_now(*asking: Awaitable[httpx2.Response]) -> None:
    """Each is answered, and not left hanging: within the 15 s of the client."""
    for answer in await asyncio.gather(*asking):
        assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable"), answer.text
        assert int(answer.headers["Retry-After"]) > 0


@on_mysql
async def test_orders_in_flight_go_through_once_when_the_server_is_killed(shop: Shop) -> None:
    product, user = await shop.product(on_hand=100), "survivor-of-mariadb"
    wishes = [Wish(product, 1 + number, user, pay) for number, pay in enumerate(PAYMENTS)]
    placing = [asyncio.create_task(shop.place(wish)) for wish in wishes]
    await asyncio.wait(placing, return_when=asyncio.FIRST_COMPLETED)
    await shop.kill("mariadb")
    orders = await asyncio.gather(*placing)
    assert len({order.orderId for order in orders}) == len(await shop.orders_of(user)) == len(wishes)
    await asyncio.gather(*(assert_gone_through_once(shop, order) for order in orders))
    assert await shop.stock(product) == 100 - sum(wish.qty for wish in wishes)


@on_mysql
async def test_a_silent_server_is_answered_for_and_everything_goes_on_after_it(shop: Shop) -> None:
    product, user = await shop.product(on_hand=100), "patient"
    order = await shop.place(Wish(product, 1, user, "pm_sim_slow"))
    later = Wish(product, 2, user)
    shop.signal("mariadb", signal.SIGSTOP)
    try:
        http = shop.http
        await assert_refused_for_now(
            shop.post(later),
            http.get(f"/orders/{order.orderId}", headers=bearer(user)),
            http.get("/orders", headers=bearer(user)),
            http.get("/products"),
            http.get(f"/stocks/{product}", headers=OPERATOR),
            http.get("/readyz"),
        )
        assert (await http.get("/livez")).status_code == 200  # nothing that a restart of the API would mend
        await eventually(lambda: _failed_and_repeated(shop, order), "the payment's attempt to fail and be repeated")
        # Far more than there are connections: nobody hangs behind the others.
        await assert_refused_for_now(*(shop.post(later) for _ in range(50)))
    finally:
        shop.signal("mariadb", signal.SIGCONT)

    second = await shop.place(later)
    for one in (order, second):
        await assert_gone_through_once(shop, one)
    assert len(await shop.orders_of(user)) == 2
    assert await shop.stock(product) == 97


async def _failed_and_repeated(shop: Shop, order: Order) -> bool:
    client = await Client.connect(Stack.read(shop.data_dir).urls.temporal)
    description = await client.get_workflow_handle(order.orderId).describe()
    return any(
        activity.activity_type.name == "pay_order" and activity.attempt > 1
        for activity in description.raw_description.pending_activities
    )


async def test_a_hundred_requests_with_one_key_make_one_order_and_one_charge(shop: Shop) -> None:
    product, user = await shop.product(on_hand=10), "insistent"
    wish = Wish(product, 2, user)
    answers = await asyncio.gather(*(shop.post(wish) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {202}
    [order_id] = {answer.json()["orderId"] for answer in answers}
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    await assert_gone_through_once(shop, await shop.order(order_id))
    assert await shop.stock(product) == 8


async def test_a_shop_on_mysql_goes_on_where_it_stopped(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    await need_mariadb(request.config)
    settings = {"STREET12_DATABASE": "mysql"}
    data_dir = tmp_path / "a shop of one's own"
    (data_dir / "mariadb.new" / "mysql").mkdir(parents=True)  # left by a first start that was cut off
    (data_dir / "mariadb.new" / "mysql" / "user.frm").touch()
    async with open_shop(data_dir, settings) as shop:
        product = await shop.product(on_hand=10)
        order = await shop.place(Wish(product, 2))
        await shop.until(order.orderId, "DeliveryStarted")
    async with open_shop(data_dir, settings) as shop:
        assert (await shop.order(order.orderId)).orderStatus == "DeliveryStarted"
        await shop.cancel(order)
        await shop.until(order.orderId, "OrderCanceled")
        assert await shop.stock(product) == 10
        assert await shop.money(order.orderId) == (order.amount, order.amount)
