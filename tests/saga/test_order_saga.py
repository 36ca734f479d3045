"""The saga, step by step: it ends with all four effects or with none, whatever is refused, lost or cancelled."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowHistory
from temporalio.service import RPCError

from services.order.statuses import OrderStatus
from tests.saga.conftest import PAYMENT_BUDGET, Saga, assert_clean_slate, cancel, reads, under_way
from tests.saga.world import Fail, Gate, LoseReply, Refuse
from workflows.client import CUSTOMER_ID, PRODUCT_ID, NotDeliverable, NotStuck, TooLate
from workflows.journal import NEEDS_ATTENTION, ORDER_STATUS
from workflows.steps import COMPENSATION_ORDER, SAGA, Step

ALL = {step.do for step in SAGA}
HAPPY = ["OrderPlaced", "CouponIssued", "DeliveryStarted", "StockAdjusted"]
each_step = pytest.mark.parametrize("step", SAGA, ids=lambda step: step.do)


async def test_an_order_is_paid_gets_its_coupon_and_is_delivered(saga: Saga) -> None:
    await under_way(saga)
    assert saga.world.events == HAPPY
    assert saga.world.state.pay_status == "Paid"
    assert saga.world.state.coupon_id == "coupon_1"
    await saga.engine.delivered(saga.order.order_id)
    assert await saga.result() == "Delivered"
    assert saga.world.standing == ALL
    assert saga.world.delivered
    assert saga.world.state.delivery_status == "Delivered"


@pytest.mark.parametrize("code", ["payment-declined", "insufficient-funds"])
async def test_a_declined_payment_ends_the_order_and_nothing_else_happened(saga: Saga, code: str) -> None:
    saga.world.script("pay_order", Refuse(code))
    await saga.start()
    assert await saga.result() == "PaymentDeclined"
    assert [call for call in saga.world.calls if call != "record_status"] == ["pay_order"]
    assert saga.world.state.pay_status == "Declined"
    assert saga.world.timeline[-1].detail == {"code": code}
    assert not saga.world.state.needs_attention


@pytest.mark.parametrize("step", [step for step in SAGA if step.refusals], ids=lambda step: step.do)
async def test_a_step_refused_for_good_undoes_everything_before_it(saga: Saga, step: Step) -> None:
    saga.world.script(step.do, Refuse("out-of-stock"))
    await saga.start()
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "outOfStock")
    assert saga.world.state.pay_status == "Refunded"


@each_step
async def test_a_step_that_fails_for_no_known_reason_undoes_everything_and_calls_a_person(
    saga: Saga, step: Step
) -> None:
    saga.world.script(step.do, Refuse("something-odd"))
    await saga.start()
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, step.unsettled)
    assert saga.world.state.needs_attention


async def test_a_charge_of_another_amount_is_given_back_and_calls_a_person(saga: Saga) -> None:
    saga.world.script("pay_order", Refuse("amount-mismatch", late=True))
    await saga.start()
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "paymentUnknown")
    assert saga.world.state.pay_status == "Refunded"
    assert saga.world.state.needs_attention
    assert [call for call in saga.world.calls if call != "record_status"] == ["pay_order", "refund_payment"]
    raised = next(entry for entry in saga.world.timeline if entry.type == "AttentionRaised")
    assert raised.detail == {"about": "pay_order", "code": "amount-mismatch"}


@each_step
@pytest.mark.parametrize("trouble", [Fail, LoseReply], ids=["fails", "loses its reply"])
async def test_a_step_that_fails_twice_is_repeated_until_it_works(saga: Saga, step: Step, trouble: type) -> None:
    saga.world.script(step.do, trouble(), trouble())
    await under_way(saga)
    assert saga.world.standing == ALL
    assert saga.world.calls.count(step.do) == 3


@each_step
async def test_undos_that_fail_or_lose_their_reply_are_repeated(saga: Saga, step: Step) -> None:
    saga.world.script(step.undo, Fail(), LoseReply(), LoseReply())
    await under_way(saga)
    await cancel(saga)
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")


async def test_a_cancelled_order_is_undone_in_the_shops_order(saga: Saga) -> None:
    await under_way(saga)
    await cancel(saga)
    assert await saga.result() == "OrderCanceled"
    assert saga.world.events == [
        *HAPPY,
        "OrderCanceling",
        "CouponRevoked",
        "DeliveryCanceled",
        "StockRestored",
        "PaymentRefunded",
        "OrderCanceled",
    ]
    assert saga.world.state.pay_status == "Refunded"
    assert saga.world.state.delivery_status == "Canceled"
    assert [c for c in saga.world.calls if c in {s.undo for s in SAGA}] == [s.undo for s in COMPENSATION_ORDER]


@each_step
@pytest.mark.parametrize("by", ["customer", "operator"])
async def test_a_cancel_during_a_step_learns_its_outcome_and_undoes_it(saga: Saga, step: Step, by: str) -> None:
    gate = Gate()
    saga.world.script(step.do, gate)
    await saga.start()
    await gate.reached.wait()
    if by == "customer":
        await cancel(saga)
    else:
        await saga.handle.cancel()
    await saga.recorded(_cancel_requested)
    gate.opened.set()
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, by)
    assert step.undone in saga.world.events, "the step took effect: its undo must say so"


@each_step
@pytest.mark.parametrize("by", ["customer", "operator"])
async def test_a_cancel_and_the_steps_completion_in_one_activation_undo_it(saga: Saga, step: Step, by: str) -> None:
    gate = Gate()
    saga.world.script(step.do, gate)
    await saga.start()
    await gate.reached.wait()
    await saga.go("workflows")
    if by == "operator":
        await saga.handle.cancel()
        cancelling = None
    else:
        cancelling = asyncio.create_task(cancel(saga))
    gate.opened.set()
    await saga.recorded(_completed(step))
    await saga.come("workflows")
    if cancelling:
        await cancelling
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, by)
    assert step.undone in saga.world.events


def _cancel_requested(history: WorkflowHistory) -> bool:
    return any(event.HasField("activity_task_cancel_requested_event_attributes") for event in history.events)


def _completed(step: Step) -> Callable[[WorkflowHistory], bool]:
    def found(history: WorkflowHistory) -> bool:
        scheduled = {
            event.event_id
            for event in history.events
            if event.activity_task_scheduled_event_attributes.activity_type.name == step.do
        }
        return any(
            event.activity_task_completed_event_attributes.scheduled_event_id in scheduled for event in history.events
        )

    return found


@each_step
async def test_a_cancel_while_a_step_waits_to_be_repeated_withdraws_it(saga: Saga, step: Step) -> None:
    gate = Gate()
    saga.world.script(step.do, *[LoseReply()] * 3, gate)
    await saga.start()
    await gate.reached.wait()
    await cancel(saga)
    gate.opened.set()
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")


async def test_a_cancel_request_before_the_first_workflow_task_undoes_the_order(saga: Saga) -> None:
    await saga.go("workflows")
    await saga.start()
    await saga.handle.cancel()
    await saga.come("workflows")
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "operator")


async def test_a_cancel_during_the_undo_changes_nothing(saga: Saga) -> None:
    gate = Gate()
    saga.world.script("revoke_coupon", gate)
    await under_way(saga)
    await cancel(saga)
    await gate.reached.wait()
    await saga.handle.cancel()
    await cancel(saga)
    gate.opened.set()
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")
    assert saga.world.events.count("OrderCanceling") == 1


async def test_a_team_that_is_away_keeps_nobody_from_their_money(saga: Saga) -> None:
    await saga.go("marketing")
    await saga.start()
    await saga.world.until(reads("OrderPlaced"))
    await cancel(saga)
    await saga.world.until(lambda world: world.state.pay_status == "Refunded")
    assert saga.world.state.order_status == "OrderCanceling"
    await saga.come("marketing")
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")
    assert "issue_coupon" not in saga.world.calls, "the step was withdrawn before marketing came back"
    assert "CouponRevoked" not in saga.world.events, "there was no coupon to revoke"


async def test_no_delivery_starts_without_its_coupon(saga: Saga) -> None:
    await saga.go("marketing")
    await saga.start()
    await saga.world.until(reads("OrderPlaced"))
    assert "start_delivery" not in saga.world.calls
    await saga.come("marketing")
    await saga.world.until(reads("DeliveryStarted"))
    assert saga.world.calls.index("issue_coupon") < saga.world.calls.index("start_delivery")


@each_step
async def test_an_undo_that_fails_for_good_stops_no_other_and_waits_for_an_operator(saga: Saga, step: Step) -> None:
    saga.world.script(step.undo, Refuse("refused"), Refuse("refused"))
    await under_way(saga)
    await cancel(saga)
    await saga.world.until(lambda world: world.state.needs_attention and world.standing == {step.do})
    assert (await saga.handle.describe()).status == WorkflowExecutionStatus.RUNNING
    with pytest.raises(NotStuck):
        await saga.engine.settle(saga.order.order_id, step="nothing", action="skip", actor="kim", reason="oops")
    with pytest.raises(NotStuck):
        await saga.engine.settle(saga.order.order_id, step=step.undo, action="skip", actor="kim", reason=" ")
    await saga.engine.settle(saga.order.order_id, step=step.undo, action="retry", actor="kim", reason="fixed")
    await saga.world.until(lambda world: world.events.count("AttentionRaised") == 2)
    await saga.engine.settle(saga.order.order_id, step=step.undo, action="skip", actor="kim", reason="paid by hand")
    assert await saga.result() == "OrderCanceled"
    assert not saga.world.state.needs_attention
    skipped = next(entry for entry in saga.world.timeline if entry.type == "CompensationSkipped")
    assert skipped.detail == {"undo": step.undo, "actor": "kim", "reason": "paid by hand"}


async def test_delivered_and_cancelled_cannot_both_win(saga: Saga) -> None:
    gate = Gate()
    saga.world.script("complete_delivery", gate)
    await under_way(saga)
    await saga.engine.delivered(saga.order.order_id)
    with pytest.raises(TooLate):
        await cancel(saga)
    await saga.handle.cancel()
    gate.opened.set()
    assert await saga.result() == "Delivered"
    assert saga.world.standing == ALL
    with pytest.raises(TooLate):
        await cancel(saga)


async def test_a_cancelled_order_cannot_be_delivered(saga: Saga) -> None:
    gate = Gate()
    saga.world.script("refund_payment", gate)
    await under_way(saga)
    await cancel(saga)
    with pytest.raises(NotDeliverable):
        await saga.engine.delivered(saga.order.order_id)
    gate.opened.set()
    assert await saga.result() == "OrderCanceled"


async def test_an_arrival_that_the_delivery_team_cannot_note_leaves_the_order_delivered(saga: Saga) -> None:
    saga.world.script("complete_delivery", Refuse("delivery-canceled"))
    await under_way(saga)
    await saga.engine.delivered(saga.order.order_id)
    assert await saga.result() == "Delivered"
    assert saga.world.state.order_status == "Delivered"
    assert saga.world.state.needs_attention


async def test_many_who_wait_for_the_payment_keep_nobody_from_cancelling(saga: Saga) -> None:
    gate = Gate()
    saga.world.script("pay_order", gate)
    await saga.start()
    await gate.reached.wait()
    await asyncio.gather(*(saga.engine.payment_known(saga.order, timeout=0.5) for _ in range(15)))
    await cancel(saga)
    gate.opened.set()
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")


async def test_a_cancel_that_meets_the_start_of_the_order_is_heard(saga: Saga, monkeypatch: pytest.MonkeyPatch) -> None:
    handle_of_any: Any = WorkflowHandle
    execute_update, early = handle_of_any.execute_update, True

    async def too_early_at_first(handle: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal early
        if early:
            early = False
            with pytest.raises(RPCError) as not_found:
                await execute_update(handle, *arguments, **options)
            await saga.start()
            raise not_found.value
        return await execute_update(handle, *arguments, **options)

    monkeypatch.setattr(WorkflowHandle, "execute_update", too_early_at_first)
    await cancel(saga)
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")


async def test_an_order_that_is_not_under_way_cannot_be_delivered(saga: Saga) -> None:
    gate = Gate()
    saga.world.script("start_delivery", gate)
    await saga.start()
    await gate.reached.wait()
    with pytest.raises(NotDeliverable):
        await saga.engine.delivered(saga.order.order_id)
    gate.opened.set()
    await saga.world.until(reads("DeliveryStarted"))


async def test_an_order_not_delivered_in_time_is_flagged_and_stays_open(long_saga: Saga) -> None:
    await under_way(long_saga)
    await long_saga.let_pass(timedelta(days=7, minutes=1))
    await long_saga.world.until(lambda world: world.state.needs_attention)
    assert long_saga.world.state.order_status == OrderStatus.DELIVERY_STARTED
    await long_saga.engine.delivered(long_saga.order.order_id)
    await long_saga.world.until(lambda world: world.state.order_status == "Delivered")
    assert not long_saga.world.state.needs_attention


async def test_a_late_order_that_is_cancelled_needs_nobody_any_more(long_saga: Saga) -> None:
    await under_way(long_saga)
    await long_saga.let_pass(timedelta(days=7, minutes=1))
    await long_saga.world.until(lambda world: world.state.needs_attention)
    await cancel(long_saga)
    await long_saga.world.until(reads("OrderCanceled"))
    assert not long_saga.world.state.needs_attention


@pytest.mark.parametrize(("trouble", "pay_status"), [(Fail, "NotPaid"), (LoseReply, "Refunded")])
async def test_a_payment_whose_truth_cannot_be_learned_in_its_budget_is_called_off_and_flagged(
    long_saga: Saga, trouble: type, pay_status: str
) -> None:
    """The provider is silent all the time; or the charge took effect and it never said so."""
    long_saga.world.script("pay_order", *[trouble()] * 10_000)
    await long_saga.start()
    await long_saga.let_pass(PAYMENT_BUDGET - timedelta(minutes=5))
    assert "refund_payment" not in long_saga.world.calls, "it was given up too early"
    await long_saga.let_pass(timedelta(minutes=10))
    await long_saga.world.until(reads("OrderCanceled"))
    assert_clean_slate(long_saga, "paymentUnknown")
    assert long_saga.world.state.needs_attention
    assert long_saga.world.state.pay_status == pay_status
    assert long_saga.world.calls.count("refund_payment") == 1
    assert "pay_order" in long_saga.world.tombstones, "a charge that comes late is refused"


async def test_a_payment_has_the_budget_that_its_order_was_started_with(saga: Saga) -> None:
    await under_way(saga)
    assert await saga.budget_of("pay_order") == PAYMENT_BUDGET


async def test_a_charge_and_its_undo_are_given_up_soon_when_their_worker_is_gone(saga: Saga) -> None:
    await under_way(saga)
    await cancel(saga)
    assert await saga.result() == "OrderCanceled"
    for activity in ("pay_order", "refund_payment"):
        assert await saga.patience_with(activity) == timedelta(seconds=10)
    assert await saga.patience_with("issue_coupon") == timedelta()  # gives no signs


async def test_an_order_that_an_earlier_release_started_goes_on_and_has_a_day_to_be_paid(saga: Saga) -> None:
    """Its input names no budget. That its history replays is seen in the end, as for all."""
    order = saga.order.model_dump(
        include={
            *("order_id", "user_id", "product_id", "product_name"),
            *("qty", "amount", "currency", "payment_method"),
        }
    )
    await saga.client.start_workflow(
        "OrderWorkflow", {**order, "deliver_within": timedelta(days=7)}, id=saga.order.order_id, task_queue="order"
    )
    await saga.world.until(reads("DeliveryStarted"))
    assert await saga.budget_of("pay_order") == timedelta(hours=24)


async def test_an_undo_that_fails_for_days_is_flagged(long_saga: Saga) -> None:
    long_saga.world.script("revoke_coupon", *[Fail()] * 100_000)
    await under_way(long_saga)
    await cancel(long_saga)
    await long_saga.world.until(lambda world: world.state.pay_status == "Refunded")
    await long_saga.let_pass(timedelta(days=8))
    await long_saga.world.until(lambda world: world.state.needs_attention)
    assert long_saga.world.standing == {"issue_coupon"}


async def test_a_failing_status_write_kills_no_order_and_loses_no_entry(saga: Saga) -> None:
    saga.world.script("record_status", Refuse("gone"), Fail(), Fail())
    await under_way(saga)
    assert saga.world.events == HAPPY


async def test_a_status_write_that_is_refused_is_tried_again_later(long_saga: Saga) -> None:
    long_saga.world.script("record_status", *[Refuse("gone")] * 4)
    await long_saga.start()
    await long_saga.let_pass(timedelta(minutes=5))
    await long_saga.world.until(reads("DeliveryStarted"))
    assert long_saga.world.events == HAPPY


async def test_an_operator_understands_an_order_in_the_web_ui(saga: Saga) -> None:
    await saga.go("delivery")
    saga.world.script("revoke_coupon", Refuse("refused"))
    await saga.start()
    await saga.world.until(reads("CouponIssued"))
    waiting = await _details(saga)
    assert "**CouponIssued** · gram × 1 · 9,000,000원 · Paid" in waiting
    assert "waits for: `start_delivery` of team **delivery**, since 2" in waiting
    order = await saga.handle.describe()
    assert await order.static_summary() == "gram × 1 · 9,000,000원 · goodman"
    attributes = order.typed_search_attributes
    assert attributes[ORDER_STATUS] == "CouponIssued"
    assert attributes[CUSTOMER_ID] == "goodman"
    assert attributes[PRODUCT_ID] == "2001"
    assert attributes[NEEDS_ATTENTION] is False
    await cancel(saga)
    await saga.world.until(lambda world: world.state.needs_attention)
    stuck = await _details(saga)
    assert "**needs attention** revoke_coupon: refused" in stuck
    assert "to settle: update `settle`" in stuck
    assert (await saga.handle.describe()).typed_search_attributes[NEEDS_ATTENTION] is True


async def _details(saga: Saga) -> str:
    metadata = await saga.handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    return metadata.current_details


async def test_whoever_waits_for_the_payment_is_told_at_once(saga: Saga) -> None:
    gate = Gate()
    saga.world.script("issue_coupon", gate)
    await saga.engine.payment_known(saga.order, timeout=30)
    assert "pay_order" in saga.world.standing or "pay_order" in saga.world.calls
    gate.opened.set()
    await saga.world.until(reads("DeliveryStarted"))
