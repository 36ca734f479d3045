"""Admission on a real database: who gets in while payments are in flight or slow, whoever else asks just then."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession
from structlog.testing import capture_logs

from services.order import repository
from services.order.acceptance import Accepted
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.catalogue import Catalogue
from services.order.circuit import MEASURED, AdmissionRules, Intake, Standing
from services.order.errors import IdempotencyKeyReused, OrderIntakePaused, OutOfStock
from services.order.repository import CallersKey
from services.order.statuses import EventType, OrderState, OrderStatus, TimelineEntry
from services.order.tables import AdmissionState, IdempotencyKey, Order, OrderEvent, OrderView
from services.shared.database import Database, Work
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import PoolSettings
from tests.database.orders import NOON, TEA, HeldClock, accept, accepting, rows
from tests.database.servers import on_mysql

RULES = AdmissionRules()
FAST, SLOW = timedelta(milliseconds=20), timedelta(seconds=2)


class Shop:
    """Processes that take orders, each with connections and rounds of its own, and the payments of what they took."""

    def __init__(self, databases: Sequence[Database], clock: HeldClock) -> None:
        self.database = databases[0]
        self.clock = clock
        self.admission = Admission(RULES, clock)
        self.book = OrderBook(self.database)
        self.databases = databases
        self.on_hand: dict[str, int] = {}
        self.processes = [accepting(database, clock, rules=RULES, on_hand=self.on_hand) for database in databases]
        self.keys = (f"key-{number}" for number in range(10_000))

    async def order(self, process: int = 0, key: str | None = None) -> Accepted:
        return await accept(self.processes[process], key or next(self.keys))

    async def everybody_orders(self, each: int = 5) -> tuple[list[Accepted], list[OrderIntakePaused]]:
        """So many customers at every process, all at once: who was taken, and who was refused."""
        answers = await asyncio.gather(
            *(self.order(process) for process in range(len(self.processes)) for _ in range(each)),
            return_exceptions=True,
        )
        taken = [answer for answer in answers if isinstance(answer, Accepted)]
        refused = [answer for answer in answers if isinstance(answer, OrderIntakePaused)]
        assert len(taken) + len(refused) == len(answers), answers
        return taken, refused

    async def moves_on(self, order: Accepted, status: OrderStatus = OrderStatus.ORDER_PLACED) -> None:
        """The order's workflow writes what became of it."""
        entry = TimelineEntry(version=2, type=EventType.ORDER_PLACED, at=self.clock())
        await self.book.record(order_id=order.order.order_id, state=OrderState(order_status=status), timeline=[entry])

    async def pays(self, order: Accepted, took: timedelta) -> None:
        """The order's payment is settled, and then its workflow says so."""
        await self.settles(order.order.order_id, took)
        await self.moves_on(order)

    async def settles(self, order_id: str, took: timedelta) -> None:
        await self.database.write(lambda session: self.admission.settled(session, order_id, took=took))

    async def slow_down(self) -> None:
        """The last payments become slow."""
        for _ in range(MEASURED):
            await self.settles("earlier", SLOW)

    def cool_down(self) -> None:
        self.clock.now += RULES.cooldown


@pytest.fixture
async def shop(order_database: Database, clock: HeldClock) -> AsyncIterator[Shop]:
    await Catalogue(order_database).put(product_id="tea", product_name="녹차", product_price=1000)
    # With its password, which a URL as text does not show.
    url = order_database.engine.url.render_as_string(hide_password=False)
    others = [Database(url, PoolSettings(transaction_seconds=30)) for _ in range(3)]
    yield Shop([order_database, *others], clock)
    for other in others:
        await other.close()


async def test_of_all_who_ask_at_once_as_many_get_in_as_payments_may_be_in_flight(shop: Shop) -> None:
    for _ in range(5):
        taken, refused = await shop.everybody_orders()
        assert len(taken) == RULES.max_pending
        assert {paused.reason for paused in refused} == {Intake.PAYMENTS_PENDING}
        assert await shop.database.read(repository.pending_payments) == RULES.max_pending
        for order in taken:
            await shop.moves_on(order)


