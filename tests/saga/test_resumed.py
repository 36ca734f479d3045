"""An order whose workflow is gone, because somebody terminated it or the engine lost it, is taken up again."""

import asyncio

import pytest
from temporalio import workflow
from temporalio.client import WorkflowExecutionStatus
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.replay.histories import story
from tests.saga.conftest import Saga, assert_clean_slate, cancel, reads, under_way
from tests.saga.test_operators import FLAG
from tests.saga.world import Fail, Gate, Refuse
from workflows.client import EngineUnavailable, NotDeliverable, TooLate
from workflows.journal import CANCELING_SINCE
from workflows.messages import PlaceOrder, Resumed
from workflows.reconciling import EngineBooks
from workflows.steps import PAY_ORDER, SAGA

ALL = {step.do for step in SAGA}
STAGES = [step.do for step in SAGA]


def as_it_stands(saga: Saga, *, undo: bool) -> Resumed:
    """What the view and the timeline tell."""
    timeline = saga.world.timeline
    done = [entry.type for entry in timeline]
    skipped = [entry.detail["undo"] for entry in timeline if entry.type == "CompensationSkipped"]
    return Resumed(version=1 + len(done), state=saga.world.state, done=done, skipped=skipped, undo=undo)


async def terminated_at(saga: Saga, stage: str, *, late: bool) -> None:
    """Its workflow ends while a team is busy with a step, which takes effect all the same if it is `late`."""
    gate = Gate(late=late, then=None if late else Refuse("cut off"))
    saga.world.script(stage, gate)
    await saga.start()
    await gate.reached.wait()
    before = STAGES.index(stage)
    if before:  # the worker writes it beside the next step
        await saga.world.until(lambda world: len(world.timeline) >= 1)
    await saga.handle.terminate("by mistake")
    gate.opened.set()
    await gate.left.wait()


@pytest.mark.parametrize("late", [False, True], ids=["before the effect", "after the effect"])
@pytest.mark.parametrize("stage", STAGES)
async def test_what_a_terminated_workflow_left_behind_is_undone(saga: Saga, stage: str, late: bool) -> None:
    await terminated_at(saga, stage, late=late)
    await saga.engine.resume(saga.order, as_it_stands(saga, undo=True))
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "operator")
    assert saga.world.repeated == set()


@pytest.mark.parametrize("late", [False, True], ids=["before the effect", "after the effect"])
@pytest.mark.parametrize("stage", STAGES)
async def test_an_order_that_the_engine_lost_goes_on_where_it_stood(saga: Saga, stage: str, late: bool) -> None:
    await terminated_at(saga, stage, late=late)
    resumed = as_it_stands(saga, undo=False)
    await saga.engine.resume(saga.order, resumed)
    await saga.world.until(reads("DeliveryStarted"))
    assert saga.world.standing == ALL
    assert saga.world.repeated == set()
    assert len(saga.world.events) == len(set(saga.world.events)), "nothing is told twice"
    for step in SAGA:
        if step.done in resumed.done and step is not PAY_ORDER:
            assert saga.world.calls.count(step.do) == 1, "what is known to be done is not asked for again"
    await saga.engine.delivered(saga.order.order_id)
    assert await saga.result() == "Delivered"


async def test_an_order_under_way_that_is_terminated_is_undone(saga: Saga) -> None:
    await under_way(saga)
    await saga.handle.terminate()
    await saga.engine.resume(saga.order, as_it_stands(saga, undo=True))
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "operator")


async def called_off_unwritten(saga: Saga) -> Resumed:
    """It is undone while nothing can be written, and its workflow is gone; how it reads."""
    await under_way(saga)
    before = as_it_stands(saga, undo=False)
    saga.world.script("record_status", *[Fail()] * 1000)
    await cancel(saga)
    async with saga.patient():
        while saga.world.standing:  # noqa: ASYNC110  (nothing is written that could be awaited)
            await asyncio.sleep(0.02)
    await saga.handle.terminate()
    saga.world.recover("record_status")
    return before


