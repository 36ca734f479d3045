"""Every statement goes by an index: how long it takes does not grow with the shop.

Each function of the teams' repositories runs on tables of some thousand rows. What it sends is then explained by the
database, and on MySQL the rows that the server read for it are counted.
"""

import re
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from inspect import getmembers, iscoroutinefunction
from itertools import product
from types import ModuleType
from typing import Any

from sqlalchemy import MetaData, event, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import SQLModel, text
from sqlmodel.ext.asyncio.session import AsyncSession

from services.delivery import repository as delivery
from services.delivery.tables import Delivery, DeliveryTable, Stock, StockMovement
from services.marketing import repository as marketing
from services.marketing.tables import Coupon, MarketingTable
from services.order import reconciliation_repository as reconciliation
from services.order import repository as order
from services.order.book import OrderBook
from services.order.statuses import EventType, OrderState, OrderStatus
from services.order.tables import (
    AdmissionState,
    IdempotencyKey,
    Order,
    OrderEvent,
    OrderTable,
    OrderView,
    Payment,
    Product,
    Reconciliation,
    ReconciliationDifference,
)
from services.shared.database import Database
from services.shared.ids import first_order_id
from tests.orders import an_order

Statement = tuple[str, Any]

ORDERS = 3000
PRODUCTS = 500
RUNS = 700
PAGE = 20
START = datetime(2026, 1, 1, tzinfo=UTC)

# These no query uses yet; each has its reason.
UNUSED: dict[str, str] = {}


@dataclass(frozen=True)
class Query:
    """A call on a repository. `reads` is how many rows MySQL may read for it at most."""

    call: "partial[Any]"
    reads: int = 4
    scans: str | None = None
    """Why it may go through an index from one end, if it may."""

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.call.keywords.items())
        return f"{self.call.func.__name__}({given})"


def at(number: int) -> datetime:
    return START + timedelta(seconds=number, microseconds=number)


def order_id(number: int) -> str:
    return first_order_id(at(number))


def user_id(number: int) -> str:
    """One customer ordered the first thousand, all others thirty each."""
    return "reseller" if number < 1000 else f"user-{number // 30}"


def status(number: int) -> OrderStatus:
    """Most orders are over; of each hundred, one is on its way and one is stuck; the last three are being paid."""
    if number >= ORDERS - 3:
        return OrderStatus.ORDER_RECEIVED
    if number % 100 in (50, 51):
        return OrderStatus.ORDER_PLACED if number % 100 == 50 else OrderStatus.ORDER_CANCELING
    return OrderStatus.ORDER_CANCELED if number % 3 == 0 else OrderStatus.DELIVERED


def new_order(number: int) -> Order:
    """The last 500 have no workflow yet, as after an hour without the engine."""
    return an_order(
        order_id(number),
        at(number),
        user_id=user_id(number),
        product_id=f"product-{number % PRODUCTS}",
        started_at=at(number) if number < ORDERS - 500 else None,
    )


def new_view(number: int) -> OrderView:
    return OrderView(
        order_id=order_id(number),
        user_id=user_id(number),
        order_status=status(number),
        pay_status="Paid",
        delivery_status="Started",
        needs_attention=status(number) is OrderStatus.ORDER_CANCELING,
        updated_at=at(number),
    )


def new_event(number: int, version: int = 1) -> OrderEvent:
    return OrderEvent(order_id=order_id(number), version=version, type=EventType.ORDER_PLACED, at=at(number))


def order_rows() -> Iterable[SQLModel]:
    yield AdmissionState(name="payments", updated_at=START)
    for number in range(PRODUCTS):
        yield Product(
            product_id=f"product-{number}", product_name="녹차", product_price=1000, currency="KRW", updated_at=START
        )
    for number in range(ORDERS):
        yield new_order(number)
        yield new_view(number)
        yield from (new_event(number, version) for version in (1, 2, 3))
        yield IdempotencyKey(
            user_id=user_id(number),
            idempotency_key=f"key-{number}",
            fingerprint="f",
            order_id=order_id(number),
            created_at=at(number),
        )
        yield Payment(order_id=order_id(number), state="Pending", amount=1000, currency="KRW", updated_at=at(number))
    for number in range(RUNS):
        yield Reconciliation(reconciliation_id=f"run-{number:04}", started_at=at(number))
        for found in range(1, 4):
            yield ReconciliationDifference(
                reconciliation_id=f"run-{number:04}",
                number=found,
                code="view-behind",
                detail="",
                outcome="repaired",
                at=at(number),
            )


