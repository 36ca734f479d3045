"""A database that falls silent or is far away: callers are told in bounded time, nothing is lost or held for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from services.delivery.errors import OutOfStock
from services.delivery.stock import Warehouse
from services.delivery.tables import Stock, StockMovement
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import PoolSettings
from tests.database.proxy import PING, Fault, Proxy, Statement, running_proxy
from tests.database.servers import on_mysql, reopened

TEA = "tea"
ON_HAND = 100
BOUND = 15.0
"""What is to end ends in a second or a few; after so many it is said to hang."""
ONE = PoolSettings(size=1, overflow=0, transaction_seconds=1)
FIVE = PoolSettings(size=5, overflow=0, transaction_seconds=1)
PATIENT = PoolSettings(transaction_seconds=15)

Open = Callable[[PoolSettings], Database]
Call = Callable[[Database], Awaitable[object]]
pytestmark = on_mysql


@pytest.fixture
async def tea(delivery_database: Database) -> Database:
    """The delivery team's database, straight, with tea in stock."""
    await Warehouse(delivery_database).open_if_new(TEA, ON_HAND)
    return delivery_database


@pytest.fixture
async def proxy(tea: Database) -> AsyncIterator[Proxy]:
    async with running_proxy(tea) as proxy:
        yield proxy


@pytest.fixture
async def through(tea: Database, proxy: Proxy) -> AsyncIterator[Open]:
    """Opens the same database through the proxy."""
    opened: list[Database] = []

    def through(settings: PoolSettings) -> Database:
        opened.append(reopened(tea, settings, host=proxy.host, port=proxy.port))
        return opened[-1]

    yield through
    for database in opened:
        assert await outcome_of(database.close(), proxy=proxy) is None


async def outcomes_of(*calls: Awaitable[object], proxy: Proxy) -> list[object]:
    """What the calls answer or raise, all at once. They hang if they end only when their connections do."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    _, hanging = await asyncio.wait(tasks, timeout=BOUND)
    if hanging:
        # A timeout would not do: what hangs may not let itself be cancelled.
        proxy.heal()
        proxy.reset()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert not hanging, f"{len(hanging)} of {len(tasks)} calls hung"
    return outcomes


async def outcome_of(call: Awaitable[object], *, proxy: Proxy) -> object:
    return (await outcomes_of(call, proxy=proxy))[0]


async def sell(database: Database, order_id: str = "o1") -> None:
    await Warehouse(database).sell(order_id=order_id, product_id=TEA, qty=1)


async def count_stock(database: Database) -> object:
    return await Warehouse(database).on_hand(TEA)


async def sold(database: Database) -> list[str]:
    """The orders whose pieces left, one for each time."""

    async def work(session: AsyncSession) -> tuple[list[str], int]:
        sales = (await session.exec(select(StockMovement).where(StockMovement.kind == "sale"))).all()
        (stock,) = (await session.exec(select(Stock))).all()
        return sorted(sale.reference for sale in sales), stock.on_hand

    orders, on_hand = await database.read(work)
    assert on_hand == ON_HAND - len(orders)
    return orders


def is_unavailable(outcome: object) -> bool:
    return isinstance(outcome, DatabaseUnavailable)


def at(text: str) -> Callable[[Statement], bool]:
    return lambda statement: statement.text.startswith(text)


def noticing(silent: asyncio.Event, text: str) -> Callable[[Statement], bool]:
    """The first such statement, of which the event tells."""

    def strikes(statement: Statement) -> bool:
        if statement.text.startswith(text):
            silent.set()
        return silent.is_set()

    return strikes


async def assert_usable(database: Database, proxy: Proxy) -> None:
    """It answers many at once; no connection of its pool is lost to what hung, and what is lost never comes back."""
    assert await counts(database, proxy) == [ON_HAND] * 10


async def counts(database: Database, proxy: Proxy) -> list[object]:
    """What ten count at once. They ask again where the machine is too slow for a transaction's second."""
    counted: list[object] = []
    for _ in range(5):
        counted = await outcomes_of(*(count_stock(database) for _ in range(10)), proxy=proxy)
        if not any(map(is_unavailable, counted)):
            break
    return counted


# One connection: what hangs keeps everybody out


@pytest.mark.parametrize("call", [sell, count_stock])
async def test_a_silent_database_is_said_to_be_when_there_is_no_connection_yet(
    call: Call, proxy: Proxy, through: Open
) -> None:
    database = through(ONE)
    proxy.silence()
    assert is_unavailable(await outcome_of(call(database), proxy=proxy))
    proxy.heal()
    await assert_usable(database, proxy)


