"""Many at once: every step and undo through the services as the saga calls them, over a real payment simulator."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import ANY

import pytest
from pydantic import SecretStr
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from services.delivery.deliveries import Deliveries
from services.delivery.errors import DeliveryCanceled, OutOfStock, SaleCanceled
from services.delivery.stock import Warehouse
from services.delivery.tables import Delivery, Stock, StockMovement
from services.marketing.coupons import CouponRevoked, Coupons
from services.marketing.tables import Coupon
from services.order.acceptance import Accepted
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.catalogue import Catalogue
from services.order.circuit import AdmissionRules
from services.order.payments import Payments
from services.order.provider import PaymentVoided, StripeProvider
from services.order.statuses import EventType, OrderState, OrderStatus, TimelineEntry
from services.order.tables import AdmissionState, IdempotencyKey, Order, OrderEvent, OrderView, Payment, Product
from services.shared.database import Database, Work, insert_if_new
from services.shared.errors import Refused
from services.shared.settings import PaymentSettings, PoolSettings
from tests.database.orders import NOON, TEA, accepting, rows
from tests.database.servers import on_mysql, reopened
from tests.payments import ledger_of, running_simulator

T = TypeVar("T")

PRICE = 1000
ORDER_TABLES: tuple[type[SQLModel], ...] = (
    Product,
    IdempotencyKey,
    Order,
    OrderView,
    OrderEvent,
    Payment,
    AdmissionState,
)


class Shop:
    """Every team's services, each step for an order of one piece of tea unless it is told otherwise."""

    def __init__(
        self, order: Database, delivery: Database, marketing: Database, provider: StripeProvider, provider_url: str
    ) -> None:
        self.databases = (order, delivery, marketing)
        self.provider, self.provider_url = provider, provider_url
        self.acceptance, self.catalogue, self.book = accepting(order), Catalogue(order), OrderBook(order)
        self.payments = Payments(order, provider, Admission(AdmissionRules()))
        self.deliveries, self.warehouse = Deliveries(delivery), Warehouse(delivery)
        self.coupons = Coupons(marketing)

    def over(self, wrap: Callable[[Database], Database]) -> "Shop":
        """The same shop as another process sees it, through databases of its own."""
        order, delivery, marketing = map(wrap, self.databases)
        return Shop(order, delivery, marketing, self.provider, self.provider_url)

    async def accept(self, user_id: str = "u1", product_id: str = "tea") -> Accepted:
        request = replace(TEA, product_id=product_id, qty=1)
        return await self.acceptance.accept(user_id=user_id, idempotency_key="k1", request=request)

    async def pay(self, order_id: str) -> None:
        await self.payments.pay(order_id=order_id, amount=PRICE, currency="KRW", payment_method="pm_card_visa")

    async def refund(self, order_id: str) -> bool:
        return await self.payments.refund(order_id=order_id, amount=PRICE, currency="KRW")

    async def issue(self, order_id: str) -> str:
        return (await self.coupons.issue(order_id=order_id, user_id="u1", amount=PRICE)).coupon_id

    async def revoke(self, order_id: str) -> bool:
        return await self.coupons.revoke(order_id=order_id, user_id="u1", amount=PRICE)

    async def start(self, order_id: str, product_id: str = "tea") -> None:
        await self.deliveries.start(order_id=order_id, product_id=product_id, qty=1)

    async def cancel(self, order_id: str, product_id: str = "tea") -> bool:
        return await self.deliveries.cancel(order_id=order_id, product_id=product_id, qty=1)

    async def sell(self, order_id: str, product_id: str = "tea") -> None:
        await self.warehouse.sell(order_id=order_id, product_id=product_id, qty=1)

    async def restore(self, order_id: str, product_id: str = "tea") -> bool:
        return await self.warehouse.restore(order_id=order_id, product_id=product_id)

    async def books(self) -> list[str]:
        """Every row that there is, in words, the shelf and the catalogue that the shop began with left out."""
        order, delivery, marketing = self.databases
        lines = [
            *(f"product {row.product_id} at {row.product_price}" for row in await rows(order, Product)),
            *(f"key {row.idempotency_key}" for row in await rows(order, IdempotencyKey)),
            *(f"order of {row.qty}" for row in await rows(order, Order)),
            *(f"view {row.version} {row.order_status}" for row in await rows(order, OrderView)),
            *(f"event {row.version} {row.type}" for row in await rows(order, OrderEvent)),
            *(f"payment {row.state}" for row in await rows(order, Payment)),
            *(f"charged {row['charged']}, refunded {row['refunded']}" for row in await ledger_of(self.provider_url)),
            *(f"coupon {_life_of(row)}" for row in await rows(marketing, Coupon)),
            *(f"delivery {row.state if row.started_at else 'never started'}" for row in await rows(delivery, Delivery)),
            *(f"{row.kind} of {row.qty} {row.product_id}" for row in await rows(delivery, StockMovement)),
            *(f"{row.on_hand} {row.product_id} on hand" for row in await rows(delivery, Stock)),
        ]
        for line in ("product tea at 1000", "opening of 100 tea", "100 tea on hand"):
            if line in lines:
                lines.remove(line)
        return sorted(lines)

    async def standing(self) -> list[str]:
        """What stands of the orders: money, coupons, deliveries, pieces taken."""
        _, delivery, marketing = self.databases
        taken: dict[str, int] = {}
        for row in await rows(delivery, StockMovement):
            if row.kind in ("sale", "restore"):
                taken[row.reference] = taken.get(row.reference, 0) - row.qty
        return sorted(
            [
                *(
                    f"{row['orderId']}: {row['charged'] - row['refunded']} won"
                    for row in await ledger_of(self.provider_url)
                    if row["charged"] != row["refunded"]
                ),
                *(f"{row.order_id}: coupon" for row in await rows(marketing, Coupon) if not row.revoked_at),
                *(f"{row.order_id}: delivery" for row in await rows(delivery, Delivery) if row.state != "Canceled"),
                *(f"{order_id}: {qty} taken" for order_id, qty in taken.items() if qty),
            ]
        )

    async def assert_stock(self, product_id: str, on_hand: int) -> None:
        """So many pieces are there, and the movements say so, too."""
        assert await self.warehouse.on_hand(product_id) == on_hand
        movements = await rows(self.databases[1], StockMovement)
        assert sum(movement.qty for movement in movements if movement.product_id == product_id) == on_hand