async def test_a_place_that_becomes_free_is_taken_once(shop: Shop) -> None:
    taken, _ = await shop.everybody_orders()
    for status in (OrderStatus.ORDER_PLACED, OrderStatus.ORDER_CANCELING, OrderStatus.PAYMENT_DECLINED):
        await shop.moves_on(taken.pop(), status)
        [next_one], _ = await shop.everybody_orders()
        taken.insert(0, next_one)


async def test_the_refused_leave_nothing_behind(shop: Shop) -> None:
    taken, _ = await shop.everybody_orders()
    with pytest.raises(OrderIntakePaused) as refusal:
        await accept(shop.processes[0], "k", user_id="u2")
    assert refusal.value.retry_after_seconds == 1
    for table in (IdempotencyKey, Order, OrderView, OrderEvent):
        assert {row.order_id for row in await rows(shop.database, table)} == {one.order.order_id for one in taken}
    await shop.moves_on(taken[0])
    assert not (await accept(shop.processes[0], "k", user_id="u2")).replayed


async def test_an_order_that_was_accepted_is_answered_while_no_others_are_taken(shop: Shop) -> None:
    first = await shop.order(key="mine")
    await shop.everybody_orders()
    for process in range(4):
        again = await shop.order(process, key="mine")
        assert again == replace(first, replayed=True)
    with pytest.raises(IdempotencyKeyReused):
        await accept(shop.processes[0], "mine", request=replace(TEA, qty=1))


# On MySQL alone: on SQLite writers take turns.
@on_mysql
async def test_who_puts_in_the_same_keys_waits_one_way_round(shop: Shop) -> None:
    """Another one puts in `a` and then `b`, while `b` and `a` have come here, and then takes them back."""
    holds, may_go_on = asyncio.Event(), asyncio.Event()

    class TakenBack(Exception): ...

    async def put_in(session: AsyncSession, key: str) -> None:
        row = IdempotencyKey(user_id="u1", idempotency_key=key, fingerprint="f", order_id=key, created_at=NOON)
        await repository.add_rows(session, IdempotencyKey, [row.model_dump()])

    async def both(session: AsyncSession) -> None:
        await put_in(session, "a")
        holds.set()
        await may_go_on.wait()
        await put_in(session, "b")
        raise TakenBack

    with capture_logs() as logs:
        other = asyncio.create_task(shop.database.write(both))
        await holds.wait()
        here = [asyncio.create_task(shop.order(key=key)) for key in ("b", "a")]
        await asyncio.wait(here, timeout=0.5)
        may_go_on.set()
        with pytest.raises(TakenBack):
            await other
        assert not any(answer.replayed for answer in await asyncio.gather(*here))
    assert logs == []


async def test_slow_payments_close_the_door_until_one_trial_was_fast(shop: Shop) -> None:
    await shop.slow_down()
    taken, refused = await shop.everybody_orders()
    assert not taken
    assert {(paused.reason, paused.retry_after_seconds) for paused in refused} == {(Intake.PAYMENTS_SLOW, 5)}

    shop.cool_down()
    [trial], refused = await shop.everybody_orders()
    assert {paused.reason for paused in refused} == {Intake.PAYMENTS_SLOW}
    shop.cool_down()
    assert (await shop.everybody_orders())[0] == []

    await shop.pays(trial, SLOW)
    assert (await shop.everybody_orders())[0] == []
    shop.cool_down()
    [trial], _ = await shop.everybody_orders()
    await shop.pays(trial, FAST)
    assert len((await shop.everybody_orders())[0]) == RULES.max_pending


async def test_a_trial_that_ends_without_an_outcome_makes_room_for_another(shop: Shop) -> None:
    await shop.slow_down()
    shop.cool_down()
    [trial], _ = await shop.everybody_orders()
    await shop.moves_on(trial, OrderStatus.ORDER_CANCELING)
    [another], _ = await shop.everybody_orders()
    await shop.settles(trial.order.order_id, FAST)  # too late to tell anything
    assert (await shop.everybody_orders())[0] == []
    await shop.pays(another, FAST)
    assert len((await shop.everybody_orders())[0]) == RULES.max_pending