@pytest.mark.parametrize("fault", [Fault.SILENT_BEFORE, Fault.SILENT_AFTER], ids=lambda fault: fault.name)
@pytest.mark.parametrize("text", [PING, "INSERT", "UPDATE", "COMMIT"])
async def test_a_database_that_falls_silent_under_a_sale_is_said_to_be(
    fault: Fault, text: str, proxy: Proxy, through: Open, tea: Database
) -> None:
    database = through(ONE)
    await database.ping()
    proxy.count()
    proxy.disturb(fault, at(text))
    assert is_unavailable(await outcome_of(sell(database), proxy=proxy))
    assert proxy.struck == 1
    proxy.heal()
    kept = ON_HAND - (text == "COMMIT" and fault is Fault.SILENT_AFTER)
    assert await counts(database, proxy) == [kept] * 10
    proxy.end_silenced()  # and what they had locked is free, as soon as the server notices
    assert await outcome_of(sell(through(PATIENT)), proxy=proxy) is None
    assert await sold(tea) == ["o1"]


@pytest.mark.parametrize("fault", [Fault.SILENT_BEFORE, Fault.SILENT_AFTER], ids=lambda fault: fault.name)
@pytest.mark.parametrize("text", [PING, "SELECT"])
async def test_a_database_that_falls_silent_under_a_reader_is_said_to_be(
    fault: Fault, text: str, proxy: Proxy, through: Open
) -> None:
    database = through(ONE)
    await database.ping()
    proxy.count()
    proxy.disturb(fault, at(text))
    assert is_unavailable(await outcome_of(count_stock(database), proxy=proxy))
    assert proxy.struck == 1
    proxy.heal()
    await assert_usable(database, proxy)


@pytest.mark.parametrize("call", [sell, count_stock])
async def test_what_is_done_does_not_wait_for_a_database_that_falls_silent_then(
    call: Call, proxy: Proxy, through: Open, tea: Database
) -> None:
    """All that may still be asked, once the transaction is over, is asked of a silent database."""
    database = through(ONE)
    await database.ping()
    over = False

    def follows(statement: Statement) -> bool:
        nonlocal over
        over, was_over = statement.text in ("COMMIT", "ROLLBACK"), over
        return was_over

    proxy.disturb(Fault.SILENT_BEFORE, follows)
    outcome = await outcome_of(call(database), proxy=proxy)
    assert is_unavailable(outcome) or not isinstance(outcome, BaseException), outcome
    proxy.heal()
    await outcome_of(call(database), proxy=proxy)
    assert await sold(tea) == (["o1"] if call is sell else [])


@pytest.mark.parametrize("fault", [Fault.SILENT_BEFORE, Fault.SILENT_AFTER], ids=lambda fault: fault.name)
async def test_a_refusal_does_not_wait_for_a_database_that_falls_silent_then(
    fault: Fault, proxy: Proxy, through: Open, tea: Database
) -> None:
    """There is no answer to the ROLLBACK that a refusal brings about."""
    database = through(ONE)

    async def sell_too_many() -> None:
        await Warehouse(database).sell(order_id="o1", product_id=TEA, qty=ON_HAND + 1)

    await database.ping()
    proxy.count()
    proxy.disturb(fault, at("ROLLBACK"))
    outcome = await outcome_of(sell_too_many(), proxy=proxy)
    assert isinstance(outcome, OutOfStock | DatabaseUnavailable), outcome
    assert proxy.struck == 1
    proxy.heal()
    await assert_usable(database, proxy)
    proxy.end_silenced()
    assert isinstance(await outcome_of(sell_too_many(), proxy=proxy), OutOfStock)
    assert await sold(tea) == []


@pytest.mark.parametrize(("text", "qty"), [("INSERT", 1), ("COMMIT", 1), ("ROLLBACK", ON_HAND + 1)])
async def test_a_call_that_is_cancelled_does_not_wait_for_a_silent_database(
    text: str, qty: int, proxy: Proxy, through: Open, tea: Database
) -> None:
    database = through(PoolSettings(size=1, overflow=0, transaction_seconds=10 * BOUND))
    await database.ping()
    silent = asyncio.Event()
    proxy.count()
    proxy.disturb(Fault.SILENT_BEFORE, noticing(silent, text))
    selling = asyncio.create_task(Warehouse(database).sell(order_id="o1", product_id=TEA, qty=qty))
    await silent.wait()
    selling.cancel()
    assert isinstance(await outcome_of(selling, proxy=proxy), asyncio.CancelledError)
    proxy.heal()
    await assert_usable(database, proxy)
    proxy.end_silenced()
    assert await sold(tea) == []


@pytest.mark.parametrize("by", ["cancel", "timeout"])
async def test_work_that_is_cut_off_between_two_statements_does_not_wait_for_a_silent_database(
    by: str, proxy: Proxy, through: Open, tea: Database
) -> None:
    """There is no answer to the ROLLBACK either, and its time is up already."""
    database = through(PoolSettings(size=1, overflow=0, transaction_seconds=1 if by == "timeout" else 10 * BOUND))
    silent = asyncio.Event()

    async def work(session: AsyncSession) -> None:
        assert not silent.is_set(), "what was cut off was begun again"
        await session.exec(update(Stock).values(on_hand=0))
        proxy.silence()
        silent.set()
        await asyncio.Event().wait()

    cut_off = asyncio.create_task(database.write(work))
    await silent.wait()
    if by == "cancel":
        cut_off.cancel()
    outcome = await outcome_of(cut_off, proxy=proxy)
    assert isinstance(outcome, asyncio.CancelledError if by == "cancel" else DatabaseUnavailable)
    proxy.heal()
    await assert_usable(database, proxy)
    proxy.end_silenced()
    assert await sold(tea) == []


