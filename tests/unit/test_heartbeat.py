"""Signs of life of an attempt, and that nothing but the end of its worker cuts it off."""

import asyncio
from typing import Any

import pytest
from temporalio import activity
from temporalio.activity import ActivityCancellationDetails
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import heartbeat
from activities.contract import PayOrder
from activities.heartbeat import heartbeating
from activities.order import OrderActivities
from services.order.book import OrderBook
from services.order.payments import Payments
from services.shared.database import Database


class Charge:
    """An activity that takes effect when it is let to."""

    def __init__(self) -> None:
        self.begun, self.may_go_on = asyncio.Event(), asyncio.Event()
        self.cut_off = False

    @activity.defn
    @heartbeating
    async def pay(self, amount: int) -> int:
        self.begun.set()
        try:
            await self.may_go_on.wait()
        except asyncio.CancelledError:
            self.cut_off = True
            raise
        if amount < 0:
            raise ApplicationError("refused")
        return amount


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ActivityEnvironment:
    monkeypatch.setattr(heartbeat, "_SIGN_SECONDS", 0.01)
    return ActivityEnvironment()


async def test_an_attempt_gives_signs_of_life_as_long_as_it_takes(engine: ActivityEnvironment) -> None:
    charge, signs = Charge(), list[Any]()

    def note(*details: Any) -> None:
        signs.append(details)
        if len(signs) == 3:
            charge.may_go_on.set()

    engine.on_heartbeat = note
    assert await engine.run(charge.pay, 900) == 900
    assert len(signs) == 3


@pytest.mark.parametrize("amount", [900, -1])
@pytest.mark.parametrize("in_grace", [False, True], ids=["", "while the worker has its time of grace"])
async def test_an_attempt_that_is_asked_to_stop_is_seen_to_its_end(
    engine: ActivityEnvironment, amount: int, in_grace: bool
) -> None:
    charge = Charge()
    running = asyncio.ensure_future(engine.run(charge.pay, amount))
    await charge.begun.wait()
    if in_grace:
        engine.worker_shutdown()
    engine.cancel(cancellation_details=ActivityCancellationDetails(cancel_requested=True))
    await asyncio.wait([running], timeout=0.05)
    assert not running.done()
    charge.may_go_on.set()
    if amount > 0:
        assert await running == amount
    else:
        with pytest.raises(ApplicationError):
            await running


async def test_a_worker_whose_time_of_grace_is_over_cuts_it_off(engine: ActivityEnvironment) -> None:
    charge = Charge()
    running = asyncio.ensure_future(engine.run(charge.pay, 900))
    await charge.begun.wait()
    engine.cancel(cancellation_details=ActivityCancellationDetails(worker_shutdown=True))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert charge.cut_off


class Dawdling(Payments):
    """Charges and gives back when it is let to."""

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()

    async def pay(self, **_: object) -> None:
        await self.may_go_on.wait()

    async def refund(self, **_: object) -> bool:
        await self.may_go_on.wait()
        return True


@pytest.mark.parametrize("name", ["pay_order", "refund_payment"])
async def test_what_the_provider_takes_its_time_for_gives_signs_of_life(engine: ActivityEnvironment, name: str) -> None:
    payments = Dawdling()
    orders = OrderActivities(payments, OrderBook(Database("sqlite+aiosqlite:////nowhere/order.db")))
    engine.on_heartbeat = lambda *_: payments.may_go_on.set()
    command = PayOrder(order_id="o1", amount=3000, currency="KRW", payment_method="pm_card_visa")
    async with asyncio.timeout(10):
        await engine.run(getattr(orders, name), command)


async def test_the_command_and_the_answer_keep_their_types() -> None:
    definition: Any = Charge.pay
    assert definition.__temporal_activity_definition.name == "pay"
    assert definition.__temporal_activity_definition.arg_types == [int]
    assert definition.__temporal_activity_definition.ret_type is int
