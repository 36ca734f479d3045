"""What the saga promises beyond its ends, which `test_every_situation.py` looks at: order, times, people, messages."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError

from services.order.statuses import OrderStatus
from tests.saga.conftest import PAYMENT_BUDGET, Saga, assert_clean_slate, cancel, reads, under_way
from tests.saga.situations import completed
from tests.saga.world import Fail, Gate, LoseReply, Refuse
from workflows import steps
from workflows.client import CUSTOMER_ID, PRODUCT_ID, NotDeliverable, NotStuck, TooLate
from workflows.journal import CANCEL_REASON, CANCELING_SINCE, NEEDS_ATTENTION, ORDER_STATUS
from workflows.messages import FlagOrder, Resumed
from workflows.steps import COMPENSATION_ORDER, SAGA

ALL = {step.do for step in SAGA}
HAPPY = ["OrderPlaced", "CouponIssued", "DeliveryStarted", "StockAdjusted"]


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


async def test_an_operator_who_settles_a_stuck_undo_says_who_and_why(saga: Saga) -> None:
    saga.world.script("refund_payment", Refuse("refused"))
    await under_way(saga)
    await cancel(saga)
    await saga.world.until(lambda world: world.state.needs_attention and world.standing == {"pay_order"})
    assert (await saga.handle.describe()).status == WorkflowExecutionStatus.RUNNING
    settle = partial(saga.engine.settle, saga.order.order_id, action="skip", actor="kim")
    with pytest.raises(NotStuck):
        await settle(step="revoke_coupon", reason="oops")
    with pytest.raises(NotStuck):
        await settle(step="refund_payment", reason=" ")
    await settle(step="refund_payment", reason="paid by hand")
    assert await saga.result() == "OrderCanceled"
    skipped = next(entry for entry in saga.world.timeline if entry.type == "CompensationSkipped")
    assert skipped.detail == {"undo": "refund_payment", "actor": "kim", "reason": "paid by hand"}


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


@pytest.mark.parametrize("first", ["delivered", "cancelled"])
async def test_of_delivered_and_cancelled_in_one_activation_the_first_wins(saga: Saga, first: str) -> None:
    """Whichever of their turns is over first."""
    turn = Gate()
    saga.world.script("take_turn", turn)
    await under_way(saga)
    await saga.go("workflows")
    asking = {"delivered": saga.engine.delivered(saga.order.order_id), "cancelled": cancel(saga)}
    telling: dict[str, asyncio.Task[None]] = {}
    for what in sorted(asking, key=lambda what: what != first):
        telling[what] = asyncio.create_task(asking[what])
        await asyncio.wait([telling[what]], timeout=0.3)  # on its way; nothing tells that the engine has it
    await saga.come("workflows")
    await turn.reached.wait()
    await asyncio.wait([*telling.values()], timeout=0.3)  # time enough to overtake the one that waits
    turn.opened.set()
    ended = await saga.result()
    answers = await asyncio.gather(*(telling[what] for what in ("delivered", "cancelled")), return_exceptions=True)
    if (await saga.updates())[0] == "delivered":  # the one asked for first, unless the machine is very slow
        assert ended == "Delivered"
        assert (answers[0], type(answers[1])) == (None, TooLate)
        assert saga.world.standing == ALL
    else:
        assert ended == "OrderCanceled"
        assert (type(answers[0]), answers[1]) == (NotDeliverable, None)
        assert_clean_slate(saga, "customer")


async def test_delivered_is_heeded_though_it_is_told_together_with_the_end_of_the_last_step(saga: Saga) -> None:
    """As it is after the order team was away: a carrier who is refused then brings the goods back."""
    gate = Gate()
    saga.world.script(SAGA[-1].do, gate)
    await saga.start()
    await gate.reached.wait()
    with pytest.raises(NotDeliverable):
        await saga.engine.delivered(saga.order.order_id)  # while it is not done, it is refused after its turn
    await saga.go("workflows")
    gate.opened.set()
    await saga.recorded(completed(SAGA[-1]))
    telling = asyncio.create_task(saga.engine.delivered(saga.order.order_id))
    await asyncio.wait([telling], timeout=0.3)  # on its way; nothing tells that the engine has it
    await saga.come("workflows")
    await telling
    assert await saga.result() == "Delivered"
    assert saga.world.standing == ALL


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
    assert await saga.updates() == [], "refused before it is remembered, however often a carrier asks"
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


async def test_a_payment_has_the_budget_that_its_order_was_started_with_and_an_undo_a_week(saga: Saga) -> None:
    await under_way(saga)
    await cancel(saga)
    assert await saga.result() == "OrderCanceled"
    assert await saga.budget_of("pay_order") == PAYMENT_BUDGET
    assert await saga.budget_of("refund_payment") == timedelta(days=7)


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


async def test_an_undo_that_fails_all_the_time_is_flagged(long_saga: Saga, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "UNDO_BUDGET", timedelta(hours=1))  # in days the server would try thousands of times
    long_saga.world.script("revoke_coupon", *[Fail()] * 1000)
    await under_way(long_saga)
    await cancel(long_saga)
    await long_saga.world.until(lambda world: world.state.pay_status == "Refunded")
    await long_saga.let_pass(timedelta(minutes=50))
    assert not long_saga.world.state.needs_attention
    await long_saga.let_pass(timedelta(minutes=15))
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
    assert "to undo the order: update `cancel`" in waiting
    assert f"[{saga.order.order_id}](https://desk.example/{saga.order.order_id})" in waiting
    order = await saga.handle.describe()
    assert await order.static_summary() == "gram × 1 · 9,000,000원 · goodman"
    attributes = order.typed_search_attributes
    assert attributes[ORDER_STATUS] == "CouponIssued"
    assert attributes[CUSTOMER_ID] == "goodman"
    assert attributes[PRODUCT_ID] == "2001"
    assert attributes[NEEDS_ATTENTION] is False
    assert CANCELING_SINCE not in attributes
    await cancel(saga)
    await saga.world.until(lambda world: world.state.needs_attention)
    stuck = await _details(saga)
    assert "canceled by: customer (goodman)" in stuck
    assert "- **needs attention** revoke\\_coupon: refused\n" in stuck
    assert "last error" not in stuck, "it is what it was flagged for"
    assert '- to settle: update `settle` `{"undo": "revoke_coupon", "action": "retry"' in stuck
    assert "waits for: an operator's `settle` of `revoke_coupon`, since 2" in stuck
    assert "to undo the order" not in stuck
    attributes = (await saga.handle.describe()).typed_search_attributes
    assert attributes[NEEDS_ATTENTION] is True
    assert attributes[CANCEL_REASON] == "customer"
    [canceling] = [entry for entry in saga.world.timeline if entry.type == "OrderCanceling"]
    assert abs(attributes[CANCELING_SINCE] - canceling.at) < timedelta(seconds=1)  # the index drops microseconds


async def test_an_operator_is_told_how_to_go_on_without_marketing_and_how_to_clear_a_flag(saga: Saga) -> None:
    await saga.go("marketing")
    await saga.start()
    await saga.world.until(reads("OrderPlaced"))
    assert '- to deliver without a coupon: update `waive_coupon` `{"actor": "your name"' in await _details(saga)
    await saga.engine.waive_coupon(saga.order.order_id, actor="kim", reason="away")
    await saga.world.until(reads("DeliveryStarted"))
    assert "waive_coupon" not in await _details(saga)
    state = saga.world.state
    resumed = Resumed(version=1 + len(saga.world.timeline), state=state, done=[], undo=False)
    flag = FlagOrder(
        about="odd-charge", detail="see [here](javascript:alert(1)) # **now**\n- not a line http://x www.y"
    )
    await saga.engine.flag(saga.order, resumed, flag)
    flagged = await _details(saga)
    assert "waits for: the carrier's *Delivered*, since 2" in flagged
    assert "waits for: `revoke_coupon` of team **marketing**, since 2" in flagged
    told = r"see \[here\](javascript:alert(1)) \# \*\*now\*\* - not a line http:\//x www\.y"
    assert f"**needs attention** odd-charge: {told}" in flagged
    assert '- once that is seen to: update `clear_attention` `{"about": "odd-charge", "actor": "your name"' in flagged


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