async def test_an_order_that_was_called_off_and_nobody_wrote_it_down_does_not_go_on(saga: Saga) -> None:
    """The database was away when it was undone, and then the engine lost it: its payment still tells."""
    await saga.engine.resume(saga.order, await called_off_unwritten(saga))
    assert await saga.result() == "OrderCanceled"
    assert saga.world.standing == set()
    assert saga.world.state.needs_attention, "a person is told"


async def test_an_order_that_turns_out_to_be_called_off_is_not_delivered_meanwhile(saga: Saga) -> None:
    before = await called_off_unwritten(saga)
    asking = Gate()
    saga.world.script("pay_order", asking)
    await saga.engine.resume(saga.order, before)
    await asking.reached.wait()
    arriving = asyncio.create_task(saga.engine.delivered(saga.order.order_id))
    await asyncio.wait([arriving], timeout=0.5)  # for it to come to the workflow; nothing tells of that
    asking.opened.set()
    with pytest.raises(NotDeliverable):
        await arriving
    assert await saga.result() == "OrderCanceled"
    assert saga.world.state.cancel_reason == "paymentUnknown"


@pytest.mark.parametrize("late", [False, True], ids=["before the effect", "after the effect"])
async def test_a_cancel_undoes_also_what_was_under_way_when_the_engine_lost_the_order(saga: Saga, late: bool) -> None:
    """It comes before the new workflow is there again, so nobody but the delivery team knows of the delivery."""
    await terminated_at(saga, "start_delivery", late=late)
    resumed = as_it_stands(saga, undo=False)
    assert "DeliveryStarted" not in resumed.done
    await saga.go("marketing")
    await saga.engine.resume(saga.order, resumed)
    await saga.recorded(lambda history: "scheduled issue_coupon" in story(history))
    await cancel(saga)
    await saga.come("marketing")
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")
    assert saga.world.tombstones == ALL, "a straggler is refused"


@pytest.mark.parametrize("undo", [True, False])
async def test_an_order_that_was_being_cancelled_is_undone_to_its_end(saga: Saga, undo: bool) -> None:
    gate = Gate()
    saga.world.script("cancel_delivery", gate)
    await under_way(saga)
    await cancel(saga)
    await gate.reached.wait()
    await saga.world.until(lambda world: "CouponRevoked" in world.events)
    await saga.handle.terminate()
    gate.opened.set()
    await gate.left.wait()
    await saga.engine.resume(saga.order, as_it_stands(saga, undo=undo))
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")
    assert saga.world.events.count("OrderCanceling") == saga.world.events.count("CouponRevoked") == 1


async def test_a_stuck_order_is_still_flagged_when_it_is_taken_up(saga: Saga) -> None:
    saga.world.script("refund_payment", Refuse("refused"))
    await under_way(saga)
    await cancel(saga)
    await saga.world.until(lambda world: world.state.needs_attention and world.standing == {"pay_order"})
    await saga.handle.terminate()
    await saga.engine.resume(saga.order, as_it_stands(saga, undo=True))
    assert await saga.result() == "OrderCanceled"
    assert saga.world.state.needs_attention
    assert await saga.over() == "OrderCanceled"
    assert_clean_slate_but_cleared(saga)


@pytest.mark.parametrize("end", ["Delivered", "OrderCanceled"])
async def test_an_order_that_has_ended_and_waits_for_a_person_can_still_be_cleared(saga: Saga, end: str) -> None:
    await under_way(saga)
    await saga.engine.flag(saga.order, as_it_stands(saga, undo=False), FLAG)
    await (saga.engine.delivered(saga.order.order_id) if end == "Delivered" else cancel(saga))
    await saga.world.until(reads(end))
    await saga.handle.terminate()
    standing = saga.world.standing
    with pytest.raises(EngineUnavailable):
        await saga.engine.clear_attention(saga.order.order_id, actor="kim", reason="seen to")
    await saga.engine.resume(saga.order, as_it_stands(saga, undo=True))
    assert await saga.over() == end
    assert not saga.world.state.needs_attention
    assert saga.world.standing == standing


