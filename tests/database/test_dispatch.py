"""Dispatch on a real database: every accepted order gets its workflow, from one process at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import insert
from sqlmodel.ext.asyncio.session import AsyncSession
from structlog.testing import capture_logs

from services.order import dispatch, repository
from services.order.acceptance import Acceptance
from services.order.dispatch import Dispatcher, Inbox
from services.order.tables import Order
from services.shared.database import Database, Work
from services.shared.errors import DatabaseUnavailable
from tests.database.orders import LEASE, NOON, HeldClock, accept, rows
from tests.database.servers import on_mysql
from tests.orders import an_order


@pytest.fixture
def inbox(order_database: Database, clock: HeldClock) -> Inbox:
    return Inbox(order_database, lease=LEASE, clock=clock)


def ids(orders: Sequence[Order]) -> list[str]:
    return [order.order_id for order in orders]


def marked(orders: Sequence[Order]) -> list[str]:
    return [order.order_id for order in orders if order.started_at is not None]


async def put_in(database: Database, count: int) -> list[str]:
    """Orders that belong to nobody from the end of a lease on; their ids, in the order in which they are claimed."""
    orders = [an_order(f"o{number:04}", NOON, claimed_until=NOON + LEASE) for number in range(count)]
    async with database.engine.begin() as connection:
        await connection.execute(insert(Order), [order.model_dump() for order in orders])
    return ids(orders)


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 (what is waited for is in the database)
            await asyncio.sleep(0.01)


def all_are_marked(database: Database) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        orders = await rows(database, Order)
        return len(marked(orders)) == len(orders)

    return condition


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


async def test_orders_are_marked_together(
    inbox: Inbox, order_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_ids = await put_in(order_database, 50)
    write, transactions = order_database.write, list[str]()

    async def counted(work: Work[object]) -> object:
        transactions.append("x")
        return await write(work)

    monkeypatch.setattr(order_database, "write", counted)
    await asyncio.gather(*(inbox.mark_started(order_id) for order_id in reversed(order_ids[10:])))
    assert marked(await rows(order_database, Order)) == order_ids[10:]
    assert len(transactions) == 1


async def test_a_claimed_order_is_held_for_a_lease(inbox: Inbox, order_database: Database, clock: HeldClock) -> None:
    await put_in(order_database, 1)
    clock.now = NOON + LEASE * 2
    (claimed,) = await inbox.claim(10)
    assert claimed.claimed_until == NOON + LEASE * 3
    assert list(await rows(order_database, Order)) == [claimed]
    clock.now += LEASE / 4
    assert inbox.lease_left(claimed) == 7.5
    clock.now += LEASE
    assert inbox.lease_left(claimed) == 0


async def test_looking_for_orders_where_there_are_none_waits_for_nobody_who_writes(
    inbox: Inbox, order_database: Database
) -> None:
    async def while_somebody_writes(session: AsyncSession) -> None:
        await repository.mark_started(session, ["another"], NOON)
        assert await inbox.claim(10) == []

    async with asyncio.timeout(5):
        await order_database.write(while_somebody_writes)


async def test_side_by_side_each_order_is_claimed_once(
    order_database: Database, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_ids = await put_in(order_database, 60)
    clock.now += LEASE
    has_claimable, all_have_seen = repository.has_claimable, asyncio.Barrier(6)

    async def seen_by_all(session: AsyncSession, now: datetime) -> bool:
        found = await has_claimable(session, now)
        await all_have_seen.wait()
        return found

    monkeypatch.setattr(repository, "has_claimable", seen_by_all)
    inboxes = [Inbox(order_database, lease=LEASE, clock=clock) for _ in range(6)]
    claimed = await asyncio.gather(*(inbox.claim(10) for inbox in inboxes))
    assert sorted(order_id for orders in claimed for order_id in ids(orders)) == order_ids


# On MySQL alone: on SQLite writers take turns.
@on_mysql
async def test_side_by_side_nobody_waits_for_what_another_one_claims(
    order_database: Database, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_ids = await put_in(order_database, 60)
    clock.now += LEASE
    claim, all_have_claimed = repository.claim, asyncio.Barrier(6)

    async def with_all(session: AsyncSession, *, now: datetime, until: datetime, limit: int) -> Sequence[Order]:
        orders = await claim(session, now=now, until=until, limit=limit)
        await all_have_claimed.wait()  # nobody has committed
        return orders

    monkeypatch.setattr(repository, "claim", with_all)
    inboxes = [Inbox(order_database, lease=LEASE, clock=clock) for _ in range(6)]
    async with asyncio.timeout(10):
        claimed = await asyncio.gather(*(inbox.claim(10) for inbox in inboxes))
    assert sorted(order_id for orders in claimed for order_id in ids(orders)) == order_ids


@on_mysql
@pytest.mark.parametrize("doing", ["claiming", "marking"])
async def test_a_claim_passes_over_the_orders_that_somebody_else_is_at(
    order_database: Database, inbox: Inbox, clock: HeldClock, doing: str
) -> None:
    order_ids = await put_in(order_database, 10)
    clock.now += LEASE
    holds, let_go = asyncio.Event(), asyncio.Event()

    async def hold(session: AsyncSession) -> None:
        if doing == "claiming":
            await repository.claim(session, now=clock.now, until=clock.now + LEASE, limit=3)
        else:
            await repository.mark_started(session, order_ids[:3], clock.now)
        holds.set()
        await let_go.wait()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(order_database.write(hold))
        await holds.wait()
        assert ids(await inbox.claim(4)) == order_ids[3:7]
        assert ids(await inbox.claim(10)) == order_ids[7:]
        assert await inbox.claim(10) == []
        let_go.set()
    clock.now += LEASE
    assert sorted(ids(await inbox.claim(10))) == (order_ids if doing == "claiming" else order_ids[3:])


async def test_accepting_claiming_and_marking_at_once_do_not_get_into_each_others_way(
    acceptance: Acceptance, order_database: Database
) -> None:
    """With leases that are over at once, so that everybody is after the same orders all the time."""
    order_ids = await put_in(order_database, 60)

    async def dispatch_all() -> None:
        inbox = Inbox(order_database, lease=timedelta(), clock=lambda: NOON + LEASE)
        while orders := await inbox.claim(8):
            await asyncio.gather(*(inbox.mark_started(order.order_id) for order in orders[::3]))

    with capture_logs() as logs:
        accepted = await asyncio.gather(
            *(accept(acceptance, f"k{number}") for number in range(60)), *(dispatch_all() for _ in range(4))
        )
        await dispatch_all()
    order_ids += [one.order.order_id for one in accepted if one is not None]
    assert len(order_ids) == 120
    assert sorted(marked(await rows(order_database, Order))) == sorted(order_ids)
    assert logs == []


async def running(*services: Awaitable[None], while_: Awaitable[None]) -> None:
    """Run what runs for ever for as long as something else lasts, and see that soon nothing of it is left."""
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

    async def nothing_is_left() -> bool:
        return asyncio.all_tasks() == before

    await until(nothing_is_left)


async def test_an_offered_order_is_started_at_once(
    acceptance: Acceptance, inbox: Inbox, order_database: Database
) -> None:
    started: list[str] = []

    async def start(order: Order) -> None:
        started.append(order.order_id)

    dispatcher = Dispatcher(inbox, start)
    orders = [(await accept(acceptance, f"k{number}")).order for number in range(3)]
    assert all(dispatcher.offer(order) for order in orders)
    await running(dispatcher.serve(), while_=until(all_are_marked(order_database)))
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


@pytest.mark.parametrize(("error", "asked"), [(DatabaseUnavailable("away"), 2), (RuntimeError("broken"), 5)])
async def test_an_engine_that_is_away_is_not_asked_for_each_order(
    acceptance: Acceptance, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, error: Exception, asked: int
) -> None:
    monkeypatch.setattr(dispatch, "_PAUSE_SECONDS", 3600)
    tries = 0

    async def start(order: Order) -> None:
        nonlocal tries
        tries += 1
        raise error

    dispatcher = Dispatcher(inbox, start)
    order = (await accept(acceptance)).order
    for _ in range(5):
        dispatcher.offer(order)
    with capture_logs():
        await running(dispatcher.serve(concurrency=2), while_=asyncio.sleep(0.2))
    assert tries == asked


async def test_an_offered_order_whose_lease_has_run_out_is_left_to_the_sweep(
    acceptance: Acceptance, inbox: Inbox, clock: HeldClock, order_database: Database
) -> None:
    late = (await accept(acceptance, "late")).order
    clock.now += LEASE
    good = (await accept(acceptance, "good")).order
    started: list[str] = []

    async def start(order: Order) -> None:
        started.append(order.order_id)

    async def good_is_marked() -> bool:
        return bool(marked(await rows(order_database, Order)))

    dispatcher = Dispatcher(inbox, start)
    dispatcher.offer(late)
    dispatcher.offer(good)
    await running(dispatcher.serve(1), while_=until(good_is_marked))
    assert started == [good.order_id]
    await running(dispatcher.sweep(0.01), while_=until(all_are_marked(order_database)))
    assert started == [good.order_id, late.order_id]


async def test_a_start_that_hangs_is_given_up_with_its_lease(
    acceptance: Acceptance, inbox: Inbox, clock: HeldClock, order_database: Database
) -> None:
    hanging = (await accept(acceptance, "hanging")).order
    clock.now += LEASE - timedelta(seconds=0.05)
    good = (await accept(acceptance, "good")).order

    async def start(order: Order) -> None:
        if order.order_id == hanging.order_id:
            await asyncio.Event().wait()

    async def good_is_marked() -> bool:
        return marked(await rows(order_database, Order)) == [good.order_id]

    dispatcher = Dispatcher(inbox, start)
    dispatcher.offer(hanging)
    dispatcher.offer(good)
    with capture_logs() as logs:
        await running(dispatcher.serve(1), while_=until(good_is_marked, seconds=LEASE.total_seconds() / 2))
    assert [log["order_id"] for log in logs] == [hanging.order_id]


async def test_a_start_that_hangs_takes_one_place_of_the_sweep_and_holds_back_nobody(
    inbox: Inbox, clock: HeldClock, order_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_BATCH", 4)
    hanging, *good = await put_in(order_database, 12)
    clock.now += LEASE
    at_once, most_at_once = 0, 0

    async def start(order: Order) -> None:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        await (asyncio.Event().wait() if order.order_id == hanging else asyncio.sleep(0.01))
        at_once -= 1

    async def all_others_are_marked() -> bool:
        return marked(await rows(order_database, Order)) == good

    done = until(all_others_are_marked, seconds=LEASE.total_seconds() / 2)
    await running(Dispatcher(inbox, start).sweep(0.01), while_=done)
    assert most_at_once == 4


async def test_a_sweep_whose_places_are_taken_leaves_the_database_alone(
    inbox: Inbox, clock: HeldClock, order_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_BATCH", 2)
    await put_in(order_database, 3)
    clock.now += LEASE
    claim, claims, back = inbox.claim, list[int](), asyncio.Event()

    async def counted(limit: int) -> Sequence[Order]:
        claims.append(limit)
        return await claim(limit)

    async def start(order: Order) -> None:
        await back.wait()

    async def scenario() -> None:
        await asyncio.sleep(0.2)
        assert claims == [2]
        back.set()
        await until(all_are_marked(order_database))

    monkeypatch.setattr(inbox, "claim", counted)
    await running(Dispatcher(inbox, start).sweep(0.01), while_=scenario())


async def test_what_came_while_the_engine_hung_is_started_once_when_it_is_back(
    inbox: Inbox, clock: HeldClock, order_database: Database
) -> None:
    order_ids = await put_in(order_database, 200)
    tries, started, at_once, back = list[str](), list[str](), set[str](), False
    most_at_once = 0

    async def start(order: Order) -> None:
        nonlocal most_at_once
        if back:
            started.append(order.order_id)
            return
        tries.append(order.order_id)
        at_once.add(order.order_id)
        most_at_once = max(most_at_once, len(at_once))
        await asyncio.sleep(0.05)
        at_once.discard(order.order_id)
        raise TimeoutError

    dispatcher = Dispatcher(inbox, start)
    for order in await rows(order_database, Order):
        assert dispatcher.offer(order)

    async def scenario() -> None:
        nonlocal back

        async def some_were_tried() -> bool:
            return len(set(tries)) > 20

        async def most_were_tried() -> bool:
            return len(set(tries)) > 150

        await until(some_were_tried)
        clock.now += LEASE
        await until(most_were_tried)
        back = True
        clock.now += LEASE
        await until(all_are_marked(order_database))

    with capture_logs():
        await running(dispatcher.serve(8), dispatcher.sweep(0.01), while_=scenario())
    assert sorted(started) == order_ids
    assert most_at_once <= 8 + 32


async def test_a_database_that_is_away_does_not_end_the_loops(
    acceptance: Acceptance, inbox: Inbox, clock: HeldClock, order_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered, left = [(await accept(acceptance, key)).order for key in ("offered", "left")]
    refused: list[str] = []

    def away(name: str) -> Callable[[object], Awaitable[None]]:
        async def refuse(work: object) -> None:
            refused.append(name)
            raise DatabaseUnavailable("away")

        return refuse

    async def start(order: Order) -> None: ...

    dispatcher = Dispatcher(inbox, start)
    dispatcher.offer(offered)

    async def scenario() -> None:
        async def both_were_refused() -> bool:
            return refused.count("read") > 3 and refused.count("write") == 1

        with monkeypatch.context() as patched:
            patched.setattr(order_database, "read", away("read"))
            patched.setattr(order_database, "write", away("write"))
            await until(both_were_refused)
        clock.now += LEASE
        assert dispatcher.offer((await accept(acceptance, "now")).order)  # which nobody else may start yet
        await until(all_are_marked(order_database))

    with capture_logs() as logs:
        await running(dispatcher.serve(1), dispatcher.sweep(0.01), while_=scenario())
    assert [log["order_id"] for log in logs if "order_id" in log] == [offered.order_id]
    assert left.order_id in marked(await rows(order_database, Order))


async def test_a_sweep_takes_all_that_waits_batch_by_batch(
    inbox: Inbox, clock: HeldClock, order_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_BATCH", 2)
    await put_in(order_database, 5)
    clock.now += LEASE

    async def start(order: Order) -> None: ...

    await running(Dispatcher(inbox, start).sweep(every=3600), while_=until(all_are_marked(order_database)))
