"""What operators can do about an order, each by an update that says who and why."""

import asyncio
from datetime import timedelta
from functools import partial

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError

from tests.replay.histories import story
from tests.saga.conftest import Saga, assert_clean_slate, cancel, reads, under_way
from tests.saga.world import Gate, Refuse
from workflows.client import NotFlagged, NotStuck, NotWaiting, TooLate
from workflows.messages import FlagOrder, Resumed
from workflows.order import OrderWorkflow
from workflows.steps import SAGA

WITHOUT_COUPON = {step.do for step in SAGA} - {"issue_coupon"}
FLAG = FlagOrder(about="charge-of-another-amount", detail="9,000,001 for 9,000,000")


async def waive(saga: Saga, reason: str = "marketing is away since noon") -> None:
    await saga.engine.waive_coupon(saga.order.order_id, actor="kim", reason=reason)


async def clear(saga: Saga, reason: str = "seen to", about: str = "") -> None:
    await saga.engine.clear_attention(saga.order.order_id, actor="kim", reason=reason, about=about)


def details_of(saga: Saga, event: str) -> list[dict[str, str]]:
    return [entry.detail for entry in saga.world.timeline if entry.type == event]


async def test_an_order_whose_coupon_is_waived_is_delivered_while_marketing_is_away_and_never_gets_one(
    saga: Saga,
) -> None:
    await saga.go("marketing")
    await saga.start()
    await saga.world.until(reads("OrderPlaced"))
    await waive(saga)
    await waive(saga)
    await saga.world.until(reads("DeliveryStarted"))
    assert details_of(saga, "CouponWaived") == [{"actor": "kim", "reason": "marketing is away since noon"}]
    await saga.engine.delivered(saga.order.order_id)
    await saga.world.until(reads("Delivered"))
    assert (await saga.handle.describe()).status == WorkflowExecutionStatus.RUNNING, "until marketing has been told"
    await saga.come("marketing")
    assert await saga.result() == "Delivered"
    assert saga.world.standing == WITHOUT_COUPON
    assert "issue_coupon" in saga.world.tombstones, "an attempt that comes late is refused"
    assert "issue_coupon" not in saga.world.calls
    assert not {"CouponIssued", "CouponRevoked"} & set(saga.world.events)


async def test_a_coupon_that_is_just_being_issued_while_it_is_waived_is_revoked(saga: Saga) -> None:
    gate = Gate()
    saga.world.script("issue_coupon", gate)
    await saga.start()
    await gate.reached.wait()
    await waive(saga)
    gate.opened.set()
    await saga.world.until(lambda world: "CouponRevoked" in world.events and reads("DeliveryStarted")(world))
    assert saga.world.standing == WITHOUT_COUPON
    events = saga.world.events
    assert events.index("CouponWaived") < events.index("CouponIssued") < events.index("CouponRevoked")


async def test_an_attempt_that_fails_for_good_after_the_waiver_cancels_nothing(saga: Saga) -> None:
    gate = Gate(then=Refuse("something-odd"))
    saga.world.script("issue_coupon", gate)
    await saga.start()
    await gate.reached.wait()
    await waive(saga)
    gate.opened.set()
    await saga.world.until(reads("DeliveryStarted"))
    assert not saga.world.state.needs_attention


async def test_a_coupon_can_be_waived_only_while_the_order_waits_for_it_and_only_by_somebody_with_a_reason(
    saga: Saga,
) -> None:
    paying, issuing = Gate(), Gate()
    saga.world.script("pay_order", paying)
    saga.world.script("issue_coupon", issuing)
    await saga.start()
    await paying.reached.wait()
    with pytest.raises(NotWaiting):
        await waive(saga)
    paying.opened.set()
    await issuing.reached.wait()
    with pytest.raises(NotWaiting):
        await waive(saga, reason=" ")
    issuing.opened.set()
    await saga.world.until(reads("DeliveryStarted"))
    with pytest.raises(NotWaiting):
        await waive(saga)
    assert "CouponWaived" not in saga.world.events
    assert await saga.updates() == [], "a refused update costs no history"


async def test_an_order_that_is_cancelled_after_its_coupon_was_waived_leaves_nothing(saga: Saga) -> None:
    await saga.go("marketing")
    await saga.start()
    await saga.world.until(reads("OrderPlaced"))
    await waive(saga)
    await saga.world.until(reads("DeliveryStarted"))
    await cancel(saga)
    await saga.world.until(lambda world: world.state.pay_status == "Refunded")
    await saga.come("marketing")
    assert await saga.result() == "OrderCanceled"
    assert_clean_slate(saga, "customer")
    assert saga.world.calls.count("revoke_coupon") == 1