async def at_once(calls: Iterable[Awaitable[T]]) -> list[T]:
    """What each of the calls answers; none may fail."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.wait(tasks)
    assert [error for task in tasks if (error := task.exception())] == []
    return [task.result() for task in tasks]


def _life_of(coupon: Coupon) -> str:
    if not coupon.revoked_at:
        return "issued"
    return "revoked" if coupon.issued_at else "never issued"


@pytest.fixture
async def shop(
    order_database: Database, delivery_database: Database, marketing_database: Database, tmp_path: Path
) -> AsyncIterator[Shop]:
    """With tea in the catalogue and a hundred pieces of it on the shelf."""
    async with running_simulator(tmp_path / "payments.db") as url:
        provider = StripeProvider(PaymentSettings(url=url, key=SecretStr("sk_test_shop"), timeout_seconds=30))
        shop = Shop(order_database, delivery_database, marketing_database, provider, url)
        await shop.catalogue.put(product_id="tea", product_name="녹차", product_price=PRICE)
        await shop.warehouse.open_if_new("tea", 100)
        yield shop
        await provider.close()


# The last pieces


async def test_a_hundred_buyers_for_the_last_five_pieces(shop: Shop) -> None:
    await shop.catalogue.put(product_id="pearl", product_name="진주", product_price=PRICE)
    await shop.warehouse.open_if_new("pearl", 5)

    async def buy(user_id: str) -> tuple[str, bool]:
        """An order's saga; says whether it went through."""
        order_id = (await shop.accept(user_id, "pearl")).order.order_id
        await shop.pay(order_id)
        await shop.issue(order_id)
        try:
            await shop.start(order_id, "pearl")
            await shop.sell(order_id, "pearl")
        except OutOfStock:
            assert await shop.revoke(order_id)
            await shop.cancel(order_id, "pearl")
            assert not await shop.restore(order_id, "pearl")
            assert await shop.refund(order_id)
            return order_id, False
        return order_id, True

    bought = dict(await at_once(buy(f"u{number}") for number in range(100)))
    through = [order_id for order_id, went_through in bought.items() if went_through]
    assert (len(bought), len(through)) == (100, 5)
    await shop.assert_stock("pearl", 0)
    stands = [f"{order_id}: {what}" for order_id in through for what in ("1000 won", "1 taken", "coupon", "delivery")]
    assert await shop.standing() == sorted(stands)
    ledger = await ledger_of(shop.provider_url)
    assert {row["orderId"]: row["charged"] for row in ledger} == dict.fromkeys(bought, PRICE)
    assert sum(row["charged"] - row["refunded"] for row in ledger) == 5 * PRICE


