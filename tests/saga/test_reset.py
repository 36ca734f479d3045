"""An order that an operator reset to where it had not done yet what it has done."""

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest

from tests.replay.histories import patches, story
from tests.saga.conftest import Saga, assert_clean_slate, cancel, reads, under_way
from tests.saga.test_resumed import ALL

PATCH = "reset-orders-undo-all"


async def reset_before(saga: Saga, activity: str) -> None:
    """Reset it to the task that asked for the activity, which is then done once more."""
    done = 0
    for event in (await saga.handle.fetch_history()).events:
        if event.activity_task_scheduled_event_attributes.activity_type.name == activity:
            break
        if event.HasField("workflow_task_completed_event_attributes"):
            done = event.event_id
    await saga.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=saga.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=saga.order.order_id),
            workflow_task_finish_event_id=done,
            request_id=f"before {activity}",
            reason="a bad release",
        )
    )


async def test_an_order_that_was_reset_and_is_cancelled_leaves_nothing_behind(saga: Saga) -> None:
    """It waits for marketing once more, and knows nothing of the delivery that is under way."""
    await under_way(saga)
    await saga.go("marketing")
    await reset_before(saga, "issue_coupon")
    await saga.recorded(lambda history: "scheduled issue_coupon" in story(history))
    await cancel(saga)
    await saga.recorded(lambda history: "completed refund_payment" in story(history))
    await saga.go("workflows")  # another worker goes on, which replays it
    await saga.come("workflows")
    await saga.come("marketing")
    async with saga.patient():
        assert await saga.handle.result() == "OrderCanceled"
    assert saga.world.standing == set()
    assert saga.world.tombstones == ALL
    assert patches([await saga.handle.fetch_history()]) == {PATCH}


async def test_a_cancel_that_is_applied_again_after_a_reset_undoes_everything(saga: Saga) -> None:
    """It comes before all else then."""
    await under_way(saga)
    await saga.go("delivery")
    await cancel(saga)
    await saga.world.until(reads("OrderCanceling"))
    await reset_before(saga, "issue_coupon")
    await saga.come("delivery")
    async with saga.patient():
        assert await saga.handle.result() == "OrderCanceled"
    assert saga.world.standing == set()


async def test_an_order_that_was_not_reset_undoes_what_it_has_begun(saga: Saga) -> None:
    await saga.go("marketing")
    await saga.start()
    await saga.world.until(reads("OrderPlaced"))
    await cancel(saga)
    await saga.come("marketing")
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")
    assert saga.world.tombstones == {"pay_order", "issue_coupon"}
    assert patches([await saga.handle.fetch_history()]) == set()