async def test_closing_does_not_wait_for_a_silent_database(proxy: Proxy, through: Open) -> None:
    idle, busy = through(FIVE), through(ONE)
    await asyncio.gather(*(idle.ping() for _ in range(5)))
    await busy.ping()
    proxy.silence()
    assert is_unavailable(await outcome_of(sell(busy), proxy=proxy))
    assert await outcomes_of(busy.close(), idle.close(), proxy=proxy) == [None, None]


async def test_closing_does_not_wait_for_work_that_a_silent_database_holds_up(proxy: Proxy, through: Open) -> None:
    database = through(ONE)
    await database.ping()
    silent = asyncio.Event()
    proxy.disturb(Fault.SILENT_AFTER, noticing(silent, "INSERT"))
    selling = asyncio.create_task(sell(database))
    await silent.wait()
    assert await outcome_of(database.close(), proxy=proxy) is None
    assert is_unavailable(await outcome_of(selling, proxy=proxy))


# Many at once


@pytest.mark.parametrize("call", [sell, count_stock])
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "unconnected"])
async def test_thirty_callers_of_a_silent_database_are_told(
    connected: bool, call: Call, proxy: Proxy, through: Open
) -> None:
    database = through(FIVE)
    if connected:
        await asyncio.gather(*(database.ping() for _ in range(5)))
    proxy.silence()
    outcomes = await outcomes_of(*(call(database) for _ in range(30)), proxy=proxy)
    assert all(is_unavailable(outcome) for outcome in outcomes), outcomes
    proxy.heal()
    await assert_usable(database, proxy)


async def test_a_database_that_falls_silent_under_thirty_sales_sells_each_once(
    proxy: Proxy, through: Open, tea: Database
) -> None:
    database = through(FIVE)
    orders = [f"o{number:02}" for number in range(30)]
    await asyncio.gather(*(database.ping() for _ in range(5)))
    proxy.count()
    proxy.disturb(Fault.SILENT_AFTER, lambda statement: statement.commits and statement.number > 40)
    outcomes = await outcomes_of(*(sell(database, order) for order in orders), proxy=proxy)
    assert proxy.struck == 1
    assert all(outcome is None or is_unavailable(outcome) for outcome in outcomes), outcomes
    assert any(is_unavailable(outcome) for outcome in outcomes)
    proxy.heal()
    assert isinstance(await outcome_of(count_stock(database), proxy=proxy), int)
    proxy.end_silenced()
    patient = through(PATIENT)
    assert await outcomes_of(*(sell(patient, order) for order in orders), proxy=proxy) == [None] * 30
    assert await sold(tea) == orders


# Resets, latency


async def test_resets_of_every_connection_lose_nothing_and_do_nothing_twice(
    proxy: Proxy, through: Open, tea: Database
) -> None:
    database = through(PATIENT)
    orders = [f"o{number:02}" for number in range(20)]
    await asyncio.gather(*(database.ping() for _ in range(10)))
    proxy.count()
    proxy.disturb(Fault.ALL_RESET_BEFORE, lambda statement: statement.number in (25, 50, 75, 100))
    assert await outcomes_of(*(sell(database, order) for order in orders), proxy=proxy) == [None] * 20
    assert proxy.struck == 4
    assert await sold(tea) == orders


async def test_twenty_sales_of_the_same_order_sell_once_over_a_long_way(
    proxy: Proxy, through: Open, tea: Database
) -> None:
    database = through(PATIENT)
    proxy.latency = 0.02
    assert await outcomes_of(*(sell(database) for _ in range(20)), proxy=proxy) == [None] * 20
    assert await sold(tea) == ["o1"]


# What a silent client holds


@pytest.mark.parametrize("fault", [Fault.SILENT_BEFORE, Fault.SILENT_AFTER], ids=lambda fault: fault.name)
async def test_a_client_that_fell_silent_does_not_keep_its_locks(
    fault: Fault, proxy: Proxy, through: Open, tea: Database
) -> None:
    """The server hears nothing of it any more, not even that it went."""
    holder = through(PoolSettings(size=1, overflow=0, transaction_seconds=1, recycle_seconds=1))
    await holder.ping()

    async def hold(session: AsyncSession) -> None:
        take = update(Stock).where(col(Stock.product_id) == TEA).values(on_hand=col(Stock.on_hand) - 1)
        await session.exec(take)
        await session.exec(select(StockMovement))

    proxy.disturb(fault, at("SELECT stock_movements"))
    assert is_unavailable(await outcome_of(holder.write(hold), proxy=proxy))
    assert proxy.silent
    other = reopened(tea, PATIENT)
    try:
        await sell(other)
    finally:
        await other.close()
    assert await sold(tea) == ["o1"]  # and what the silent one did is undone