async def test_orders_for_two_products_in_opposite_order_lose_no_work(shop: Shop) -> None:
    await shop.warehouse.open_if_new("cup", 100)

    async def buy_both(number: int) -> None:
        """Sold in one order, put back in the other; every third customer keeps both."""
        products = ("tea", "cup") if number % 2 else ("cup", "tea")
        for product_id in products:
            await shop.sell(f"{product_id}-{number}", product_id)
        if number % 3:
            for product_id in reversed(products):
                assert await shop.restore(f"{product_id}-{number}", product_id)

    await at_once(buy_both(number) for number in range(60))
    for product_id in ("tea", "cup"):
        await shop.assert_stock(product_id, 80)


# The same, often


@dataclass(frozen=True)
class Once:
    """What a step leaves in the books and answers everybody, when it runs `after` others."""

    step: Callable[[Shop], Awaitable[object]]
    leaves: list[str]
    answer: object = None
    after: Callable[[Shop], Awaitable[object]] | None = None


async def record(shop: Shop) -> None:
    (reading,) = await shop.book.list(limit=2)
    timeline = [
        TimelineEntry(version=2, type=EventType.ORDER_PLACED, at=NOON),
        TimelineEntry(version=3, type=EventType.COUPON_ISSUED, at=NOON),
    ]
    state = OrderState(order_status=OrderStatus.COUPON_ISSUED)
    await shop.book.record(order_id=reading.order.order_id, state=state, timeline=timeline)


async def accept(shop: Shop) -> str:
    return (await shop.accept()).order.order_id


EVERY_STEP = {
    "accept": Once(accept, ["event 1 OrderReceived", "key k1", "order of 1", "view 1 OrderReceived"], answer=ANY),
    "record": Once(
        record,
        [
            "event 1 OrderReceived",
            "event 2 OrderPlaced",
            "event 3 CouponIssued",
            "key k1",
            "order of 1",
            "view 3 CouponIssued",
        ],
        after=accept,
    ),
    "put a product": Once(
        lambda shop: shop.catalogue.put_if_new(product_id="cup", product_name="잔", product_price=5000),
        ["product cup at 5000"],
    ),
    "pay": Once(lambda shop: shop.pay("o1"), ["charged 1000, refunded 0", "payment Paid"]),
    "refund": Once(
        lambda shop: shop.refund("o1"),
        ["charged 1000, refunded 1000", "payment Refunded"],
        answer=True,
        after=lambda shop: shop.pay("o1"),
    ),
    "refund of nothing": Once(lambda shop: shop.refund("o1"), ["payment Voided"], answer=False),
    "issue": Once(lambda shop: shop.issue("o1"), ["coupon issued"], answer=ANY),
    "revoke": Once(
        lambda shop: shop.revoke("o1"), ["coupon revoked"], answer=True, after=lambda shop: shop.issue("o1")
    ),
    "revoke of nothing": Once(lambda shop: shop.revoke("o1"), ["coupon never issued"], answer=False),
    "start": Once(lambda shop: shop.start("o1"), ["delivery Started"]),
    "cancel": Once(
        lambda shop: shop.cancel("o1"), ["delivery Canceled"], answer=True, after=lambda shop: shop.start("o1")
    ),
    "cancel of nothing": Once(lambda shop: shop.cancel("o1"), ["delivery never started"], answer=False),
    "complete": Once(
        lambda shop: shop.deliveries.complete(order_id="o1"),
        ["delivery Delivered"],
        after=lambda shop: shop.start("o1"),
    ),
    "sell": Once(lambda shop: shop.sell("o1"), ["99 tea on hand", "sale of -1 tea"]),
    "restore": Once(
        lambda shop: shop.restore("o1"),
        ["restore of 1 tea", "sale of -1 tea"],
        answer=True,
        after=lambda shop: shop.sell("o1"),
    ),
    "restore of nothing": Once(lambda shop: shop.restore("o1"), ["sale of 0 tea"], answer=False),
    "move by hand": Once(
        lambda shop: shop.warehouse.move(product_id="tea", qty=-5, reason="loss", reference="m1"),
        ["95 tea on hand", "restock of -5 tea"],
        answer=95,
    ),
    "move of what is new": Once(
        lambda shop: shop.warehouse.move(product_id="cup", qty=5, reason="first", reference="m1"),
        ["5 cup on hand", "restock of 5 cup"],
        answer=5,
    ),
    "open": Once(lambda shop: shop.warehouse.open_if_new("cup", 5), ["5 cup on hand", "opening of 5 cup"]),
}