async def test_a_coupon_that_an_operator_let_be_is_not_revoked_when_its_order_is_flagged(saga: Saga) -> None:
    await saga.go("marketing")
    await saga.start()
    await saga.world.until(reads("OrderPlaced"))
    await saga.engine.waive_coupon(saga.order.order_id, actor="kim", reason="away")
    await saga.world.until(reads("DeliveryStarted"))
    saga.world.script("revoke_coupon", Refuse("refused"))
    await saga.come("marketing")
    await saga.world.until(lambda world: world.state.needs_attention)
    await saga.engine.settle(saga.order.order_id, step="revoke_coupon", action="skip", actor="kim", reason="let it be")
    await saga.engine.delivered(saga.order.order_id)
    async with saga.patient():
        assert await saga.handle.result() == "Delivered"
    await saga.engine.flag(saga.order, as_it_stands(saga, undo=False), FLAG)
    assert await saga.over() == "Delivered"
    assert saga.world.calls.count("revoke_coupon") == 1


def assert_clean_slate_but_cleared(saga: Saga) -> None:
    assert saga.world.standing == set()
    assert not saga.world.state.needs_attention


async def test_one_without_coupon_goes_on_without(saga: Saga) -> None:
    await saga.go("marketing")
    await saga.start()
    await saga.world.until(reads("OrderPlaced"))
    await saga.engine.waive_coupon(saga.order.order_id, actor="kim", reason="away")
    await saga.world.until(reads("DeliveryStarted"))
    await saga.handle.terminate()
    await saga.engine.resume(saga.order, as_it_stands(saga, undo=False))
    await saga.come("marketing")
    await saga.engine.delivered(saga.order.order_id)
    assert await saga.result() == "Delivered"
    assert saga.world.standing == ALL - {"issue_coupon"}
    assert "issue_coupon" in saga.world.tombstones


async def test_what_an_operator_did_without_is_not_undone_after_all(saga: Saga) -> None:
    """They gave the money back by other means."""
    saga.world.script("refund_payment", Refuse("refused"))
    await under_way(saga)
    await saga.go("marketing")
    await cancel(saga)
    await saga.world.until(lambda world: world.state.needs_attention)
    await saga.engine.settle(
        saga.order.order_id, step="refund_payment", action="skip", actor="kim", reason="by bank transfer"
    )
    await saga.world.until(lambda world: "CompensationSkipped" in world.events)
    asked = saga.world.calls.count("refund_payment")
    await saga.handle.terminate()
    await saga.engine.resume(saga.order, as_it_stands(saga, undo=True))
    await saga.come("marketing")
    assert await saga.result() == "OrderCanceled"
    assert saga.world.calls.count("refund_payment") == asked
    assert saga.world.standing == {"pay_order"}


@workflow.defn(name="OrderWorkflow")
class AnotherRelease:
    """Goes a way that no release of today goes."""

    @workflow.run
    async def run(self, _: PlaceOrder) -> str:
        await workflow.sleep(0.01)
        await workflow.sleep(3600)
        return ""


async def test_one_whose_history_no_worker_can_read_any_more_is_undone_from_what_its_view_tells(saga: Saga) -> None:
    await saga.go("workflows")
    async with Worker(
        saga.client, task_queue="order", workflows=[AnotherRelease], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        await saga.start()
        await saga.recorded(lambda history: story(history).count("timer started") == 2)
        await saga.handle.terminate()
    await saga.come("workflows")
    assert await EngineBooks(saga.client, saga.engine).journal(saga.order.order_id) is None
    await saga.engine.resume(saga.order, as_it_stands(saga, undo=True))
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "operator")


@pytest.mark.parametrize("arrived", [False, True], ids=["under way", "delivered"])
async def test_a_waived_coupon_that_was_issued_all_the_same_is_still_revoked(saga: Saga, arrived: bool) -> None:
    gate = Gate()
    saga.world.script("issue_coupon", gate)
    await saga.start()
    await gate.reached.wait()
    revoking = Gate(then=Fail())
    saga.world.script("revoke_coupon", revoking)
    await saga.engine.waive_coupon(saga.order.order_id, actor="kim", reason="away")
    gate.opened.set()
    await saga.world.until(reads("DeliveryStarted"))
    if arrived:
        await saga.engine.delivered(saga.order.order_id)
        await saga.world.until(reads("Delivered"))
    await saga.handle.terminate()
    revoking.opened.set()
    await saga.engine.resume(saga.order, as_it_stands(saga, undo=False))
    if not arrived:
        await saga.engine.delivered(saga.order.order_id)
    async with saga.patient():
        assert await saga.handle.result() == "Delivered"
    assert saga.world.standing == ALL - {"issue_coupon"}


