"""Payments on a real database: one charge an order at most, and none that stays after it was called off."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from services.order import payments, repository
from services.order.errors import AmountMismatch
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
from services.order.tables import Payment
from services.shared.database import Database
from tests.database.orders import NOON, rows


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


async def test_only_the_intent_that_was_noted_is_confirmed(till: Till) -> None:
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
