"""Payments on a real database: one charge an order at most, and none that stays after it was called off."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Generic, TypeVar

import pytest
from pydantic import SecretStr
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from services.order import payments, repository
from services.order.admission import Admission
from services.order.circuit import AdmissionRules
from services.order.errors import AmountMismatch
from services.order.payments import Payments, PaymentState
from services.order.provider import (
    Charge,
    ChargePage,
    InsufficientFunds,
    Intent,
    IntentStatus,
    PaymentDeclined,
    PaymentProvider,
    PaymentVoided,
    ProviderUnavailable,
    RefundRefused,
    StripeProvider,
)
from services.order.tables import AdmissionState, Payment
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import PaymentSettings
from tests.database.orders import NOON, HeldClock, rows
from tests.payments import Dawdling, ledger_of

Hook = Callable[[], Awaitable[None]]


class FakeProvider(PaymentProvider):
    """Intents in memory, with a ledger. What is put in `before` and `after` runs around a call, and may raise."""

    def __init__(self) -> None:
        self.intents: dict[str, Intent] = {}
        self.calls: list[str] = []
        self.charged: list[int] = []
        self.refunded: list[int] = []
        self.decline: type[PaymentDeclined] | None = None
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        self.key_forgotten = False

    async def _around(self, when: dict[str, Hook], call: str) -> None:
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

    async def list_charges(self, *, since: datetime, until: datetime, after: str | None) -> ChargePage:
        raise NotImplementedError  # the reconciliation's tests ask the simulator

    async def find_charge(self, intent_id: str) -> Charge:
        raise NotImplementedError

    async def close(self) -> None: ...


P = TypeVar("P", bound=PaymentProvider)


async def lost() -> None:
    raise ProviderUnavailable("the reply was lost")


class Till(Generic[P]):
    """Payments of one order, with the provider that they go through."""

    def __init__(self, database: Database, provider: P) -> None:
        self.provider = provider
        self.clock = HeldClock()
        self.payments = Payments(database, provider, Admission(AdmissionRules(), self.clock), self.clock)
        self.database = database

    async def pay(self, payment_method: str = "pm_card_visa") -> None:
        await self.payments.pay(order_id="o1", amount=3000, currency="KRW", payment_method=payment_method)

    async def refund(self) -> bool:
        return await self.payments.refund(order_id="o1", amount=3000, currency="KRW")

    async def row(self) -> Payment:
        (payment,) = await rows(self.database, Payment)
        return payment

    async def state(self) -> str:
        return (await self.row()).state

    async def told(self) -> list[float]:
        """The seconds that each payment took that the admission was told of."""
        return [seconds for state in await rows(self.database, AdmissionState) for seconds in state.recent]

    def passing(self, seconds: float) -> Hook:
        """While the provider is asked, so much time passes."""

        async def passing() -> None:
            self.clock.now += timedelta(seconds=seconds)

        return passing


Scripted = Till[FakeProvider]


@pytest.fixture
def till(order_database: Database) -> Scripted:
    return Till(order_database, FakeProvider())


async def test_an_order_is_charged_once(till: Scripted) -> None:
    await till.pay()
    await till.pay()
    assert till.provider.calls == ["create", "confirm"]
    assert till.provider.charged == [3000]
    payment = await till.row()
    assert (payment.state, payment.amount, payment.currency, payment.intent_id) == ("Paid", 3000, "KRW", "pi_o1")


async def test_only_the_intent_that_was_noted_is_confirmed(till: Scripted) -> None:
    """Two attempts are given an intent each, and the one whose intent came first confirms it last."""
    till.provider.key_forgotten = True
    confirming, go_on = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:

        async def hold() -> None:
            confirming.set()
            await go_on.wait()

        async def let_another_go_first() -> None:
            till.provider.before["confirm"] = hold
            group.create_task(till.pay())
            await confirming.wait()

        till.provider.before["create"] = let_another_go_first
        await till.pay()
        go_on.set()
    assert len(till.provider.intents) == 2
    assert till.provider.charged == [3000]


@pytest.mark.parametrize("call", ["create", "confirm"])
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_lost_charge_is_asked_for_again(till: Scripted, call: str, side: str) -> None:
    getattr(till.provider, side)[call] = lost
    with pytest.raises(ProviderUnavailable):
        await till.pay()
    assert await till.state() == "Pending"
    await till.pay()
    assert till.provider.charged == [3000]
    assert await till.state() == "Paid"


@pytest.mark.parametrize("kind", [PaymentDeclined, InsufficientFunds])
async def test_a_decline_is_for_ever_and_owes_nothing(till: Scripted, kind: type[PaymentDeclined]) -> None:
    till.provider.decline = kind
    for _ in range(2):
        with pytest.raises(PaymentDeclined) as caught:
            await till.pay()
        assert type(caught.value) is kind
    till.provider.decline = None
    assert not await till.refund()
    assert (await till.state(), till.provider.calls) == ("Declined", ["create", "confirm", "cancel"])
    assert till.provider.intents["pi_o1"].status is IntentStatus.CANCELED


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_decline_is_noted_only_when_nothing_can_be_charged_any_more(till: Scripted, side: str) -> None:
    """Whether the intent is void is not known after the first attempt."""
    till.provider.decline = PaymentDeclined
    getattr(till.provider, side)["cancel"] = lost
    with pytest.raises(ProviderUnavailable):
        await till.pay()
    assert (await till.state(), await till.told()) == ("Pending", [])
    with pytest.raises(PaymentDeclined):
        await till.pay()
    assert (await till.state(), till.provider.charged) == ("Declined", [])


async def test_a_decline_gives_way_to_the_charge_of_an_attempt_that_overlapped(till: Scripted) -> None:
    async def charge() -> None:
        till.provider.decline = None
        await till.pay()

    till.provider.decline = PaymentDeclined
    till.provider.before["cancel"] = charge
    await till.pay()
    assert (await till.state(), till.provider.charged) == ("Paid", [3000])
    assert await till.refund()
    assert till.provider.refunded == [3000]


async def test_the_charge_that_a_decline_gives_way_to_is_of_the_orders_amount(till: Scripted) -> None:
    async def charge_too_much() -> None:
        intents = till.provider.intents
        intents["pi_o1"] = replace(intents["pi_o1"], status=IntentStatus.SUCCEEDED, amount_received=3001)

    till.provider.decline = PaymentDeclined
    till.provider.before["cancel"] = charge_too_much
    with pytest.raises(AmountMismatch):
        await till.pay()
    assert await till.refund()
    assert till.provider.refunded == [3001]


async def test_an_attempt_that_finds_its_intent_void_is_declined_with_the_one_that_was(till: Scripted) -> None:
    """The decline is not noted yet when the other one asks, and what is noted first stands for both."""

    async def overlap() -> None:
        with pytest.raises(PaymentDeclined):
            await till.pay()

    till.provider.decline = InsufficientFunds
    till.provider.after["cancel"] = overlap
    with pytest.raises(PaymentDeclined) as caught:
        await till.pay()
    assert type(caught.value) is PaymentDeclined
    assert (await till.state(), (await till.row()).decline_code) == ("Declined", "payment-declined")
    assert await till.told() == [0.0]


async def test_an_order_that_is_called_off_while_it_is_declined_is_called_off(till: Scripted) -> None:
    async def call_off() -> None:
        assert not await till.refund()

    till.provider.decline = PaymentDeclined
    till.provider.before["cancel"] = call_off
    with pytest.raises(PaymentVoided):
        await till.pay()
    assert (await till.state(), await till.told()) == ("Voided", [])


@pytest.mark.parametrize("wrong", [{"amount_received": 2999}, {"currency": "USD"}])
async def test_a_charge_of_something_else_does_not_stand(till: Scripted, wrong: dict[str, object]) -> None:
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
    assert await till.told() == []


async def test_a_charge_is_given_back_once(till: Scripted) -> None:
    await till.pay()
    assert await till.refund()
    assert await till.refund()
    assert till.provider.refunded == [3000]
    assert till.provider.calls.count("refund") == 1
    assert await till.state() == "Refunded"
    with pytest.raises(PaymentVoided):
        await till.pay()
    assert till.provider.charged == [3000]
    assert await till.told() == [0.0]


async def test_a_refund_that_is_refused_is_asked_for_again_when_somebody_says_so(till: Scripted) -> None:
    async def refuse() -> None:
        raise RefundRefused("o1: disputed")

    await till.pay()
    till.provider.before["refund"] = refuse
    with pytest.raises(RefundRefused):
        await till.refund()
    assert (await till.state(), till.provider.refunded) == ("Voiding", [])
    assert await till.refund()
    assert (await till.state(), till.provider.refunded) == ("Refunded", [3000])


async def test_a_refund_before_any_charge_leaves_a_tombstone(till: Scripted) -> None:
    assert not await till.refund()
    assert not await till.refund()
    with pytest.raises(PaymentVoided):
        await till.pay()
    assert till.provider.calls == []
    assert await till.state() == "Voided"


@pytest.mark.parametrize("call", ["create", "confirm"])
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_refund_that_comes_between_leaves_nobody_charged(till: Scripted, call: str, side: str) -> None:
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
    assert await till.told() == []
    with pytest.raises(PaymentVoided):
        await till.pay()


async def test_no_charge_is_begun_once_the_order_is_called_off(till: Scripted) -> None:
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
    till: Scripted, monkeypatch: pytest.MonkeyPatch
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
async def test_a_refund_that_broke_off_is_taken_up_again(till: Scripted, paid: bool, call: str, side: str) -> None:
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


async def test_no_transaction_is_open_while_the_provider_is_asked(till: Scripted) -> None:
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


# The admission


@pytest.mark.parametrize("decline", [None, PaymentDeclined])
async def test_the_admission_is_told_once_how_long_it_took_to_know_an_outcome(
    till: Scripted, decline: type[PaymentDeclined] | None
) -> None:
    """From the first attempt on, whatever happened in between."""

    async def pay() -> None:
        try:
            await till.pay()
        except PaymentDeclined:
            assert decline

    till.provider.before["create"] = till.passing(0.5)
    till.provider.before["confirm"] = lost
    with pytest.raises(ProviderUnavailable):
        await till.pay()
    assert await till.told() == []
    till.provider.decline = decline
    till.provider.before["confirm"] = till.passing(2)
    await pay()
    assert await till.told() == [2.5]
    till.clock.now += timedelta(hours=1)
    await pay()
    assert await till.told() == [2.5]


async def test_of_attempts_that_overlap_one_tells_the_admission(till: Scripted) -> None:
    till.provider.after["confirm"] = till.pay
    await till.pay()
    assert till.provider.calls.count("confirm") == 2
    assert (await till.state(), await till.told()) == ("Paid", [0.0])


@pytest.mark.parametrize("decline", [None, PaymentDeclined])
async def test_an_outcome_of_which_the_admission_cannot_be_told_is_not_noted_either(
    till: Scripted, decline: type[PaymentDeclined] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("the admission's row is locked")

    till.provider.decline = decline
    with monkeypatch.context() as patch:
        patch.setattr(Admission, "settled", fail)
        with pytest.raises(DatabaseUnavailable):
            await till.pay()
    assert await till.state() == "Pending"


# On the simulator's books


class Stripe(StripeProvider):
    """Stripe, with something that happens `before` or `after` it makes an intent void.

    Without `by_key`, each attempt to confirm asks under a key of its own, as it does past a stored fault.
    """

    def __init__(self, url: str, *, by_key: bool = True) -> None:
        super().__init__(PaymentSettings(url=url, key=SecretStr("sk_test_street12")))
        self._attempts = count(1)
        self._by_key = by_key
        self.before: Hook | None = None
        self.after: Hook | None = None

    async def confirm(self, *, order_id: str, intent_id: str, payment_method: str) -> Intent:
        key = order_id if self._by_key else f"{order_id}-{next(self._attempts)}"
        return await super().confirm(order_id=key, intent_id=intent_id, payment_method=payment_method)

    async def cancel_intent(self, *, order_id: str, intent_id: str) -> Intent:
        before, after, self.before, self.after = self.before, self.after, None, None
        if before is not None:
            await before()
        intent = await super().cancel_intent(order_id=order_id, intent_id=intent_id)
        if after is not None:
            await after()
        return intent


@asynccontextmanager
async def till_at(database: Database, provider: P) -> AsyncGenerator[Till[P]]:
    try:
        yield Till(database, provider)
    finally:
        await provider.close()


async def test_a_charge_that_comes_before_the_decline_is_noted_stands_on_the_books_and_in_the_row(
    order_database: Database, simulator: str
) -> None:
    async with till_at(order_database, Stripe(simulator, by_key=False)) as till:
        till.provider.before = till.pay
        await till.pay("pm_card_chargeDeclined")
        assert await till.state() == "Paid"
        assert await charged_and_refunded(simulator) == [(3000, 0)]
        assert await till.refund()
        assert await charged_and_refunded(simulator) == [(3000, 3000)]


async def test_a_charge_that_comes_after_the_decline_was_noted_is_refused(
    order_database: Database, simulator: str, dawdling: Dawdling
) -> None:
    async with till_at(order_database, Stripe(simulator, by_key=False)) as till:
        charging = asyncio.create_task(till.pay("pm_sim_slow"))
        await dawdling.begun.wait()
        with pytest.raises(InsufficientFunds):
            await till.pay("pm_card_chargeDeclinedInsufficientFunds")
        dawdling.may_end.set()
        with pytest.raises(InsufficientFunds):
            await charging
        assert (await till.state(), await till.told()) == ("Declined", [0.0])
        assert await charged_and_refunded(simulator) == []


@pytest.mark.parametrize(
    ("payment_method", "kind"),
    [
        ("pm_card_chargeDeclined", PaymentDeclined),
        ("pm_card_chargeDeclinedInsufficientFunds", InsufficientFunds),
        ("pm_card_of_nobody", PaymentDeclined),
    ],
)
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_decline_that_could_not_be_noted_is_learned_again_by_its_key(
    order_database: Database, simulator: str, payment_method: str, kind: type[PaymentDeclined], side: str
) -> None:
    """The call that makes its intent void is lost on its way there, or on its way back."""
    async with till_at(order_database, Stripe(simulator)) as till:
        setattr(till.provider, side, lost)
        with pytest.raises(ProviderUnavailable):
            await till.pay(payment_method)
        assert await till.state() == "Pending"
        with pytest.raises(PaymentDeclined) as caught:
            await till.pay(payment_method)
        assert type(caught.value) is kind
        assert ((await till.row()).state, (await till.row()).decline_code) == ("Declined", kind.code)
        assert await charged_and_refunded(simulator) == []


async def test_a_decline_that_the_provider_has_forgotten_is_known_by_its_void_intent(
    order_database: Database, simulator: str
) -> None:
    async with till_at(order_database, Stripe(simulator, by_key=False)) as till:
        till.provider.after = lost
        with pytest.raises(ProviderUnavailable):
            await till.pay("pm_card_chargeDeclined")
        with pytest.raises(PaymentDeclined):
            await till.pay("pm_card_visa")
        assert await till.state() == "Declined"
        assert await charged_and_refunded(simulator) == []


@pytest.mark.parametrize(("payment_method", "unknown"), [("pm_sim_lostReply", 1), ("pm_sim_outage", 3)])
async def test_a_charge_is_asked_for_until_its_truth_is_known(
    order_database: Database, simulator: str, payment_method: str, unknown: int
) -> None:
    async with till_at(order_database, Stripe(simulator)) as till:
        for _ in range(unknown):
            with pytest.raises(ProviderUnavailable):
                await till.pay(payment_method)
        await till.pay(payment_method)
        assert await till.state() == "Paid"
        assert await charged_and_refunded(simulator) == [(3000, 0)]


async def charged_and_refunded(url: str) -> list[tuple[int, int]]:
    return [(row["charged"], row["refunded"]) for row in await ledger_of(url)]