@pytest.mark.parametrize("once", EVERY_STEP.values(), ids=EVERY_STEP)
async def test_a_step_that_runs_often_at_once_and_again_has_one_effect(shop: Shop, once: Once) -> None:
    if once.after is not None:
        await once.after(shop)
    answers = await at_once(once.step(shop) for _ in range(20))
    answers.append(await once.step(shop))
    assert await shop.books() == once.leaves
    assert set(answers) == {answers[0]}
    assert answers[0] == once.answer


async def test_a_request_that_comes_often_at_once_to_two_processes_is_one_order_paid_once(shop: Shop) -> None:
    async with AsyncExitStack() as stack:

        def reopen(database: Database) -> Database:
            another = reopened(database, PoolSettings(size=5, overflow=0, transaction_seconds=30))
            stack.push_async_callback(another.close)
            return another

        processes = [shop.over(reopen) for _ in range(2)]
        answers = await at_once(process.accept() for process in processes * 50)
        assert sorted(answer.replayed for answer in answers) == [False] + [True] * 99
        order_ids = [answer.order.order_id for answer in answers]
        await at_once(process.pay(order_id) for process, order_id in zip(processes * 50, order_ids, strict=True))
    assert await shop.books() == [
        "charged 1000, refunded 0",
        "event 1 OrderReceived",
        "key k1",
        "order of 1",
        "payment Paid",
        "view 1 OrderReceived",
    ]


# A step and its undo


@dataclass(frozen=True)
class Pair:
    """A step, its undo, and how the step is refused once the undo was there."""

    do: Callable[[Shop, str], Coroutine[Any, Any, object]]
    undo: Callable[[Shop, str], Coroutine[Any, Any, bool]]
    refusal: type[Refused]


PAIRS = {
    "payment": Pair(Shop.pay, Shop.refund, PaymentVoided),
    "coupon": Pair(Shop.issue, Shop.revoke, CouponRevoked),
    "delivery": Pair(Shop.start, Shop.cancel, DeliveryCanceled),
    "sale": Pair(Shop.sell, Shop.restore, SaleCanceled),
}