def delivery_rows() -> Iterable[SQLModel]:
    for number in range(PRODUCTS):
        yield Stock(product_id=f"product-{number}", on_hand=10, updated_at=START)
    for number in range(ORDERS):
        product_id = f"product-{number % PRODUCTS}"
        yield StockMovement(
            reference=order_id(number), kind="sale", product_id=product_id, qty=-1, reason="order", at=at(number)
        )
        yield Delivery(order_id=order_id(number), product_id=product_id, qty=1, state="Started", updated_at=at(number))


def marketing_rows() -> Iterable[SQLModel]:
    for number in range(ORDERS):
        yield Coupon(
            order_id=order_id(number),
            coupon_id=f"coupon-{number}",
            user_id=user_id(number),
            coupon_kind="Silver",
            issued_at=at(number) if number % 10 else None,
        )


def order_lists() -> Iterable[Query]:
    """The list in every combination of its filters, each with a frequent and a rare value."""
    some_user = user_id(1550)
    for user, state, attention, before, (since, until) in product(
        (None, some_user),
        (None, OrderStatus.DELIVERED, OrderStatus.ORDER_PLACED, OrderStatus.ORDER_CANCELING),
        (None, True, False),
        (None, order_id(1555)),
        ((None, None), (at(1540), None), (None, at(1560)), (at(1500), at(1600)), (at(1540), at(1560))),
    ):
        unbounded = all(given is None for given in (user, state, attention, before, since, until))
        yield Query(
            partial(
                order.orders_with_views,
                user_id=user,
                order_status=state,
                needs_attention=attention,
                since=since,
                until=until,
                limit=PAGE,
                before=before,
            ),
            # A page and its orders; or the few that one filter leaves, of which another takes some. Beside a moment,
            # what came within ten seconds of it, a second apart.
            reads=3 * PAGE + 2 * 10 * ((since is not None) + (until is not None)),
            scans="the newest of all, as many as a page holds" if unbounded else None,
        )
    orders_of = partial(
        order.orders_with_views, order_status=None, needs_attention=None, since=None, until=None, limit=PAGE
    )
    yield Query(partial(orders_of, user_id="reseller", before=None), reads=3 * PAGE)
    yield Query(partial(orders_of, user_id="reseller", before=order_id(300)), reads=3 * PAGE)


