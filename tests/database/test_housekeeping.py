"""Housekeeping on a real database: keys stand for as long as was published, then they go, in nobody's way."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import insert
from sqlmodel.ext.asyncio.session import AsyncSession
from structlog.testing import capture_logs

from services.order import housekeeping, repository
from services.order.acceptance import Acceptance
from services.order.errors import IdempotencyKeyReused
from services.order.housekeeping import Housekeeping
from services.order.tables import IdempotencyKey, Order
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from tests.database.orders import NOON, TEA, HeldClock, accept, rows
from tests.database.servers import on_mysql

KEEP = timedelta(hours=48)
MOMENT = timedelta(microseconds=1)


@pytest.fixture
def tidier(order_database: Database, clock: HeldClock) -> Housekeeping:
    return Housekeeping(order_database, keep_keys=KEEP, clock=clock)


async def put_in(database: Database, count: int, *, apart: timedelta = timedelta(seconds=1)) -> list[str]:
    """So many keys from noon on, the oldest first."""
    keys = [
        IdempotencyKey(
            user_id="u1",
            idempotency_key=f"k{number:04}",
            fingerprint="f",
            order_id=f"o{number}",
            created_at=NOON + number * apart,
        )
        for number in range(count)
    ]
    async with database.engine.begin() as connection:
        await connection.execute(insert(IdempotencyKey), [key.model_dump() for key in keys])
    return [key.idempotency_key for key in keys]


async def left(database: Database) -> Sequence[str]:
    return sorted(key.idempotency_key for key in await rows(database, IdempotencyKey))


async def until_left(database: Database, keys: Sequence[str]) -> None:
    async with asyncio.timeout(20):
        while await left(database) != keys:  # noqa: ASYNC110 (what is waited for is in the database)
            await asyncio.sleep(0.01)


async def test_a_key_stands_for_its_order_for_the_published_time_and_then_for_a_new_one(
    acceptance: Acceptance, tidier: Housekeeping, clock: HeldClock, order_database: Database
) -> None:
    first = await accept(acceptance, "k1")
    more = replace(TEA, qty=TEA.qty + 1)
    clock.now = NOON + KEEP
    await tidier.tidy()
    again = await accept(acceptance, "k1")
    assert (again.replayed, again.order.order_id) == (True, first.order.order_id)
    with pytest.raises(IdempotencyKeyReused):
        await accept(acceptance, "k1", more)
    clock.now += MOMENT
    await tidier.tidy()
    new = await accept(acceptance, "k1", more)
    assert not new.replayed
    order_ids = [order.order_id for order in await rows(order_database, Order)]
    assert sorted(order_ids) == sorted([first.order.order_id, new.order.order_id])
    assert (await accept(acceptance, "k1", more)).replayed


@pytest.mark.parametrize("expired", [0, 1, 2, 3, 4, 6, 10])
async def test_expired_keys_go_batch_by_batch_the_oldest_first(
    order_database: Database, tidier: Housekeeping, clock: HeldClock, monkeypatch: pytest.MonkeyPatch, expired: int
) -> None:
    monkeypatch.setattr(housekeeping, "_BATCH", 3)
    keys = await put_in(order_database, 12)
    clock.now = NOON + KEEP + timedelta(seconds=expired)  # the next key stands until the next microsecond
    forget, batches = repository.forget_keys, list[Sequence[str]]()

    async def noted(session: AsyncSession, *, before: datetime, limit: int) -> bool:
        before_it = await left(order_database)
        more = await forget(session, before=before, limit=limit)
        batches.append(before_it)
        return more

    monkeypatch.setattr(repository, "forget_keys", noted)
    await tidier.tidy()
    assert batches == [keys[gone:] for gone in range(0, expired + 1, 3)]
    assert await left(order_database) == keys[expired:]


async def test_keys_of_one_moment_go_together(
    order_database: Database, tidier: Housekeeping, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_BATCH", 3)
    await put_in(order_database, 10, apart=timedelta())
    clock.now = NOON + KEEP + MOMENT
    await tidier.tidy()
    assert await left(order_database) == []


async def test_several_may_tidy_at_once(
    order_database: Database, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_BATCH", 3)
    keys = await put_in(order_database, 50)
    clock.now = NOON + KEEP + timedelta(seconds=40)
    with capture_logs() as logs:
        await asyncio.gather(
            *(Housekeeping(order_database, keep_keys=KEEP, clock=clock).tidy() for _ in range(4)),
        )
    assert await left(order_database) == keys[40:]
    assert logs == []


async def test_between_two_batches_there_is_room_for_others_to_write(
    acceptance: Acceptance,
    order_database: Database,
    tidier: Housekeeping,
    clock: HeldClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "_BATCH", 3)
    monkeypatch.setattr(housekeeping, "_PAUSE_SECONDS", 3600)
    keys = await put_in(order_database, 9)
    clock.now = NOON + KEEP + timedelta(hours=1)
    tidying = asyncio.create_task(tidier.tidy())
    await until_left(order_database, keys[3:])
    async with asyncio.timeout(5):
        await accept(acceptance, "new")
    tidying.cancel()
    await asyncio.wait([tidying])
    assert await left(order_database) == [*keys[3:], "new"]


# On MySQL alone: on SQLite writers take turns.
@on_mysql
async def test_accepting_does_not_wait_for_a_batch(
    acceptance: Acceptance, order_database: Database, clock: HeldClock
) -> None:
    keys = await put_in(order_database, 20)
    clock.now = NOON + KEEP + timedelta(hours=1)
    holds, let_go = asyncio.Event(), asyncio.Event()

    async def hold(session: AsyncSession) -> None:
        await repository.forget_keys(session, before=clock.now - KEEP, limit=10)
        holds.set()
        await let_go.wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(order_database.write(hold))
        await holds.wait()
        await accept(acceptance, "new")
        let_go.set()
    assert await left(order_database) == [*keys[10:], "new"]


async def test_a_database_that_is_away_does_not_end_the_housekeeping(
    order_database: Database, tidier: Housekeeping, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_in(order_database, 3)
    clock.now = NOON + KEEP + timedelta(hours=1)
    refused_twice, refused = asyncio.Event(), list[str]()

    async def away(work: object) -> None:
        refused.append("x")
        if len(refused) == 2:
            refused_twice.set()
        raise DatabaseUnavailable("away")

    with capture_logs() as logs:
        with monkeypatch.context() as patched:
            patched.setattr(order_database, "write", away)
            running = asyncio.create_task(tidier.run(every=0.01))
            async with asyncio.timeout(20):
                await refused_twice.wait()
        await until_left(order_database, [])
        await put_in(order_database, 3)
        await until_left(order_database, [])
    running.cancel()
    await asyncio.wait([running])
    assert {log["event"] for log in logs} == {"what has expired was not all deleted"}
    assert running.cancelled()