class Watch:
    """Tells when a process' first statement is on its way, and stops the process after a certain one until told."""

    def __init__(self, *, stop_after: int = 0) -> None:
        self.begun, self.stopped, self.go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._left = stop_after

    def over(self, database: Database) -> Database:
        return WatchedDatabase(database, self)

    def over_each(self, execute: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The same way to execute a statement, watched."""

        async def watched(*arguments: Any) -> Any:
            self.begun.set()
            try:
                return await execute(*arguments)
            finally:
                await self._statement_done()

        return watched

    async def _statement_done(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.stopped.set()
            await self.go_on.wait()


class WatchedDatabase(Database):
    """A team's database under a watch."""

    def __init__(self, database: Database, watch: Watch) -> None:
        self.engine = database.engine
        self._database, self._watch = database, watch

    async def write(self, work: Work[T]) -> T:
        async def watched(session: AsyncSession) -> T:
            connect, execute = session.connection, session.exec
            session.exec = self._watch.over_each(execute)  # pyright: ignore[reportAttributeAccessIssue]

            async def connection() -> Any:
                self._watch.begun.set()  # the transaction begins with it
                return SimpleNamespace(execute=self._watch.over_each((await connect()).execute))

            session.connection = connection  # pyright: ignore[reportAttributeAccessIssue]
            return await work(session)

        return await self._database.write(watched)


async def end_of(call: Coroutine[Any, Any, object]) -> object:
    """What a call answered, or how it was refused."""
    try:
        return await call
    except Refused as refusal:
        return refusal


async def assert_called_off(shop: Shop, pair: Pair) -> None:
    """Nothing of the order stands, and nothing that comes now changes that."""
    assert await shop.standing() == []
    with pytest.raises(pair.refusal):
        await pair.do(shop, "o1")
    await pair.undo(shop, "o1")
    assert await shop.standing() == []


@pytest.mark.parametrize("name", PAIRS)
async def test_an_undo_waits_for_the_step_that_is_being_made_and_undoes_it(shop: Shop, name: str) -> None:
    pair, doing, undoing = PAIRS[name], Watch(stop_after=1), Watch()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        do = group.create_task(end_of(pair.do(shop.over(doing.over), "o1")))
        await doing.stopped.wait()
        undo = group.create_task(end_of(pair.undo(shop.over(undoing.over), "o1")))
        await undoing.begun.wait()
        assert not (await asyncio.wait({undo}, timeout=0.1))[0]
        doing.go_on.set()
    if name == "payment":  # which has more to do after that, and may be called off then
        assert do.result() is None or isinstance(do.result(), PaymentVoided)
    else:
        assert not isinstance(do.result(), Refused)
        assert undo.result() is True
    await assert_called_off(shop, pair)


@pytest.mark.parametrize(("name", "statements"), [("payment", 2), ("coupon", 2), ("delivery", 2), ("sale", 1)])
async def test_a_step_waits_for_the_undo_that_is_being_made_and_is_refused(
    shop: Shop, name: str, statements: int
) -> None:
    """The undo is held when it has left its tombstone, after so many statements."""
    pair, undoing, doing = PAIRS[name], Watch(stop_after=statements), Watch()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        undo = group.create_task(pair.undo(shop.over(undoing.over), "o1"))
        await undoing.stopped.wait()
        do = group.create_task(end_of(pair.do(shop.over(doing.over), "o1")))
        await doing.begun.wait()
        assert not (await asyncio.wait({do}, timeout=0.1))[0]
        undoing.go_on.set()
    assert undo.result() is False
    assert isinstance(do.result(), pair.refusal)
    await assert_called_off(shop, pair)


# On MySQL alone: SQLite lets nobody write between two statements of a transaction.
@on_mysql
@pytest.mark.parametrize("name", ["payment", "coupon", "delivery"])
async def test_a_step_that_is_made_between_the_two_looks_of_its_undo_is_undone(shop: Shop, name: str) -> None:
    """The undo is held when it has found nothing, before it leaves its tombstone."""
    pair, undoing = PAIRS[name], Watch(stop_after=1)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        undo = group.create_task(pair.undo(shop.over(undoing.over), "o1"))
        await undoing.stopped.wait()
        await pair.do(shop, "o1")
        assert len(await shop.standing()) == 1
        undoing.go_on.set()
    assert undo.result() is True
    await assert_called_off(shop, pair)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
async def test_a_storm_of_steps_and_undos_leaves_nothing(shop: Shop, pair: Pair) -> None:
    orders = [f"o{number}" for number in range(30)]
    calls = [(call, order_id) for order_id in orders for call in (pair.do, pair.undo) * 2]
    random.Random(12).shuffle(calls)
    ends = await at_once(end_of(call(shop, order_id)) for call, order_id in calls)
    assert {type(end) for end in ends if isinstance(end, Refused)} <= {pair.refusal}
    assert await shop.standing() == []
    await shop.assert_stock("tea", 100)
    assert all(row["charged"] == PRICE for row in await ledger_of(shop.provider_url))  # once, where at all
    books = await shop.books()
    late = await at_once(end_of(pair.do(shop, order_id)) for order_id in orders)
    assert [type(end) for end in late] == [pair.refusal] * 30
    await at_once(pair.undo(shop, order_id) for order_id in orders)
    assert await shop.books() == books


# The keys


async def test_no_table_takes_a_second_row_for_what_happens_once(shop: Shop) -> None:
    order_id = (await shop.accept()).order.order_id
    for step in (shop.pay, shop.issue, shop.start, shop.sell):
        await step(order_id)
    order, delivery, marketing = shop.databases
    (coupon,) = await rows(marketing, Coupon)
    sale = (await rows(delivery, StockMovement))[-1]
    repeated = [
        *[(order, row) for table in ORDER_TABLES for row in await rows(order, table)],
        *[(delivery, row) for table in (Stock, Delivery) for row in await rows(delivery, table)],
        (delivery, StockMovement(**sale.model_dump(exclude={"movement_id"}))),
        (marketing, Coupon.model_validate(coupon.model_dump() | {"coupon_id": "another"})),
        (marketing, Coupon.model_validate(coupon.model_dump() | {"order_id": "another"})),
    ]
    assert len(repeated) == 12
    for database, row in repeated:
        assert not await database.write(partial(insert_if_new, row=row)), row