async def test_a_trial_waits_for_a_place(shop: Shop) -> None:
    taken, _ = await shop.everybody_orders()
    await shop.slow_down()
    shop.cool_down()
    assert (await shop.everybody_orders())[0] == []
    await shop.moves_on(taken[0])
    assert len((await shop.everybody_orders())[0]) == 1


async def test_who_is_let_in_holds_a_place_until_the_order_is_in(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    write, writing, may_write = shop.database.write, asyncio.Event(), asyncio.Event()

    async def held(work: Work[Any]) -> Any:
        writing.set()
        await may_write.wait()
        return await write(work)

    monkeypatch.setattr(shop.database, "write", held)
    first = [asyncio.create_task(shop.order()) for _ in range(RULES.max_pending)]
    await writing.wait()
    async with asyncio.timeout(10):
        with pytest.raises(OrderIntakePaused) as refusal:
            await shop.order()
    assert refusal.value.reason == Intake.PAYMENTS_PENDING
    may_write.set()
    assert len(await asyncio.gather(*first)) == RULES.max_pending


async def test_payments_that_are_settled_at_once_all_count(shop: Shop) -> None:
    await asyncio.gather(*(shop.settles(f"order-{number}", SLOW) for number in range(MEASURED)))
    [state] = await rows(shop.database, AdmissionState)
    assert len(state.recent) == MEASURED
    assert state.open_since == NOON


async def test_of_one_key_at_every_process_at_once_one_order_comes(shop: Shop) -> None:
    for number in range(5):
        answers = await asyncio.gather(
            *(shop.order(process, f"one-{number}") for process in range(4) for _ in range(5))
        )
        assert len({answer.order.order_id for answer in answers}) == 1
        assert [answer.replayed for answer in answers].count(False) == 1
        await shop.moves_on(answers[0])


async def test_a_key_that_comes_twice_at_once_is_taken_where_its_first_one_took_the_last_place(shop: Shop) -> None:
    keys = [f"twice-{number}" for number in range(RULES.max_pending)]
    answers = await asyncio.gather(*(shop.order(key=key) for key in (*keys, *keys)))
    assert len({answer.order.order_id for answer in answers}) == RULES.max_pending
    assert [answer.replayed for answer in answers].count(True) == RULES.max_pending


async def test_who_is_overtaken_between_look_and_transaction_looks_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_have_looked, looks, connected = asyncio.Barrier(4), count(), list[object]()
    orders_of_keys = repository.orders_of_keys

    async def seen_by_all(session: AsyncSession, keys: Collection[CallersKey]) -> Any:
        found = await orders_of_keys(session, keys)
        if next(looks) < 4:
            await all_have_looked.wait()
        return found

    monkeypatch.setattr(repository, "orders_of_keys", seen_by_all)
    for database in shop.databases:
        await database.ping()
        event.listen(database.engine.sync_engine, "connect", lambda *_: connected.append(None))
    answers = await asyncio.gather(*(shop.order(process, "one") for process in range(4)))
    assert sorted(answer.replayed for answer in answers) == [False, True, True, True]
    assert not connected  # being overtaken costs nobody their connection


async def test_an_order_that_takes_the_last_place_during_a_look_is_known_by_its_key(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(RULES.max_pending - 1):
        await shop.order()
    look, orders_of_keys, first = Admission.look, repository.orders_of_keys, list[Accepted]()

    async def by_another_process() -> None:
        monkeypatch.undo()
        if not first:
            first.append(await shop.order(1, "mine"))

    async def standing(self: Admission, session: AsyncSession) -> Standing:
        found = await look(self, session)
        await by_another_process()
        return found

    async def known(session: AsyncSession, keys: Collection[repository.CallersKey]) -> Any:
        found = await orders_of_keys(session, keys)
        await by_another_process()
        return found

    monkeypatch.setattr(Admission, "look", standing)
    monkeypatch.setattr(repository, "orders_of_keys", known)
    again = await shop.order(0, "mine")
    assert again == replace(first[0], replayed=True)


async def test_a_place_is_given_back_by_who_leaves(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, may_end = asyncio.Event(), asyncio.Event()

    async def lost(_: object) -> None:
        writing.set()
        await may_end.wait()
        raise DatabaseUnavailable("lost")

    with monkeypatch.context() as patch:
        patch.setattr(shop.database, "write", lost)
        leaving = asyncio.create_task(shop.order(key="leaves"))
        await writing.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        may_end.set()
        await asyncio.sleep(0)
    taken, _ = await shop.everybody_orders()
    assert len(taken) == RULES.max_pending


async def test_what_is_sold_out_keeps_nobody_from_ordering_what_is_not(shop: Shop) -> None:
    await Catalogue(shop.database).put(product_id="cup", product_name="잔", product_price=1000)
    shop.on_hand["tea"] = 0
    cup = replace(TEA, product_id="cup")
    for number in range(5):
        answers = await asyncio.gather(
            *(accept(shop.processes[0], f"tea-{number}-{place}") for place in range(20)),
            *(accept(shop.processes[0], f"cup-{number}-{place}", request=cup) for place in range(RULES.max_pending)),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [OutOfStock] * 20 + [Accepted] * RULES.max_pending
        for answer in answers:
            if isinstance(answer, Accepted):
                await shop.moves_on(answer)


async def test_who_is_in_is_told_so_though_the_database_goes_away_for_those_behind(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, attempts = shop.database.write, count(1)

    async def goes_away(work: Work[Any]) -> Any:
        if next(attempts) == 4:
            raise DatabaseUnavailable("away")
        return await write(work)

    monkeypatch.setattr(shop.database, "write", goes_away)
    refused = replace(TEA, qty=0)  # so that they are put in one by one
    answers = await asyncio.gather(
        *(accept(shop.processes[0], key, request=refused if key == "b" else TEA) for key in "abc"),
        return_exceptions=True,
    )
    assert isinstance(answers[0], Accepted)
    assert isinstance(answers[1], DBAPIError)
    assert isinstance(answers[2], DatabaseUnavailable)


async def test_of_one_key_the_first_alone_is_put_in(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    write, transactions = shop.database.write, list[str]()

    async def counted(work: Work[object]) -> object:
        transactions.append("x")
        return await write(work)

    monkeypatch.setattr(shop.database, "write", counted)
    answers = await asyncio.gather(*(shop.order(key="one") for _ in range(20)))
    assert [answer.replayed for answer in answers].count(False) == 1
    assert transactions == ["x"]


async def test_an_order_that_cannot_be_put_in_does_not_take_the_others_with_it(shop: Shop) -> None:
    process = shop.processes[0]
    answers = await asyncio.gather(
        accept(process, "a"),
        accept(process, "b", request=replace(TEA, qty=0)),
        accept(process, "c"),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers if isinstance(answer, Accepted)] == [Accepted] * 2
    assert isinstance(answers[1], DBAPIError)
    assert len(await rows(shop.database, Order)) == 2


async def test_an_operator_reads_why_no_orders_are_taken_and_since_when(shop: Shop) -> None:
    report = await shop.admission.report(shop.database)
    assert (report.standing.intake, report.since, report.standing.oldest) == (Intake.OPEN, None, None)

    first = await shop.order()
    for seconds in (1, 2):
        shop.clock.now = NOON + timedelta(seconds=seconds)
        await shop.order()
    shop.clock.now = NOON + timedelta(seconds=42)
    report = await shop.admission.report(shop.database)
    assert (report.standing.intake, report.since) == (Intake.PAYMENTS_PENDING, NOON + timedelta(seconds=2))
    assert report.standing.pending == 3
    oldest = report.standing.oldest
    assert oldest is not None
    assert (oldest.order_id, oldest.since) == (first.order.order_id, NOON)
    assert report.standing.retry_after_seconds == 42

    opened = shop.clock.now
    await shop.slow_down()
    shop.clock.now += timedelta(minutes=1)
    report = await shop.admission.report(shop.database)
    assert (report.standing.intake, report.since) == (Intake.PAYMENTS_SLOW, opened)