def order_queries() -> Iterable[Query]:
    known, user = order_id(1550), user_id(1550)
    later = at(ORDERS)
    tea = Product(product_id="product-7", product_name="홍차", product_price=1, currency="KRW", updated_at=later)
    void = partial(order.move_payment, sources=("Pending", "Paid"), target="Voiding", at=later)
    waiting = [order_id(number) for number in range(ORDERS - 400, ORDERS - 400 + PAGE)]
    yield Query(partial(order.products), reads=PRODUCTS + 1, scans="the whole catalogue is what is asked for")
    yield Query(partial(order.product, product_id="product-7"))
    yield Query(partial(order.change_product, changed=tea))
    yield Query(partial(order.products_of, product_ids={"product-7", "product-8", "nothing"}), reads=6)
    keys = {(user_id(number), f"key-{number}") for number in range(1550, 1550 + PAGE)} | {(user, "new")}
    yield Query(partial(order.orders_of_keys, keys=keys), reads=4 * PAGE)
    yield Query(
        partial(order.add_rows, table=Order, rows=[new_order(ORDERS + number).model_dump() for number in (0, 1)])
    )
    yield Query(partial(order.admission, name="payments"))
    yield Query(partial(order.admission, name="payments", lock=True))
    yield Query(partial(order.set_admission, state=AdmissionState(name="payments", updated_at=later)))
    yield Query(partial(order.has_claimable, now=at(ORDERS - 10)))
    yield Query(partial(order.claim, now=at(ORDERS - 10), until=later, limit=PAGE), reads=2 * PAGE + 1)
    yield Query(partial(order.mark_started, order_ids=waiting, at=later), reads=PAGE)
    yield Query(partial(order.forget_keys, before=at(ORDERS // 2), limit=PAGE), reads=2 * PAGE + 1)
    yield Query(partial(order.forget_keys, before=at(PAGE // 2), limit=PAGE), reads=2 * PAGE + 1)
    yield Query(partial(order.payment_of_order, order_id=known))
    yield Query(partial(order.set_intent, order_id=known, intent_id="pi_1"))
    yield Query(partial(order.set_intent, order_id=known, intent_id="pi_1", state="Pending"))
    yield Query(partial(void, order_id=known))
    yield Query(partial(order.add_events, events=[new_event(1550, 4)]))
    yield Query(partial(order.add_events, events=[new_event(1550, 3), new_event(1550, 4)]))
    moves = [order.Move(order_id=known, state=OrderState(), version=9, at=later)]
    yield Query(partial(order.move_views, moves=moves))
    yield Query(partial(order.orders_of_ids, order_ids=[known]))
    followed = [order_id(number) for number in range(1000, 1200)]
    yield Query(partial(order.orders_of_ids, order_ids=followed), reads=2 * len(followed))
    yield Query(partial(order.progress_of_orders, order_ids=followed), reads=len(followed))
    yield Query(partial(order.events_of_orders, order_ids=[known], after=0))
    yield Query(partial(order.events_of_orders, order_ids=[known], after=2))
    yield Query(partial(order.events_of_orders, order_ids=followed, after=2), reads=2 * len(followed))
    yield Query(partial(order.waiting_in, status=OrderStatus.ORDER_PLACED), reads=ORDERS // 100 + 6)
    yield Query(partial(order.needing_attention), reads=ORDERS // 100 + 2)
    yield Query(partial(order.needing_attention, status=OrderStatus.ORDER_CANCELING), reads=2 * ORDERS // 100 + 2)
    yield Query(partial(order.unstarted), reads=2 * 500 + 4)  # those that wait, twice
    yield Query(partial(order.pending_payments))
    yield Query(partial(order.pending_order, newest=False))
    yield Query(partial(order.pending_order, newest=True))
    yield Query(partial(order.view_of_order, order_id=known))
    yield from order_lists()


def reconciliation_queries() -> Iterable[Query]:
    stretch = {"after": order_id(1000), "until": order_id(2000), "limit": PAGE}
    some = [order_id(number) for number in range(1000, 1000 + PAGE)]
    # An order, its view and its payment each; no more of a stretch than are asked for.
    yield Query(partial(reconciliation.order_summaries, **stretch), reads=3 * PAGE + 1)
    yield Query(partial(reconciliation.order_summaries_of, order_ids=some), reads=3 * PAGE + 1)
    yield Query(partial(reconciliation.excuses, order_ids=some), reads=4 * PAGE + 1)
    yield Query(partial(reconciliation.update_reconciliation, reconciliation_id="run-0300", found=1))
    yield Query(partial(reconciliation.reconciliation, reconciliation_id="run-0300"))
    yield Query(
        partial(reconciliation.reconciliations, limit=PAGE), reads=PAGE, scans="the newest, as many as a page holds"
    )
    yield Query(partial(reconciliation.reconciliations, limit=PAGE, before="run-0300"), reads=PAGE)
    yield Query(partial(reconciliation.differences_of_run, reconciliation_id="run-0300", limit=PAGE))
    yield Query(partial(reconciliation.forget_reconciliations, before="run-0300", limit=PAGE), reads=PAGE)


def delivery_queries() -> Iterable[Query]:
    stretch = {"after": order_id(1000), "until": order_id(2000), "limit": PAGE}
    stretched = [order_id(number) for number in range(1000, 1000 + PAGE)]
    kinds = ("sale", "restore")
    yield Query(partial(delivery.deliveries_between, **stretch), reads=PAGE + 1)
    yield Query(partial(delivery.deliveries_of, order_ids=stretched), reads=2 * PAGE)
    yield Query(partial(delivery.sold_between, kinds=kinds, **stretch), reads=PAGE + 1)
    yield Query(partial(delivery.sold_of, kinds=kinds, order_ids=stretched), reads=2 * PAGE)
    yield Query(partial(delivery.product_ids, after="product-2", limit=PAGE), reads=PAGE + 1)
    # A product's stock, and each of its movements.
    yield Query(partial(delivery.stock_and_moved, product_id="product-7"), reads=ORDERS // PRODUCTS + 2)
    yield Query(partial(delivery.stocks_of, product_ids={"product-7", "product-8", "nothing"}), reads=6)
    cancel = partial(delivery.move_delivery, source="Started", target="Canceled", at=START)
    yield Query(partial(delivery.stock_of, product_id="product-7"))
    yield Query(partial(delivery.take_out, product_id="product-7", qty=1, at=START))
    yield Query(partial(delivery.put_in, product_id="product-7", qty=1, at=START))
    yield Query(partial(delivery.put_in, product_id="product-7", qty=1, at=START, at_most=100))
    yield Query(partial(delivery.movement, reference=order_id(1550), kind="sale"))
    yield Query(partial(delivery.delivery_of_order, order_id=order_id(1550)))
    page = [order_id(number) for number in range(1550, 1550 + PAGE)]
    yield Query(partial(delivery.started_deliveries, order_ids=page), reads=2 * PAGE)
    yield Query(partial(cancel, order_id=order_id(1550)))


def marketing_queries() -> Iterable[Query]:
    stretch = {"after": order_id(1000), "until": order_id(2000), "limit": PAGE}
    yield Query(partial(marketing.coupons_between, **stretch), reads=PAGE + 1)
    stretched = [order_id(number) for number in range(1000, 1000 + PAGE)]
    yield Query(partial(marketing.coupons_of, order_ids=stretched), reads=2 * PAGE)
    yield Query(partial(marketing.coupon_of_order, order_id=order_id(1550)))
    yield Query(partial(marketing.revoke, order_id=order_id(1550), at=START))
    coupons_of = partial(marketing.coupons_of_owner, user_id="reseller", limit=PAGE)
    for before in (None, order_id(300)):
        yield Query(partial(coupons_of, before=before), reads=2 * PAGE)


async def fill(database: Database, rows: Iterable[SQLModel]) -> None:
    """Put the rows in, table by table, and let the database count them."""
    tables: dict[type[SQLModel], list[dict[str, Any]]] = {}
    for row in rows:
        # A number that the database gives is left to it.
        tables.setdefault(type(row), []).append(row.model_dump(exclude={"movement_id"}))
    async with database.engine.begin() as connection:
        for table, values in tables.items():
            await connection.execute(insert(table), values)
    async with database.engine.begin() as connection:
        if is_mysql(database.engine):
            names = ", ".join(str(insert(table).table) for table in tables)
            await connection.execute(text(f"ANALYZE TABLE {names}"))
        else:
            await connection.execute(text("ANALYZE"))


def is_mysql(engine: AsyncEngine) -> bool:
    return engine.dialect.name in ("mysql", "mariadb")


@contextmanager
def recorded(engine: AsyncEngine) -> Generator[list[Statement]]:
    """Whatever is sent to the database and finds rows there, with its parameters."""
    sent: list[Statement] = []

    def record(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            sent.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    try:
        yield sent
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", record)


async def rows_read(connection: AsyncConnection) -> int:
    """How many rows MySQL has read for this connection, index entries included."""
    counters = await connection.execute(text("SHOW SESSION STATUS LIKE 'Handler_read%'"))
    return sum(int(value) for _, value in counters)


async def reads_of(connection: AsyncConnection, call: Callable[[], Awaitable[object]]) -> int:
    """How many rows MySQL reads for a call, without those that it reads to tell."""
    before = await rows_read(connection)
    to_tell = await rows_read(connection) - before
    before = await rows_read(connection)
    await call()
    return await rows_read(connection) - before - to_tell


@dataclass(frozen=True)
class Plan:
    """How the database goes about a statement: what is wrong with that, and the indexes that it uses."""

    faults: Sequence[str]
    indexes: Sequence[str]


async def mysql_plan(connection: AsyncConnection, statement: Statement, *, scans: bool) -> Plan:
    found = (await connection.exec_driver_sql(f"EXPLAIN {statement[0]}", statement[1])).mappings().all()
    faults: list[str] = []
    for step in found:
        # Without a type nothing was looked for: then nothing is shown either.
        if step["type"] in ((None, "ALL") if scans else (None, "ALL", "index")):
            faults.append(f"{step['table']} is read by {step['type']} ({step['Extra']})")
        faults += [extra for extra in ("Using filesort", "Using temporary") if extra in (step["Extra"] or "")]
    return Plan(faults, [str(step["key"]) for step in found])


async def sqlite_plan(connection: AsyncConnection, statement: Statement, *, scans: bool) -> Plan:
    found = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement[0]}", statement[1])
    steps = [str(step) for (step,) in found.columns(3)]
    faults = [
        step
        for step in steps
        if (step.startswith("SCAN") and not (scans and "USING INDEX" in step)) or "TEMP B-TREE FOR ORDER BY" in step
    ]
    return Plan(faults, [name for step in steps for name in re.findall(r"INDEX (\w+)", step)])


async def faults(database: Database, queries: Iterable[Query], metadata: MetaData) -> list[str]:
    """What is wrong with how the database goes about these queries, and with its indexes."""
    wrong: list[str] = []
    used: set[str] = set()
    mysql = is_mysql(database.engine)
    plan_of = mysql_plan if mysql else sqlite_plan
    async with database.engine.connect() as connection:
        for query in queries:
            reads = 0
            async with AsyncSession(connection) as session:
                call = partial(query.call, session)
                with recorded(database.engine) as sent:
                    if mysql:
                        reads = await reads_of(connection, call)
                    else:
                        await call()
            await connection.rollback()
            if reads > query.reads:
                wrong.append(f"{query}: {reads} rows read, not {query.reads}")
            for statement in sent:
                plan = await plan_of(connection, statement, scans=query.scans is not None)
                wrong += [f"{query}: {fault}" for fault in plan.faults]
                used.update(plan.indexes)
    indexes = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    wrong += [f"no query uses {name}" for name in sorted(indexes - used - UNUSED.keys())]
    wrong += [f"{name} is used after all" for name in sorted(UNUSED.keys() & used)]
    return wrong


def functions(repository: ModuleType) -> set[str]:
    """The public functions of a repository that talk to the database."""
    return {
        name
        for name, function in getmembers(repository, iscoroutinefunction)
        if function.__module__ == repository.__name__ and not name.startswith("_")
    }


def test_every_function_of_a_repository_is_looked_at() -> None:
    for repository, queries in (
        (order, order_queries()),
        (reconciliation, reconciliation_queries()),
        (delivery, delivery_queries()),
        (marketing, marketing_queries()),
    ):
        assert {query.call.func.__name__ for query in queries} == functions(repository)


async def test_the_order_team_goes_by_indexes(order_database: Database) -> None:
    await fill(order_database, order_rows())
    found = await faults(order_database, [*order_queries(), *reconciliation_queries()], OrderTable.metadata)
    assert not found, "\n".join(found)


async def test_the_delivery_team_goes_by_indexes(delivery_database: Database) -> None:
    await fill(delivery_database, delivery_rows())
    found = await faults(delivery_database, delivery_queries(), DeliveryTable.metadata)
    assert not found, "\n".join(found)


async def test_the_marketing_team_goes_by_indexes(marketing_database: Database) -> None:
    await fill(marketing_database, marketing_rows())
    found = await faults(marketing_database, marketing_queries(), MarketingTable.metadata)
    assert not found, "\n".join(found)


async def test_an_order_counts_as_pending_until_its_payment_is_known(order_database: Database) -> None:
    assert await order_database.read(order.pending_payments) == 0
    await fill(order_database, [new_view(number) for number in range(ORDERS - 100, ORDERS)])
    assert await order_database.read(order.pending_payments) == 3


async def test_the_list_filters_by_attention(order_database: Database) -> None:
    await fill(order_database, [row for number in range(1540, 1560) for row in (new_order(number), new_view(number))])
    book = OrderBook(order_database)
    flagged = await book.list(needs_attention=True, limit=PAGE)
    others = await book.list(needs_attention=False, limit=PAGE)
    assert [reading.view.order_id for reading in flagged] == [order_id(1551)]
    assert {reading.view.needs_attention for reading in others} == {False}
    assert len(others) == 19
