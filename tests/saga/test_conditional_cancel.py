"""A cancel that depends on a version is decided by the workflow: it knows what readers were shown of the order."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory

from services.order.statuses import CancelReason
from tests.saga.conftest import Saga, assert_clean_slate, cancel, reads, under_way
from tests.saga.world import Gate, Refuse
from workflows import steps
from workflows.client import EngineUnavailable, PreconditionFailed, TooLate

CREATED, PAID, COUPON, DELIVERY = range(1, 5)  # the versions of an order that goes its way


async def held(saga: Saga, activity: str) -> Gate:
    """Start the order, and hold it at an activity."""
    gate = Gate()
    saga.world.script(activity, gate)
    await saga.start()
    await gate.reached.wait()
    return gate


def tells_of_updates(history: WorkflowHistory) -> bool:
    return any("UPDATE" in EventType.Name(event.event_type) for event in history.events)


@pytest.mark.parametrize("version", [CREATED, PAID, DELIVERY])
async def test_an_order_at_another_version_is_left_alone_and_its_history_tells_nothing(
    saga: Saga, version: int
) -> None:
    gate = await held(saga, "start_delivery")
    await saga.world.until(reads("CouponIssued"))
    with pytest.raises(PreconditionFailed):
        await cancel(saga, if_version=version)
    gate.opened.set()
    await saga.world.until(reads("DeliveryStarted"))
    assert saga.world.undone == set()
    assert not tells_of_updates(await saga.handle.fetch_history())


async def test_an_order_at_the_version_is_undone(saga: Saga) -> None:
    gate = await held(saga, "start_delivery")
    await saga.world.until(reads("CouponIssued"))
    await cancel(saga, if_version=COUPON)
    gate.opened.set()
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")
    assert tells_of_updates(await saga.handle.fetch_history())


async def test_progress_that_nobody_can_read_yet_is_no_other_version(
    saga: Saga, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody could meet the condition until it is published."""
    monkeypatch.setattr(steps, "PUBLISH_WITHIN", timedelta(hours=1))
    gate = await held(saga, "adjust_stock")
    assert saga.world.state.order_status == "OrderPlaced"
    assert len(saga.world.timeline) == PAID - 1  # the view has no entry of the coupon and the delivery
    await cancel(saga, if_version=PAID)
    gate.opened.set()
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")


async def test_a_view_that_lags_behind_is_another_version_until_it_has_caught_up(saga: Saga) -> None:
    writing, selling = Gate(), Gate()
    saga.world.script("record_status", Refuse("broken"), writing)  # in the worker itself, then by the server
    saga.world.script("adjust_stock", selling)
    await saga.start()
    await selling.reached.wait()
    await writing.reached.wait()
    await saga.recorded(lambda history: any(event.HasField("timer_fired_event_attributes") for event in history.events))
    assert saga.world.timeline == []
    for seen in (CREATED, PAID):
        with pytest.raises(PreconditionFailed):
            await cancel(saga, if_version=seen)
    writing.opened.set()
    await saga.world.until(lambda world: len(world.timeline) == DELIVERY - 1)
    await cancel(saga, if_version=DELIVERY)
    selling.opened.set()
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")


async def test_of_cancels_that_depend_on_one_version_one_is_heard(saga: Saga) -> None:
    gate = Gate()
    saga.world.script("revoke_coupon", gate)
    await under_way(saga)
    version = 1 + len(saga.world.timeline)
    answers = await asyncio.gather(*(cancel(saga, if_version=version) for _ in range(4)), return_exceptions=True)
    assert [type(answer) for answer in answers if answer is not None] == [PreconditionFailed] * 3
    await cancel(saga)  # one that depends on nothing is harmless as ever
    gate.opened.set()
    assert await saga.result() == "OrderCanceled"
    assert saga.world.events.count("OrderCanceling") == 1


async def test_an_order_that_has_ended_is_too_late_whatever_the_version(saga: Saga) -> None:
    await under_way(saga)
    await saga.engine.delivered(saga.order.order_id)
    assert await saga.result() == "Delivered"
    for version in (DELIVERY, 1 + len(saga.world.timeline)):
        with pytest.raises(TooLate):
            await cancel(saga, if_version=version)


async def test_an_order_that_has_no_workflow_yet_can_be_cancelled_soon(saga: Saga) -> None:
    with pytest.raises(EngineUnavailable):
        await cancel(saga, if_version=CREATED)
    gate = await held(saga, "pay_order")
    await cancel(saga, if_version=CREATED)
    gate.opened.set()
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")


async def test_a_cancel_of_an_earlier_release_depends_on_nothing(saga: Saga) -> None:
    """It names no version. That its history replays is seen in the end, as for all."""
    await under_way(saga)
    await saga.handle.execute_update("cancel", {"reason": CancelReason.CUSTOMER, "actor": "goodman"})  # pyright: ignore[reportUnknownMemberType]  (the SDK's type)
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")