async def test_an_order_that_is_being_undone_is_found_by_since_when(saga: Saga) -> None:
    await under_way(saga)
    await saga.go("marketing")
    await cancel(saga)
    await saga.world.until(reads("OrderCanceling"))
    await saga.handle.terminate()
    await saga.engine.resume(saga.order, as_it_stands(saga, undo=True))
    assert CANCELING_SINCE in (await saga.handle.describe()).typed_search_attributes
    await saga.come("marketing")
    assert await saga.result() == "OrderCanceled"


async def test_an_order_that_somebody_terminated_is_not_too_late_for_anything(saga: Saga) -> None:
    await under_way(saga)
    await saga.handle.terminate()
    order_id = saga.order.order_id
    for asking in (
        cancel(saga),
        saga.engine.clear_attention(order_id, actor="kim", reason="seen to"),
        saga.engine.flag(saga.order, as_it_stands(saga, undo=False), FLAG),
    ):
        with pytest.raises(EngineUnavailable):
            await asking
    assert (await saga.handle.describe()).status == WorkflowExecutionStatus.TERMINATED, "a flag resumes nothing"


async def test_an_order_that_runs_or_has_come_to_its_own_end_is_left_alone(saga: Saga) -> None:
    await under_way(saga)
    early = as_it_stands(saga, undo=True)
    await saga.engine.resume(saga.order, early)
    assert (await saga.handle.describe()).status == WorkflowExecutionStatus.RUNNING
    assert "OrderCanceling" not in saga.world.events
    await saga.engine.delivered(saga.order.order_id)
    assert await saga.result() == "Delivered"
    async with saga.patient():
        await saga.handle.result()
    await saga.engine.resume(saga.order, early)
    assert (await saga.handle.describe()).status == WorkflowExecutionStatus.COMPLETED
    with pytest.raises(TooLate):  # it was read a moment before it ended
        await saga.engine.flag(saga.order, early, FLAG)


@pytest.mark.parametrize("end", ["Delivered", "OrderCanceled"])
async def test_an_order_that_has_ended_is_taken_up_to_be_flagged_until_it_is_cleared(saga: Saga, end: str) -> None:
    await under_way(saga)
    await (saga.engine.delivered(saga.order.order_id) if end == "Delivered" else cancel(saga))
    async with saga.patient():
        assert await saga.handle.result() == end
    standing, calls = saga.world.standing, [*saga.world.calls]
    await saga.engine.flag(saga.order, as_it_stands(saga, undo=False), FLAG)
    await saga.world.until(lambda world: world.state.needs_attention)
    assert saga.world.state.order_status == end
    assert (await saga.handle.describe()).status == WorkflowExecutionStatus.RUNNING
    assert await saga.over() == end
    assert saga.world.standing == standing
    done_again = {name for name in saga.world.calls[len(calls) :] if name not in ("record_status", "take_turn")}
    assert done_again <= {"complete_delivery"}, "nothing is done or undone for it"


async def test_a_workflow_tells_its_whole_journal_also_after_its_end(saga: Saga) -> None:
    await under_way(saga)
    await saga.world.until(lambda world: len(world.timeline) == 4)
    told = await saga.engine.journal(saga.order.order_id)
    assert (told.state, told.timeline) == (saga.world.state, saga.world.timeline)
    await cancel(saga)
    async with saga.patient():
        await saga.handle.result()
    told = await saga.engine.journal(saga.order.order_id)
    assert (told.state, told.timeline) == (saga.world.state, saga.world.timeline)
    assert told.state.order_status == "OrderCanceled"
