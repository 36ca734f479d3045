"""The saga with the order team's real payments: what the provider does decides how an order ends, and who is called."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from temporalio.testing import WorkflowEnvironment

from activities.order import OrderActivities
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.circuit import AdmissionRules
from services.order.payments import Payments
from services.order.provider import Intent, ProviderUnavailable, StripeProvider
from services.shared.database import Database
from services.shared.migrations import upgrade
from services.shared.settings import PaymentSettings
from tests.payments import ledger_of, running_simulator
from tests.saga.conftest import PAYMENT_BUDGET, Saga, assert_clean_slate, cancel, reads, running_saga, under_way
from tests.saga.world import World

AMOUNT = 9_000_000


class Overcharging(StripeProvider):
    """Says that it charged more than was asked."""

    async def confirm(self, *, order_id: str, intent_id: str, payment_method: str) -> Intent:
        intent = await super().confirm(order_id=order_id, intent_id=intent_id, payment_method=payment_method)
        return replace(intent, amount_received=intent.amount_received + 1)


class Silent(StripeProvider):
    """Never says what became of a charge, which it does not make."""

    async def confirm(self, *, order_id: str, intent_id: str, payment_method: str) -> Intent:
        raise ProviderUnavailable("no answer")


class SilentAfterCharging(StripeProvider):
    """Never says what became of a charge, which it makes."""

    async def confirm(self, *, order_id: str, intent_id: str, payment_method: str) -> Intent:
        await super().confirm(order_id=order_id, intent_id=intent_id, payment_method=payment_method)
        raise ProviderUnavailable("the reply was lost")


@dataclass
class Paying:
    """An order's saga, and the provider's books."""

    saga: Saga
    simulator: str

    async def charged_and_refunded(self) -> list[tuple[int, int]]:
        return [(row["charged"], row["refunded"]) for row in await ledger_of(self.simulator)]

    @property
    def called_a_person_about(self) -> list[dict[str, str]]:
        return [entry.detail for entry in self.saga.world.timeline if entry.type == "AttentionRaised"]


Pay = Callable[..., AbstractAsyncContextManager[Paying]]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'order.db'}"
    await asyncio.to_thread(upgrade, url, "order")
    database = Database(url)
    yield database
    await database.close()


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncGenerator[str]:
    async with running_simulator(tmp_path / "ledger.db") as url:
        yield url


@pytest.fixture
def paying(database: Database, simulator: str) -> Pay:
    @asynccontextmanager
    async def paying(
        environment: WorkflowEnvironment,
        payment_method: str = "pm_card_visa",
        kind: type[StripeProvider] = StripeProvider,
    ) -> AsyncGenerator[Paying]:
        provider = kind(PaymentSettings(url=simulator, key=SecretStr("sk_test_street12")))
        orders = OrderActivities(Payments(database, provider, Admission(AdmissionRules())), OrderBook(database))
        world = World(real={"pay_order": orders.pay_order, "refund_payment": orders.refund_payment})
        try:
            async with running_saga(environment, world, payment_method=payment_method) as saga:
                yield Paying(saga, simulator)
        finally:
            await provider.close()

    return paying


@pytest.mark.parametrize(
    ("payment_method", "code"),
    [
        ("pm_card_chargeDeclined", "payment-declined"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient-funds"),
    ],
)
async def test_a_decline_ends_the_order_and_is_told_by_its_kind(
    paying: Pay, engine: WorkflowEnvironment, payment_method: str, code: str
) -> None:
    async with paying(engine, payment_method) as shop:
        await shop.saga.start()
        assert await shop.saga.result() == "PaymentDeclined"
        assert shop.saga.world.timeline[-1].detail == {"code": code}
        assert shop.called_a_person_about == []
        assert await shop.charged_and_refunded() == []


@pytest.mark.parametrize("payment_method", ["pm_sim_lostReply", "pm_sim_outage"])
async def test_a_charge_is_asked_for_until_its_truth_is_known_and_made_once(
    paying: Pay, engine: WorkflowEnvironment, payment_method: str
) -> None:
    async with paying(engine, payment_method) as shop:
        await under_way(shop.saga)
        assert shop.saga.world.state.pay_status == "Paid"
        assert await shop.charged_and_refunded() == [(AMOUNT, 0)]


async def test_a_charge_of_another_amount_is_given_back_and_calls_a_person(
    paying: Pay, engine: WorkflowEnvironment
) -> None:
    async with paying(engine, kind=Overcharging) as shop:
        await shop.saga.start()
        assert await shop.saga.result() == "OrderCanceled"
        assert_clean_slate(shop.saga, "paymentUnknown")
        assert shop.called_a_person_about == [{"about": "pay_order", "code": "amount-mismatch"}]
        assert shop.saga.world.state.needs_attention
        assert shop.saga.world.state.pay_status == "Refunded"
        assert await shop.charged_and_refunded() == [(AMOUNT, AMOUNT)]


async def test_a_refund_that_the_provider_refuses_calls_a_person_and_keeps_the_order_open(
    paying: Pay, engine: WorkflowEnvironment
) -> None:
    async with paying(engine, "pm_sim_refundRefused") as shop:
        await under_way(shop.saga)
        await cancel(shop.saga)
        await shop.saga.world.until(lambda world: world.state.needs_attention)
        assert shop.called_a_person_about == [{"about": "refund_payment", "code": "refund-refused"}]
        assert shop.saga.world.state.order_status == "OrderCanceling"
        assert shop.saga.world.state.pay_status == "Paid"
        assert await shop.charged_and_refunded() == [(AMOUNT, 0)]


@pytest.mark.parametrize(
    ("kind", "pay_status", "books"),
    [(Silent, "NotPaid", []), (SilentAfterCharging, "Refunded", [(AMOUNT, AMOUNT)])],
)
async def test_a_payment_whose_truth_cannot_be_learned_is_voided_or_given_back_by_its_key(
    paying: Pay,
    time_machine: WorkflowEnvironment,
    kind: type[StripeProvider],
    pay_status: str,
    books: list[tuple[int, int]],
) -> None:
    async with paying(time_machine, kind=kind) as shop:
        await shop.saga.start()
        await shop.saga.let_pass(PAYMENT_BUDGET + timedelta(minutes=1))
        await shop.saga.world.until(reads("OrderCanceled"))
        assert_clean_slate(shop.saga, "paymentUnknown")
        assert shop.called_a_person_about == [{"about": "pay_order", "code": "payment-provider-unavailable"}]
        assert shop.saga.world.state.needs_attention
        assert shop.saga.world.state.pay_status == pay_status
        assert await shop.charged_and_refunded() == books