async def test_a_waived_coupon_whose_revocation_is_stuck_is_settled_after_the_delivery(saga: Saga) -> None:
    gate = Gate()
    saga.world.script("issue_coupon", gate)
    saga.world.script("revoke_coupon", Refuse("refused"))
    await saga.start()
    await gate.reached.wait()
    await waive(saga)
    gate.opened.set()
    await saga.world.until(lambda world: world.state.needs_attention and reads("DeliveryStarted")(world))
    await saga.engine.delivered(saga.order.order_id)
    await saga.world.until(reads("Delivered"))
    settle = partial(saga.engine.settle, saga.order.order_id, step="revoke_coupon", actor="kim", reason="it is back")
    await settle(action="retry")
    await saga.world.until(lambda world: "CouponRevoked" in world.events)
    async with saga.patient():
        assert await saga.handle.result() == "Delivered"
    assert saga.world.standing == WITHOUT_COUPON
    assert not saga.world.state.needs_attention


async def test_an_order_that_ended_flagged_stays_open_until_a_person_has_seen_to_it(saga: Saga) -> None:
    saga.world.script("start_delivery", Refuse("something-odd"))
    await saga.start()
    assert await saga.result() == "OrderCanceled"
    assert (await saga.handle.describe()).status == WorkflowExecutionStatus.RUNNING
    assert saga.world.standing == set()
    with pytest.raises(NotFlagged):
        await clear(saga, reason="")
    await clear(saga, reason="told the customer")
    async with saga.patient():
        assert await saga.handle.result() == "OrderCanceled"
    assert not saga.world.state.needs_attention
    cleared = {"about": "start_delivery", "actor": "kim", "reason": "told the customer"}
    assert details_of(saga, "AttentionCleared") == [cleared]
    with pytest.raises(NotFlagged):
        await clear(saga)


async def test_a_stuck_undo_is_settled_and_not_cleared(saga: Saga) -> None:
    saga.world.script("refund_payment", Refuse("refused"))
    await under_way(saga)
    with pytest.raises(NotFlagged):
        await clear(saga)
    await cancel(saga)
    await saga.world.until(lambda world: world.state.needs_attention)
    with pytest.raises(NotFlagged):
        await clear(saga)
    await flag(saga)
    await clear(saga)
    await saga.world.until(lambda world: "AttentionCleared" in world.events)
    assert saga.world.state.needs_attention, "the refund is still stuck"
    assert details_of(saga, "AttentionCleared")[0]["about"] == FLAG.about


async def test_a_late_order_that_was_seen_to_has_as_long_again(long_saga: Saga) -> None:
    await under_way(long_saga)
    week = timedelta(days=7, minutes=1)
    await long_saga.let_pass(week)
    await long_saga.world.until(lambda world: world.state.needs_attention)
    await clear(long_saga)
    await long_saga.world.until(lambda world: not world.state.needs_attention)
    await long_saga.let_pass(timedelta(days=6))
    assert long_saga.world.events.count("AttentionRaised") == 1
    await long_saga.let_pass(timedelta(days=1, minutes=1))
    await long_saga.world.until(lambda world: world.events.count("AttentionRaised") == 2)
    await long_saga.engine.delivered(long_saga.order.order_id)
    assert await long_saga.result() == "Delivered"


async def test_an_operator_who_cancels_says_why(saga: Saga) -> None:
    await under_way(saga)
    await saga.engine.cancel(saga.order.order_id, by="operator", actor="kim", note="the parcel fell into the sea")
    assert await saga.result() == "OrderCanceled"
    noted = {"reason": "operator", "actor": "kim", "note": "the parcel fell into the sea"}
    assert details_of(saga, "OrderCanceling") == [noted]


async def flag(saga: Saga) -> None:
    """Flag the order, as it reads now."""
    state = saga.world.state
    resumed = Resumed(version=1 + len(saga.world.timeline), state=state, done=[], undo=False)
    await saga.engine.flag(saga.order, resumed, FLAG)


async def test_an_order_under_way_is_flagged_once_for_each_thing_and_goes_on(saga: Saga) -> None:
    await under_way(saga)
    await flag(saga)
    await flag(saga)
    await saga.world.until(lambda world: world.state.needs_attention)
    assert details_of(saga, "AttentionRaised") == [{"about": FLAG.about, "actor": "reconciliation"}]
    await saga.engine.delivered(saga.order.order_id)
    await saga.world.until(reads("Delivered"))
    assert saga.world.state.needs_attention, "that it arrived does not settle it"
    assert await saga.over() == "Delivered"


