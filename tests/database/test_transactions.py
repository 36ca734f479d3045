"""What every team relies on: a unit of work is done whole or not at all, in bounded time, and repeated when asked."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from services.delivery.tables import Delivery, Stock
from services.order.tables import Order, OrderEvent, Product
from services.shared.database import Database, insert_if_new
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import PoolSettings
from tests.database.servers import reopened

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
Open = Callable[[PoolSettings], Database]


def piece(product_id: str, on_hand: int = 0) -> Stock:
    return Stock(product_id=product_id, on_hand=on_hand, updated_at=NOW)


async def add(session: AsyncSession, product_id: str, qty: int = 1) -> None:
    statement = update(Stock).where(col(Stock.product_id) == product_id).values(on_hand=col(Stock.on_hand) + qty)
    assert (await session.exec(statement)).rowcount == 1


async def on_hand(database: Database) -> dict[str, int]:
    async def work(session: AsyncSession) -> dict[str, int]:
        return {row.product_id: row.on_hand for row in (await session.exec(select(Stock))).all()}

    return await database.read(work)


@pytest.fixture
async def database(delivery_database: Database) -> Database:
    """With the products a and b, of which there is nothing yet."""

    async def work(session: AsyncSession) -> None:
        for product_id in ("a", "b"):
            assert await insert_if_new(session, piece(product_id))

    await delivery_database.write(work)
    return delivery_database


@pytest.fixture
async def reopen(database: Database) -> AsyncIterator[Open]:
    """The same database with other settings."""
    opened: list[Database] = []

    def reopen(settings: PoolSettings) -> Database:
        opened.append(reopened(database, settings))
        return opened[-1]

    yield reopen
    for other in opened:
        await other.close()


@asynccontextmanager
async def locked(database: Database, product_id: str) -> AsyncGenerator[asyncio.Event]:
    """Somebody else's transaction holds a product's row until the event is set."""
    holding, release = asyncio.Event(), asyncio.Event()

    async def work(session: AsyncSession) -> None:
        await add(session, product_id, 100)
        holding.set()
        await release.wait()

    holder = asyncio.create_task(database.write(work))
    await holding.wait()
    try:
        yield release
    finally:
        release.set()
        await holder


async def test_insert_if_new_inserts_once(database: Database) -> None:
    async def work(session: AsyncSession) -> tuple[bool, bool]:
        first = await insert_if_new(session, piece("c", 1))
        second = await insert_if_new(session, piece("c", 2))
        await add(session, "c", 10)  # the transaction is still usable
        return first, second

    assert await database.write(work) == (True, False)
    assert await database.write(lambda session: insert_if_new(session, piece("c", 3))) is False
    assert (await on_hand(database))["c"] == 11


async def test_insert_if_new_waits_for_the_other_ones_outcome(database: Database) -> None:
    class Undone(Exception):
        pass

    for undone in (False, True):
        product_id = f"c-{undone}"
        inserted, asking, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def first(
            session: AsyncSession,
            product_id: str = product_id,
            inserted: asyncio.Event = inserted,
            go_on: asyncio.Event = go_on,
            undone: bool = undone,
        ) -> None:
            await insert_if_new(session, piece(product_id))
            inserted.set()
            await go_on.wait()
            if undone:
                raise Undone

        async def second(
            session: AsyncSession, product_id: str = product_id, asking: asyncio.Event = asking
        ) -> tuple[bool, Stock | None]:
            asking.set()
            return await insert_if_new(session, piece(product_id)), await session.get(Stock, product_id)

        one = asyncio.create_task(database.write(first))
        await inserted.wait()
        two = asyncio.create_task(database.write(second))
        await asking.wait()
        go_on.set()
        assert [type(error) for error in await asyncio.gather(one, return_exceptions=True) if error] == (
            [Undone] if undone else []
        )
        new, row = await two
        assert new is undone
        assert row is not None  # and what the other committed can be read


async def test_insert_if_new_hides_no_other_violation(database: Database) -> None:
    nameless = Delivery.model_construct(
        order_id="o1", product_id=None, qty=1, state="Started", started_at=None, updated_at=NOW
    )
    with pytest.raises(IntegrityError):
        await database.write(lambda session: insert_if_new(session, nameless))


async def test_an_error_takes_everything_back(database: Database) -> None:
    class Refused(Exception):
        pass

    async def work(session: AsyncSession) -> None:
        await insert_if_new(session, piece("c"))
        await add(session, "a")
        raise Refused

    with pytest.raises(Refused):
        await database.write(work)
    assert await on_hand(database) == {"a": 0, "b": 0}


async def test_a_lock_that_is_not_had_in_time_repeats_the_whole(database: Database, reopen: Open) -> None:
    hurried = reopen(PoolSettings(transaction_seconds=3, attempts=5))
    inserted: list[bool] = []
    attempts = 0
    async with locked(database, "a") as release:

        async def work(session: AsyncSession) -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 2:
                release.set()
            inserted.append(await insert_if_new(session, piece("c")))
            await add(session, "a")

        await hurried.write(work)
    assert attempts >= 2
    assert all(inserted)  # what the first attempt had inserted was taken back with it
    assert await on_hand(database) == {"a": 101, "b": 0, "c": 0}


async def test_a_lock_that_is_never_had_is_given_up(database: Database, reopen: Open) -> None:
    hurried = reopen(PoolSettings(transaction_seconds=3, attempts=2))
    attempts = 0

    async def work(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        await insert_if_new(session, piece("c"))
        await add(session, "a")

    async with locked(database, "a"):
        with pytest.raises(DatabaseUnavailable):
            await hurried.write(work)
    assert attempts == 2
    assert await on_hand(database) == {"a": 100, "b": 0}


async def test_transactions_that_lock_in_opposite_order_lose_no_work(database: Database) -> None:
    both = asyncio.Barrier(2)
    attempts: dict[str, int] = {"ab": 0, "ba": 0}
    meets = database.engine.dialect.name == "mysql"  # SQLite lets only one writer begin, so they never meet

    async def swap(order: str) -> None:
        async def work(session: AsyncSession) -> None:
            attempts[order] += 1
            await add(session, order[0])
            if meets and attempts[order] == 1:
                await both.wait()
            await add(session, order[1])

        await database.write(work)

    await asyncio.gather(swap("ab"), swap("ba"))
    assert await on_hand(database) == {"a": 2, "b": 2}
    assert sum(attempts.values()) == (3 if meets else 2)  # on MySQL one was the victim, and came again


async def test_many_transactions_on_the_same_rows_lose_no_work(database: Database) -> None:
    async def swap(order: str) -> None:
        async def work(session: AsyncSession) -> None:
            for product_id in sorted(order):
                await add(session, product_id)

        await database.write(work)

    await asyncio.gather(*(swap(order) for order in ("ab", "ba") * 20))
    assert await on_hand(database) == {"a": 40, "b": 40}


async def test_writers_that_read_first_wait_for_each_other(database: Database) -> None:
    """SQLite refuses at once to turn a reader into a writer beside another: a writer must be one from its beginning."""
    attempts = 0

    async def work(session: AsyncSession) -> None:
        nonlocal attempts
        attempts += 1
        await session.get(Stock, "b")
        await asyncio.sleep(0)
        await add(session, "a")

    await asyncio.gather(*(database.write(work) for _ in range(20)))
    assert await on_hand(database) == {"a": 20, "b": 0}
    assert attempts == 20


async def test_work_that_takes_too_long_is_given_up_whole(database: Database, reopen: Open) -> None:
    hurried = reopen(PoolSettings(transaction_seconds=1, size=1, overflow=0))

    async def work(session: AsyncSession) -> None:
        await insert_if_new(session, piece("c"))
        await asyncio.Event().wait()

    with pytest.raises(DatabaseUnavailable):
        async with asyncio.timeout(5):
            await hurried.write(work)
    assert await on_hand(database) == {"a": 0, "b": 0}
    assert await hurried.write(lambda session: insert_if_new(session, piece("c")))


async def test_waiting_for_a_connection_is_bounded(database: Database, reopen: Open) -> None:
    hurried = reopen(PoolSettings(transaction_seconds=1, size=1, overflow=0, attempts=1))
    async with hurried.engine.connect():
        with pytest.raises(DatabaseUnavailable):
            await hurried.ping()
    await hurried.ping()


@pytest.mark.parametrize("by", ["cancel", "timeout"])
async def test_what_was_cut_off_while_it_waited_for_a_lock_holds_nothing(
    by: str, database: Database, reopen: Open
) -> None:
    """The server must not go on waiting for the lost client, with the locks that it has already."""
    cut = reopen(PoolSettings(transaction_seconds=0.5 if by == "timeout" else 4, size=1, overflow=0, attempts=1))
    waits = asyncio.Event()
    mysql = database.engine.dialect.name == "mysql"

    async def work(session: AsyncSession) -> None:
        if not mysql:
            waits.set()  # SQLite lets no second writer do anything
        await insert_if_new(session, piece("c"))
        waits.set()
        await add(session, "a")

    async with locked(database, "a"):
        task = asyncio.create_task(cut.write(work))
        await waits.wait()
        if by == "cancel":
            task.cancel()
        with pytest.raises(asyncio.CancelledError if by == "cancel" else DatabaseUnavailable):
            await task
        if mysql:
            patient = reopen(PoolSettings(transaction_seconds=15))
            assert await patient.write(lambda session: insert_if_new(session, piece("c", 7)))
    await cut.ping()  # the one connection of the pool is usable
    await cut.write(lambda session: add(session, "b"))
    kept = await on_hand(database)
    assert (kept["a"], kept["b"]) == (100, 1)
    assert kept.get("c", 7) == 7


async def test_cancelled_work_leaves_nothing_and_a_usable_pool(database: Database, reopen: Open) -> None:
    small = reopen(PoolSettings(transaction_seconds=10, size=2, overflow=0))
    for number in range(20):
        inside = asyncio.Event()

        async def work(session: AsyncSession, number: int = number, inside: asyncio.Event = inside) -> None:
            await insert_if_new(session, piece("c"))
            inside.set()
            if number % 2:
                await asyncio.Event().wait()
            while True:  # cancelled in the middle of a statement
                await add(session, "a")

        task = asyncio.create_task(small.write(work))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await on_hand(small) == {"a": 0, "b": 0}
    await asyncio.gather(*(small.write(lambda session: add(session, "b")) for _ in range(10)))
    assert await on_hand(small) == {"a": 0, "b": 10}


async def test_no_cancel_is_lost_while_a_connection_is_being_made() -> None:
    """Whenever it comes. One that is lost leaves its task waiting for a server that says nothing."""
    closing = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closing.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        database = Database(f"mysql+aiomysql://goodman@{host}:{port}/shop", PoolSettings(transaction_seconds=3600))
        for number in range(1000):
            ping = asyncio.create_task(database.ping())
            asyncio.get_running_loop().call_later(number % 50 / 10_000, ping.cancel)
            done, _ = await asyncio.wait({ping}, timeout=30)
            ping.cancel()
            assert done, f"the cancel of ping {number} was lost"
        await database.close()
        closing.set()


async def test_a_database_that_is_away_is_said_to_be(database: Database) -> None:
    if database.engine.dialect.name == "sqlite":
        away = Database("sqlite+aiosqlite:////nowhere/street12/at-all.db", PoolSettings(attempts=2))
    else:
        away = reopened(database, PoolSettings(attempts=2), port=1)
    with pytest.raises(DatabaseUnavailable):
        await away.ping()
    await away.close()


async def test_opening_a_file_that_somebody_holds_keeps_nobody_else_of_the_process_waiting(tmp_path: Path) -> None:
    """On SQLite alone. The holder is one of the process: were it kept waiting, it would let go too late."""
    file = tmp_path / "held.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        holder.execute("CREATE TABLE held (a INTEGER)")
        database = Database(f"sqlite+aiosqlite:///{file}", PoolSettings(attempts=1, transaction_seconds=4))
        opening = asyncio.create_task(database.ping())
        await asyncio.wait([opening], timeout=0.1)
        assert not opening.done()
        holder.execute("COMMIT")
        await opening
    await database.close()


async def test_orders_keep_their_text_and_their_times(order_database: Database) -> None:
    at = datetime(2026, 11, 23, 8, 59, 59, 123457, tzinfo=timezone(timedelta(hours=9)))
    product = Product(product_id="차", product_name="녹차 🍵", product_price=2**40, currency="KRW", updated_at=at)
    order = Order(
        order_id="o1",
        user_id="Kim",
        product_id="차",
        product_name="녹차 🍵",
        product_price=2**40,
        qty=2,
        amount=2**41,
        currency="KRW",
        username="남궁 민수 👨‍👩‍👧",
        address="서울특별시 강남구 테헤란로 12길 🏠",
        phone_no="010-0000-0000",
        payment_method="pm_card_visa",
        order_date=at,
        claimed_until=at,
    )
    happened = OrderEvent(order_id="o1", version=1, type="OrderReceived", at=at, detail={"까닭": "품절 😢"})

    async def work(session: AsyncSession) -> None:
        for row in (product, order, happened):
            assert await insert_if_new(session, row)

    await order_database.write(work)

    async def read(session: AsyncSession) -> list[object]:
        return [
            (await session.exec(select(Product))).one(),
            (await session.exec(select(Order))).one(),
            (await session.exec(select(OrderEvent))).one(),
        ]

    assert await order_database.read(read) == [product, order, happened]


async def test_a_database_is_closed_when_the_work_under_way_has_ended(database: Database) -> None:
    begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def work(session: AsyncSession) -> None:
        await add(session, "a")
        begun.set()
        await may_go_on.wait()
        await add(session, "a")

    working = asyncio.create_task(database.write(work))
    await begun.wait()
    closing = asyncio.create_task(database.close())
    await asyncio.wait([closing], timeout=0.2)
    assert not closing.done()
    may_go_on.set()
    await closing
    await working
    assert await on_hand(database) == {"a": 2, "b": 0}
