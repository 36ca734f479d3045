"""Dispatch on a real database: every accepted order gets its workflow, from one process at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession
from structlog.testing import capture_logs

from services.order import dispatch, repository
from services.order.acceptance import Acceptance
from services.order.dispatch import Dispatcher, Inbox
from services.order.tables import Order
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from tests.database.orders import LEASE, NOON, HeldClock, accept, rows


@pytest.fixture
def inbox(order_database: Database, clock: HeldClock) -> Inbox:
    return Inbox(order_database, lease=LEASE, clock=clock)


def ids(orders: Sequence[Order]) -> list[str]:
    return [order.order_id for order in orders]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 (what is waited for is in the database)
            await asyncio.sleep(0.01)


async def test_an_order_is_claimed_when_its_lease_has_run_out(
    acceptance: Acceptance, inbox: Inbox, clock: HeldClock
) -> None:
    first = (await accept(acceptance, "k1")).order.order_id
    clock.now += timedelta(seconds=1)
    second = (await accept(acceptance, "k2")).order.order_id
    assert await inbox.claim(10) == []
    clock.now = NOON + LEASE
    assert ids(await inbox.claim(10)) == [first]
    assert await inbox.claim(10) == []
    clock.now += timedelta(seconds=5)
    assert ids(await inbox.claim(10)) == [second]
    clock.now += LEASE
    assert ids(await inbox.claim(1)) == [first]
    clock.now += LEASE * 2
    assert ids(await inbox.claim(1)) == [second]  # it has waited longer now
    await inbox.mark_started(second)
    clock.now += LEASE
    assert ids(await inbox.claim(10)) == [first]


async def test_an_order_is_marked_as_started_once(
    acceptance: Acceptance, inbox: Inbox, clock: HeldClock, order_database: Database
) -> None:
    order = (await accept(acceptance)).order
    await inbox.mark_started(order.order_id)
    clock.now += LEASE
    await inbox.mark_started(order.order_id)
    assert [row.started_at for row in await rows(order_database, Order)] == [NOON]


async def test_two_who_saw_the_same_order_do_not_both_get_it(
    acceptance: Acceptance, order_database: Database, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        await accept(acceptance, f"k{number}")
    clock.now += LEASE
    claimable, all_have_seen = repository.claimable, asyncio.Barrier(4)

    async def seen_by_all(session: AsyncSession, now: datetime, limit: int) -> Sequence[Order]:
        found = await claimable(session, now, limit)
        await all_have_seen.wait()
        return found

    monkeypatch.setattr(repository, "claimable", seen_by_all)
    # A lease of their own each, so that none of them writes what another one reads.
    inboxes = [Inbox(order_database, lease=LEASE * n, clock=clock) for n in (1, 2, 3, 4)]
    claimed = await asyncio.gather(*(inbox.claim(10) for inbox in inboxes))
    assert sorted(order_id for orders in claimed for order_id in ids(orders)) == sorted(
        ids(await rows(order_database, Order))
    )


async def test_an_order_that_was_started_since_it_was_seen_is_not_claimed(
    acceptance: Acceptance, inbox: Inbox, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await accept(acceptance)
    clock.now += LEASE
    claim = repository.claim

    async def late(session: AsyncSession, order_id: str, *, seen: datetime, until: datetime) -> bool:
        await repository.mark_started(session, order_id, clock.now)
        return await claim(session, order_id, seen=seen, until=until)

    monkeypatch.setattr(repository, "claim", late)
    assert await inbox.claim(10) == []


async def running(*services: Awaitable[None], while_: Awaitable[None]) -> None:
    """Run what runs for ever for as long as something else lasts, and see that nothing of it is left."""
    before = asyncio.all_tasks()
    tasks = [asyncio.ensure_future(service) for service in services]
    try:
        await while_
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * len(tasks)
    assert asyncio.all_tasks() == before


async def test_an_offered_order_is_started_at_once(
    acceptance: Acceptance, inbox: Inbox, order_database: Database
) -> None:
    started: list[str] = []

    async def start(order: Order) -> None:
        started.append(order.order_id)

    dispatcher = Dispatcher(inbox, start)
    orders = [(await accept(acceptance, f"k{number}")).order for number in range(3)]
    assert all(dispatcher.offer(order) for order in orders)

    async def all_marked() -> bool:
        return all(row.started_at is not None for row in await rows(order_database, Order))

    await running(dispatcher.serve(), while_=until(all_marked))
    assert sorted(started) == sorted(ids(orders))


async def test_so_many_orders_are_started_at_once_and_cancelling_ends_them(
    acceptance: Acceptance, inbox: Inbox
) -> None:
    begun = 0

    async def start(order: Order) -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    dispatcher = Dispatcher(inbox, start)
    order = (await accept(acceptance)).order
    for _ in range(5):
        dispatcher.offer(order)
    await running(dispatcher.serve(concurrency=3), while_=asyncio.sleep(0.2))
    assert begun == 3


async def test_an_offer_is_refused_when_there_is_no_room(acceptance: Acceptance, inbox: Inbox) -> None:
    async def start(order: Order) -> None: ...

    dispatcher = Dispatcher(inbox, start)
    order = (await accept(acceptance)).order
    taken = [dispatcher.offer(order) for _ in range(1100)]
    assert taken == [True] * 1000 + [False] * 100


async def test_what_fails_to_start_is_started_when_its_lease_has_run_out(
    acceptance: Acceptance, inbox: Inbox, clock: HeldClock, order_database: Database
) -> None:
    good, bad = [(await accept(acceptance, key)).order for key in ("good", "bad")]
    tries: list[str] = []

    async def start(order: Order) -> None:
        tries.append(order.order_id)
        if order.order_id == bad.order_id and tries.count(bad.order_id) < 3:
            raise RuntimeError("the engine is away")

    dispatcher = Dispatcher(inbox, start)
    dispatcher.offer(bad)
    dispatcher.offer(good)

    async def scenario() -> None:
        async def started(order: Order) -> bool:
            return any(
                row.order_id == order.order_id and row.started_at is not None
                for row in await rows(order_database, Order)
            )

        await until(lambda: started(good))
        assert not await started(bad)
        clock.now += LEASE
        await asyncio.sleep(0.3)
        assert not await started(bad)
        clock.now += LEASE
        await until(lambda: started(bad))

    with capture_logs() as logs:
        await running(dispatcher.serve(1), dispatcher.sweep(0.02), while_=scenario())
    assert [log["order_id"] for log in logs if "order_id" in log] == [bad.order_id] * 2
    assert (tries.count(bad.order_id), tries.count(good.order_id)) == (3, 1)


async def test_a_start_that_hangs_is_given_up_with_its_lease(acceptance: Acceptance, order_database: Database) -> None:
    hanging, good = [(await accept(acceptance, key)).order for key in ("hanging", "good")]
    started = asyncio.Event()

    async def start(order: Order) -> None:
        if order.order_id == hanging.order_id:
            await asyncio.Event().wait()
        started.set()

    async def is_started() -> bool:
        return started.is_set()

    dispatcher = Dispatcher(Inbox(order_database, lease=timedelta(seconds=0.05)), start)
    dispatcher.offer(hanging)
    dispatcher.offer(good)
    with capture_logs():
        await running(dispatcher.serve(1), while_=until(is_started))


async def test_a_database_that_is_away_does_not_end_the_loops(
    acceptance: Acceptance, inbox: Inbox, clock: HeldClock, order_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [(await accept(acceptance, key)).order for key in ("k1", "k2")]
    clock.now += LEASE
    read, write, refused = order_database.read, order_database.write, list[str]()

    async def away(work: object) -> None:
        refused.append("x")
        raise DatabaseUnavailable("away")

    async def start(order: Order) -> None: ...

    monkeypatch.setattr(order_database, "read", away)
    monkeypatch.setattr(order_database, "write", away)
    dispatcher = Dispatcher(inbox, start)
    dispatcher.offer(first)

    async def scenario() -> None:
        async def refused_often() -> bool:
            return len(refused) > 4

        async def all_started() -> bool:
            return all(row.started_at is not None for row in await rows(order_database, Order))

        await until(refused_often)
        monkeypatch.setattr(order_database, "read", read)
        monkeypatch.setattr(order_database, "write", write)
        dispatcher.offer(second)
        await until(all_started)

    with capture_logs():
        await running(dispatcher.serve(1), dispatcher.sweep(0.01), while_=scenario())


async def test_a_sweep_takes_all_that_waits_batch_by_batch(
    acceptance: Acceptance, inbox: Inbox, clock: HeldClock, order_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_BATCH", 2)
    for number in range(5):
        await accept(acceptance, f"k{number}")
    clock.now += LEASE

    async def start(order: Order) -> None: ...

    async def all_started() -> bool:
        return all(row.started_at is not None for row in await rows(order_database, Order))

    await running(Dispatcher(inbox, start).sweep(every=3600), while_=until(all_started))