async def test_a_clear_whose_turn_comes_after_the_last_status_was_written_is_written_too(saga: Saga) -> None:
    """The order waits for nothing but that message then, and would end with it."""
    refund, turn = Gate(), Gate()
    saga.world.script("start_delivery", Refuse("something-odd"))
    saga.world.script("refund_payment", refund)
    await saga.start()
    await refund.reached.wait()
    await saga.world.until(lambda world: world.state.needs_attention)
    saga.world.script("take_turn", turn)
    clearing = asyncio.create_task(clear(saga))
    await turn.reached.wait()
    refund.opened.set()
    await saga.world.until(reads("OrderCanceled"))
    await asyncio.wait([clearing], timeout=0.5)  # for its workflow to learn that it is written; nothing tells of that
    turn.opened.set()
    await clearing
    async with saga.patient():
        assert await saga.handle.result() == "OrderCanceled"
    assert saga.world.events[-1] == "AttentionCleared"
    assert not saga.world.state.needs_attention


async def test_only_what_is_named_is_cleared(saga: Saga) -> None:
    """An operator has seen what they have looked at, and not what was found since."""
    saga.world.script("start_delivery", Refuse("something-odd"))
    await saga.start()
    assert await saga.result() == "OrderCanceled"
    await flag(saga)
    with pytest.raises(NotFlagged):
        await clear(saga, about="something-else")
    await clear(saga, about="start_delivery")
    await saga.world.until(lambda world: "AttentionCleared" in world.events)
    assert saga.world.state.needs_attention
    assert details_of(saga, "AttentionCleared")[0]["about"] == "start_delivery"
    assert (await saga.handle.describe()).status == WorkflowExecutionStatus.RUNNING
    await clear(saga, about=FLAG.about)
    async with saga.patient():
        assert await saga.handle.result() == "OrderCanceled"


async def test_what_people_write_cannot_grow_too_long_for_the_engine(saga: Saga) -> None:
    """Together in one status write it would be refused for its size, at each repetition of the task."""
    long = "x" * 501
    gate = Gate()
    saga.world.script("issue_coupon", gate)
    await saga.start()
    await gate.reached.wait()
    with pytest.raises(NotWaiting):
        await waive(saga, reason=long)
    gate.opened.set()
    saga.world.script("refund_payment", Refuse("refused"))
    await saga.world.until(reads("DeliveryStarted"))
    with pytest.raises(TooLate):
        await saga.engine.cancel(saga.order.order_id, by="operator", actor="kim", note=long)
    await saga.handle.cancel(reason=1000 * long)  # nobody validates what the Web UI's button is given
    await saga.world.until(lambda world: world.state.needs_attention)
    with pytest.raises(NotStuck):
        await saga.engine.settle(saga.order.order_id, step="refund_payment", action="skip", actor="kim", reason=long)
    with pytest.raises(NotFlagged):
        await clear(saga, reason=long)
    assert all(len(text) <= 500 for entry in saga.world.timeline for text in entry.detail.values())


async def test_an_order_that_arrived_waits_for_nobody_but_marketing(saga: Saga) -> None:
    await saga.go("marketing")
    await saga.start()
    await saga.world.until(reads("OrderPlaced"))
    await waive(saga)
    await saga.world.until(reads("DeliveryStarted"))
    await saga.engine.delivered(saga.order.order_id)
    await saga.recorded(lambda history: "completed complete_delivery" in story(history))
    await saga.recorded(lambda history: story(history)[-1] == "workflow task completed")
    metadata = await saga.handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    assert "waits for: `revoke_coupon` of team **marketing**" in metadata.current_details
    assert "complete_delivery" not in metadata.current_details
    await saga.come("marketing")
    assert await saga.result() == "Delivered"


@pytest.mark.parametrize("about", ["refund_payment", "pay_order", "complete_delivery", "delivery deadline", " "])
async def test_a_flag_is_about_something_that_the_order_itself_does_not_flag(saga: Saga, about: str) -> None:
    """What it does is cleared by what it learns, or settled."""
    await under_way(saga)
    with pytest.raises(WorkflowUpdateFailedError):
        await saga.handle.execute_update(  # pyright: ignore[reportUnknownMemberType]  (the SDK's type)
            OrderWorkflow.flag, FlagOrder(about=about, detail="")
        )
    assert not saga.world.state.needs_attention
