"""Signs of life of an attempt, and that nothing but the end of its worker cuts it off."""

import asyncio
from typing import Any

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import heartbeat
from activities.heartbeat import heartbeating


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


async def test_an_attempt_that_is_asked_to_stop_is_seen_to_its_end(engine: ActivityEnvironment) -> None:
    for amount in (900, -1):
        charge = Charge()
        running = asyncio.ensure_future(engine.run(charge.pay, amount))
        await charge.begun.wait()
        engine.cancel()
        await asyncio.wait([running], timeout=0.05)
        assert not running.done()
        charge.may_go_on.set()
        if amount > 0:
            assert await running == amount
        else:
            with pytest.raises(ApplicationError):
                await running
        engine = ActivityEnvironment()


async def test_a_worker_that_shuts_down_cuts_it_off(engine: ActivityEnvironment) -> None:
    charge = Charge()
    running = asyncio.ensure_future(engine.run(charge.pay, 900))
    await charge.begun.wait()
    engine.worker_shutdown()
    engine.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert charge.cut_off


async def test_the_command_and_the_answer_keep_their_types() -> None:
    definition: Any = Charge.pay
    assert definition.__temporal_activity_definition.name == "pay"
    assert definition.__temporal_activity_definition.arg_types == [int]
    assert definition.__temporal_activity_definition.ret_type is int
