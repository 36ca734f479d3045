"""The order team's rules on a real database: acceptance, dispatch, payments, the order book, the catalogue."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession
from structlog.testing import capture_logs

from services.order import dispatch, payments, repository
from services.order.acceptance import Acceptance, Accepted, NewOrder
from services.order.book import OrderBook
from services.order.catalogue import Catalogue
from services.order.dispatch import Dispatcher, Inbox
from services.order.errors import AmountMismatch, IdempotencyKeyReused, OutOfStock, PriceChanged, UnknownProduct
from services.order.payments import Payments, PaymentState
from services.order.provider import (
    InsufficientFunds,
    Intent,
    IntentStatus,
    PaymentDeclined,
    PaymentProvider,
    PaymentVoided,
    ProviderUnavailable,
)
from services.order.statuses import EventType, OrderState, OrderStatus, PayStatus, TimelineEntry
from services.order.tables import IdempotencyKey, Order, OrderEvent, OrderView, Payment
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable, NotFound, ShopError

R = TypeVar("R", bound=SQLModel)

LEASE = timedelta(seconds=10)
NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
TEA = NewOrder(
    product_id="tea",
    qty=3,
    username="김하늘",
    address="서울",
    phone_no="010-0000-0000",
    payment_method="pm_card_visa",
)


class HeldClock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
async def acceptance(order_database: Database, clock: HeldClock) -> Acceptance:
    await Catalogue(order_database).put(product_id="tea", product_name="녹차", product_price=1000)
    return Acceptance(order_database, lease=LEASE, clock=clock)


async def rows(database: Database, table: type[R]) -> Sequence[R]:
    async def work(session: AsyncSession) -> Sequence[R]:
        return (await session.exec(select(table))).all()

    return await database.read(work)


async def accept(
    acceptance: Acceptance, key: str = "k1", request: NewOrder = TEA, *, user_id: str = "u1", out: bool = False
) -> Accepted:
    return await acceptance.accept(user_id=user_id, idempotency_key=key, request=request, known_out_of_stock=out)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 (what is waited for is in the database)
            await asyncio.sleep(0.01)


# The catalogue


async def test_the_catalogue_creates_and_changes_products(order_database: Database) -> None:
    catalogue = Catalogue(order_database)
    await catalogue.put(product_id="tea", product_name="녹차", product_price=1000)
    await catalogue.put(product_id="cup", product_name="잔", product_price=5000)
    await catalogue.put(product_id="tea", product_name="홍차", product_price=1200)
    await catalogue.put_if_new(product_id="cup", product_name="컵", product_price=1)
    assert [(p.product_id, p.product_name, p.product_price) for p in await catalogue.list()] == [
        ("cup", "잔", 5000),
        ("tea", "홍차", 1200),
    ]
    assert (await catalogue.get("tea")).currency == "KRW"
    with pytest.raises(UnknownProduct):
        await catalogue.get("Tea")


async def test_many_may_change_a_product_at_once(order_database: Database) -> None:
    catalogue = Catalogue(order_database)
    await asyncio.gather(
        *(catalogue.put(product_id="tea", product_name="녹차", product_price=price) for price in range(1, 21))
    )
    assert len(await catalogue.list()) == 1


# Acceptance


async def test_an_accepted_order_is_there_with_its_view_and_its_first_event(
    acceptance: Acceptance, order_database: Database
) -> None:
    accepted = await accept(acceptance)
    order = accepted.order
    assert not accepted.replayed
    assert await rows(order_database, Order) == [order]
    assert (order.user_id, order.product_name, order.product_price, order.amount) == ("u1", "녹차", 1000, 3000)
    assert (order.order_date, order.started_at, order.claimed_until) == (NOON, None, NOON + LEASE)
    reading = await OrderBook(order_database).get(order.order_id)
    view = reading.view
    assert (view.order_status, view.pay_status, view.delivery_status) == ("OrderReceived", "NotPaid", "None")
    assert (view.version, view.updated_at, view.needs_attention, view.coupon_id) == (1, NOON, False, None)
    events = await OrderBook(order_database).timeline(order.order_id)
    assert [(event.version, event.type, event.at, event.detail) for event in events] == [(1, "OrderReceived", NOON, {})]


async def test_a_repeated_request_answers_the_same_order(acceptance: Acceptance, order_database: Database) -> None:
    first = await accept(acceptance)
    await Catalogue(order_database).put(product_id="tea", product_name="녹차", product_price=9999)
    for out in (False, True):
        assert await accept(acceptance, out=out) == Accepted(order=first.order, replayed=True)


async def test_a_key_that_came_with_another_request_is_refused(acceptance: Acceptance) -> None:
    await accept(acceptance)
    others: list[NewOrder] = [
        replace(TEA, product_id="cup"),
        replace(TEA, qty=4),
        replace(TEA, username="x"),
        replace(TEA, address="x"),
        replace(TEA, phone_no="x"),
        replace(TEA, payment_method="x"),
        replace(TEA, product_price=1000),
    ]
    for other in others:
        with pytest.raises(IdempotencyKeyReused):
            await accept(acceptance, request=other)


async def test_a_key_is_its_callers_own(acceptance: Acceptance) -> None:
    mine = await accept(acceptance)
    others = [await accept(acceptance, user_id="u2"), await accept(acceptance, user_id="U1"), await accept(acceptance)]
    assert [other.replayed for other in others] == [False, False, True]
    assert len({mine.order.order_id, *(other.order.order_id for other in others)}) == 3


@pytest.mark.parametrize(
    ("request_", "out", "refusal"),
    [
        (TEA, True, OutOfStock),
        (replace(TEA, product_id="coffee"), False, UnknownProduct),
        (replace(TEA, product_price=999), False, PriceChanged),
    ],
)
async def test_a_refusal_leaves_nothing_behind(
    acceptance: Acceptance, order_database: Database, request_: NewOrder, out: bool, refusal: type[ShopError]
) -> None:
    with pytest.raises(refusal):
        await accept(acceptance, request=request_, out=out)
    for table in (IdempotencyKey, Order, OrderView, OrderEvent):
        assert await rows(order_database, table) == []
    assert not (await accept(acceptance, request=replace(TEA, product_price=1000))).replayed


async def test_many_requests_with_one_key_bring_one_order(acceptance: Acceptance, order_database: Database) -> None:
    answers = await asyncio.gather(*(accept(acceptance) for _ in range(20)))
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 19
    (order,) = await rows(order_database, Order)
    assert {answer.order.order_id for answer in answers} == {order.order_id}


async def test_an_order_whose_commit_was_not_acknowledged_is_known_as_our_own(
    acceptance: Acceptance, order_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = order_database.write

    async def twice(work: Callable[[AsyncSession], Awaitable[Accepted]]) -> Accepted:
        await write(work)
        return await write(work)

    monkeypatch.setattr(order_database, "write", twice)
    accepted = await accept(acceptance)
    assert not accepted.replayed
    assert await rows(order_database, Order) == [accepted.order]


# Dispatch


@pytest.fixture
def inbox(order_database: Database, clock: HeldClock) -> Inbox:
    return Inbox(order_database, lease=LEASE, clock=clock)


def ids(orders: Sequence[Order]) -> list[str]:
    return [order.order_id for order in orders]


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


# Payments


class FakeProvider(PaymentProvider):
    """Intents in memory, with a ledger. What is put in `before` and `after` runs around a call, and may raise."""

    def __init__(self) -> None:
        self.intents: dict[str, Intent] = {}
        self.calls: list[str] = []
        self.charged: list[int] = []
        self.refunded: list[int] = []
        self.decline: type[PaymentDeclined] | None = None
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        self.after: dict[str, Callable[[], Awaitable[None]]] = {}
        self.key_forgotten = False

    async def _around(self, when: dict[str, Callable[[], Awaitable[None]]], call: str) -> None:
        hook = when.pop(call, None)
        if hook is not None:
            await hook()

    async def create_intent(self, *, order_id: str, amount: int, currency: str) -> Intent:
        self.calls.append("create")
        await self._around(self.before, "create")
        intent_id = f"pi_{order_id}_{len(self.intents)}" if self.key_forgotten else f"pi_{order_id}"
        made = Intent(
            intent_id=intent_id,
            status=IntentStatus.REQUIRES_CONFIRMATION,
            amount=amount,
            amount_received=0,
            currency=currency,
        )
        self.intents.setdefault(intent_id, made)
        await self._around(self.after, "create")
        return made

    async def find_intent(self, intent_id: str) -> Intent:
        return self.intents[intent_id]

    async def confirm(self, *, order_id: str, intent_id: str, payment_method: str) -> Intent:
        self.calls.append("confirm")
        await self._around(self.before, "confirm")
        intent = self.intents[intent_id]
        if intent.status is IntentStatus.CANCELED:
            raise PaymentVoided(order_id)
        if self.decline is not None:
            raise self.decline(order_id)
        if intent.status is not IntentStatus.SUCCEEDED:
            self.charged.append(intent.amount)
            intent = replace(intent, status=IntentStatus.SUCCEEDED, amount_received=intent.amount)
            self.intents[intent_id] = intent
        await self._around(self.after, "confirm")
        return intent

    async def cancel_intent(self, *, order_id: str, intent_id: str) -> Intent:
        self.calls.append("cancel")
        await self._around(self.before, "cancel")
        if self.intents[intent_id].status is not IntentStatus.SUCCEEDED:
            self.intents[intent_id] = replace(self.intents[intent_id], status=IntentStatus.CANCELED)
        await self._around(self.after, "cancel")
        return self.intents[intent_id]

    async def refund(self, *, order_id: str, intent_id: str, amount: int) -> None:
        self.calls.append("refund")
        await self._around(self.before, "refund")
        if not self.refunded:
            self.refunded.append(amount)
        await self._around(self.after, "refund")

    async def close(self) -> None: ...


async def lost() -> None:
    raise ProviderUnavailable("the reply was lost")


class Till:
    """Payments of one order, with the provider that they go through."""

    def __init__(self, database: Database) -> None:
        self.provider = FakeProvider()
        self.payments = Payments(database, self.provider)
        self.database = database

    async def pay(self) -> None:
        await self.payments.pay(order_id="o1", amount=3000, currency="KRW", payment_method="pm_card_visa")

    async def refund(self) -> bool:
        return await self.payments.refund(order_id="o1", amount=3000, currency="KRW")

    async def row(self) -> Payment:
        (payment,) = await rows(self.database, Payment)
        return payment

    async def state(self) -> str:
        return (await self.row()).state


@pytest.fixture
def till(order_database: Database) -> Till:
    return Till(order_database)


async def test_an_order_is_charged_once(till: Till) -> None:
    await till.pay()
    await till.pay()
    assert till.provider.calls == ["create", "confirm"]
    assert till.provider.charged == [3000]
    payment = await till.row()
    assert (payment.state, payment.amount, payment.currency, payment.intent_id) == ("Paid", 3000, "KRW", "pi_o1")


async def test_many_attempts_at_once_charge_once(till: Till) -> None:
    await asyncio.gather(*(till.pay() for _ in range(20)))
    assert till.provider.charged == [3000]
    assert await till.state() == "Paid"


async def test_only_the_intent_that_was_noted_is_confirmed(till: Till) -> None:
    till.provider.key_forgotten = True
    await asyncio.gather(*(till.pay() for _ in range(5)))
    assert till.provider.charged == [3000]


@pytest.mark.parametrize("call", ["create", "confirm"])
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_lost_charge_is_asked_for_again(till: Till, call: str, side: str) -> None:
    getattr(till.provider, side)[call] = lost
    with pytest.raises(ProviderUnavailable):
        await till.pay()
    assert await till.state() == "Pending"
    await till.pay()
    assert till.provider.charged == [3000]
    assert await till.state() == "Paid"


@pytest.mark.parametrize("kind", [PaymentDeclined, InsufficientFunds])
async def test_a_decline_is_for_ever_and_owes_nothing(till: Till, kind: type[PaymentDeclined]) -> None:
    till.provider.decline = kind
    for _ in range(2):
        with pytest.raises(PaymentDeclined) as caught:
            await till.pay()
        assert type(caught.value) is kind
    till.provider.decline = None
    assert not await till.refund()
    assert (await till.state(), till.provider.calls) == ("Declined", ["create", "confirm"])


@pytest.mark.parametrize("wrong", [{"amount_received": 2999}, {"currency": "USD"}])
async def test_a_charge_of_something_else_does_not_stand(till: Till, wrong: dict[str, object]) -> None:
    async def alter() -> None:
        intents = till.provider.intents
        intents["pi_o1"] = replace(intents["pi_o1"], status=IntentStatus.SUCCEEDED, amount_received=3000)
        intents["pi_o1"] = replace(intents["pi_o1"], **wrong)  # pyright: ignore[reportArgumentType]

    till.provider.before["confirm"] = alter
    with pytest.raises(AmountMismatch):
        await till.pay()
    assert await till.state() != PaymentState.PAID
    assert await till.refund()
    assert till.provider.refunded == [wrong.get("amount_received", 3000)]


async def test_a_charge_is_given_back_once(till: Till) -> None:
    await till.pay()
    assert await till.refund()
    assert await till.refund()
    assert till.provider.refunded == [3000]
    assert till.provider.calls.count("refund") == 1
    assert await till.state() == "Refunded"
    with pytest.raises(PaymentVoided):
        await till.pay()
    assert till.provider.charged == [3000]


async def test_a_refund_before_any_charge_leaves_a_tombstone(till: Till) -> None:
    assert not await till.refund()
    assert not await till.refund()
    with pytest.raises(PaymentVoided):
        await till.pay()
    assert till.provider.calls == []
    assert await till.state() == "Voided"


async def test_many_refunds_at_once_give_back_once(till: Till) -> None:
    await till.pay()
    assert all(await asyncio.gather(*(till.refund() for _ in range(20))))
    assert till.provider.refunded == [3000]
    assert await till.state() == "Refunded"


@pytest.mark.parametrize("call", ["create", "confirm"])
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_refund_that_comes_between_leaves_nobody_charged(till: Till, call: str, side: str) -> None:
    """The order is called off while the provider is at work for a charge."""
    went_back: list[bool] = []

    async def call_off() -> None:
        went_back.append(await till.refund())

    getattr(till.provider, side)[call] = call_off
    with pytest.raises(PaymentVoided):
        await till.pay()
    charged = (call, side) == ("confirm", "after")
    assert went_back == [charged]
    assert till.provider.charged == till.provider.refunded == ([3000] if charged else [])
    assert await till.state() == ("Refunded" if charged else "Voided")
    with pytest.raises(PaymentVoided):
        await till.pay()


async def test_no_charge_is_begun_once_the_order_is_called_off(till: Till) -> None:
    """The order is called off, and the provider does not know it yet, while the intent is made."""

    async def call_off() -> None:
        till.provider.before["cancel"] = lost
        with pytest.raises(ProviderUnavailable):
            await till.refund()

    till.provider.before["create"] = call_off
    with pytest.raises(PaymentVoided):
        await till.pay()
    assert "confirm" not in till.provider.calls
    assert not await till.refund()


async def test_a_payment_that_begins_while_it_is_called_off_is_called_off(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_if_new, pending = (
        payments.insert_if_new,
        Payment(order_id="o1", state=PaymentState.PENDING, amount=3000, currency="KRW", updated_at=NOON),
    )

    async def just_too_late(session: AsyncSession, row: SQLModel) -> bool:
        await insert_if_new(session, pending)
        return await insert_if_new(session, row)

    monkeypatch.setattr(payments, "insert_if_new", just_too_late)
    assert not await till.refund()
    assert (await till.state(), till.provider.calls) == ("Voided", ["create", "cancel"])


@pytest.mark.parametrize("paid", [True, False])
@pytest.mark.parametrize("call", ["create", "cancel", "refund"])
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_refund_that_broke_off_is_taken_up_again(till: Till, paid: bool, call: str, side: str) -> None:
    if not paid:
        till.provider.before["create"] = lost
        with pytest.raises(ProviderUnavailable):
            await till.pay()
    else:
        await till.pay()
    getattr(till.provider, side)[call] = lost
    if call in (("cancel", "refund") if paid else ("create", "cancel")):
        with pytest.raises(ProviderUnavailable):
            await till.refund()
        assert await till.state() == "Voiding"
        with pytest.raises(PaymentVoided):
            await till.pay()
    assert await till.refund() is paid
    assert await till.refund() is paid
    assert till.provider.refunded == till.provider.charged == ([3000] if paid else [])
    assert await till.state() == ("Refunded" if paid else "Voided")


async def test_no_transaction_is_open_while_the_provider_is_asked(till: Till) -> None:
    async def write() -> None:
        async with asyncio.timeout(5):
            await till.database.write(
                lambda session: repository.move_payment(session, "o1", sources=("Nowhere",), target="Nowhere", at=NOON)
            )
            assert (await till.state()) in ("Pending", "Voiding")  # what was decided before is committed

    for call in ("create", "confirm", "cancel", "refund"):
        till.provider.before[call] = write
    await till.pay()
    await till.refund()
    assert till.provider.before == {}


# The order book


def entry(version: int, type: EventType, **detail: str) -> TimelineEntry:
    return TimelineEntry(version=version, type=type, at=NOON + timedelta(seconds=version), detail=detail)


PLACED = OrderState(order_status=OrderStatus.ORDER_PLACED, pay_status=PayStatus.PAID)
ISSUED = replace(
    PLACED, order_status=OrderStatus.COUPON_ISSUED, coupon_id="c1", coupon_kind="Bronze", coupon_use_yn="N"
)


async def test_what_is_recorded_is_read(acceptance: Acceptance, order_database: Database) -> None:
    book = OrderBook(order_database)
    order_id = (await accept(acceptance)).order.order_id
    timeline = [entry(2, EventType.ORDER_PLACED), entry(3, EventType.COUPON_ISSUED, couponId="c1")]
    for _ in range(2):
        await book.record(order_id=order_id, state=ISSUED, timeline=timeline[::-1])
    view = (await book.get(order_id)).view
    assert (view.order_status, view.pay_status, view.version) == ("CouponIssued", "Paid", 3)
    assert (view.coupon_id, view.coupon_kind, view.coupon_use_yn) == ("c1", "Bronze", "N")
    assert view.updated_at == NOON + timedelta(seconds=3)
    events = await book.timeline(order_id)
    assert [(e.version, e.type, e.detail) for e in events] == [
        (1, "OrderReceived", {}),
        (2, "OrderPlaced", {}),
        (3, "CouponIssued", {"couponId": "c1"}),
    ]
    assert [e.version for e in await book.timeline(order_id, after=2)] == [3]


async def test_a_late_record_fills_the_timeline_and_leaves_the_view(
    acceptance: Acceptance, order_database: Database
) -> None:
    book = OrderBook(order_database)
    order_id = (await accept(acceptance)).order.order_id
    await book.record(order_id=order_id, state=ISSUED, timeline=[entry(3, EventType.COUPON_ISSUED)])
    # Some of it is there already, some is not.
    late = [entry(2, EventType.ORDER_PLACED), entry(3, EventType.STOCK_ADJUSTED), entry(1, EventType.DELIVERED)]
    await book.record(order_id=order_id, state=PLACED, timeline=late)
    await book.record(order_id=order_id, state=PLACED, timeline=late[:1])
    await book.record(order_id=order_id, state=PLACED, timeline=[])
    view = (await book.get(order_id)).view
    assert (view.order_status, view.version) == ("CouponIssued", 3)
    events = await book.timeline(order_id)
    assert [e.type for e in events] == ["OrderReceived", "OrderPlaced", "CouponIssued"]


async def test_records_in_any_order_and_at_once_end_the_same(acceptance: Acceptance, order_database: Database) -> None:
    book = OrderBook(order_database)
    order_id = (await accept(acceptance)).order.order_id
    timeline = [entry(version, EventType.ATTENTION_RAISED) for version in range(2, 12)]
    records = [
        book.record(
            order_id=order_id,
            state=ISSUED if upto == len(timeline) else PLACED,
            timeline=timeline[max(0, upto - 3) : upto],
        )
        for upto in (10, 3, 7, 1, 9, 5, 2, 8, 4, 6)
    ]
    await asyncio.gather(*records)
    view = (await book.get(order_id)).view
    assert (view.version, view.order_status) == (11, "CouponIssued")
    assert [e.version for e in await book.timeline(order_id)] == list(range(1, 12))


async def test_an_order_is_shown_to_its_owner_alone(acceptance: Acceptance, order_database: Database) -> None:
    book = OrderBook(order_database)
    order = (await accept(acceptance)).order
    assert (await book.get(order.order_id, user_id="u1")).order == order
    for user_id in ("u2", "U1", ""):
        with pytest.raises(NotFound):
            await book.get(order.order_id, user_id=user_id)
    with pytest.raises(NotFound):
        await book.get("order_unknown")


async def test_orders_are_listed_newest_first_and_page_by_page(
    acceptance: Acceptance, order_database: Database
) -> None:
    book = OrderBook(order_database)
    mine = [(await accept(acceptance, f"k{number}")).order.order_id for number in range(5)]
    others = (await accept(acceptance, user_id="u2")).order.order_id
    await book.record(order_id=mine[1], state=PLACED, timeline=[entry(2, EventType.ORDER_PLACED)])
    flagged = replace(PLACED, needs_attention=True)
    await book.record(order_id=mine[3], state=flagged, timeline=[entry(2, EventType.ATTENTION_RAISED)])

    async def listed(
        *,
        user_id: str | None = None,
        order_status: str | None = None,
        needs_attention: bool | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[str]:
        found = await book.list(
            user_id=user_id, order_status=order_status, needs_attention=needs_attention, limit=limit, before=before
        )
        assert all(reading.order.order_id == reading.view.order_id for reading in found)
        return [reading.order.order_id for reading in found]

    assert await listed() == [others, *mine[::-1]]
    assert await listed(user_id="u1", limit=2) == mine[:2:-1]
    assert await listed(user_id="u1", limit=2, before=mine[3]) == [mine[2], mine[1]]
    assert await listed(order_status="OrderPlaced") == [mine[3], mine[1]]
    assert await listed(order_status="OrderPlaced", needs_attention=True) == [mine[3]]
    assert await listed(user_id="u1", needs_attention=False) == [mine[4], mine[2], mine[1], mine[0]]
    assert await listed(user_id="u3") == []
