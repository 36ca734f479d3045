"""The order saga: pay, coupon, delivery, stock, and the way back.

`run` turns the platform's cancellation into the shop's; `_story` is the order's life, top down. The table of steps
and undos, with their timeouts and retries, is in `workflows/steps.py`.
"""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, ApplicationErrorCategory

with workflow.unsafe.imports_passed_through():
    from activities.contract import Undone
    from services.order.statuses import CancelReason, DeliveryStatus, EventType, OrderStatus, PayStatus
    from services.shared.money import format_amount
    from workflows import steps
    from workflows.journal import Journal
    from workflows.messages import CancelOrder, PlaceOrder, SettleCompensation
    from workflows.steps import Step

_LATE = "delivery deadline"


class Abandoned(Exception):
    """The order will not go through: everything begun is to be undone."""


class Declined(Exception):
    """The provider said no: nothing was charged, nothing is to be undone."""


@workflow.defn(name="OrderWorkflow")
class OrderWorkflow:
    """One order, from its acceptance until it is delivered, declined or undone. Workflow id = order id."""

    @workflow.init
    def __init__(self, order: PlaceOrder) -> None:
        self._order = order
        self._journal = Journal(order.order_id)
        self._turn = asyncio.Lock()
        self._asked = 0
        self._cancel: CancelOrder | None = None
        self._delivered = False
        self._payment_known = False
        self._begun: list[Step] = []
        self._undone: list[Step] = []
        self._attention: dict[str, str] = {}
        self._settlements: dict[str, SettleCompensation] = {}
        self._waiting_for = ""

    @workflow.run
    async def run(self, order: PlaceOrder) -> str:
        """The order's final status.

        The story runs in a task of its own, which a *Request Cancellation* of the Web UI never reaches: it only sets
        the same flag as a customer's cancel, so no step's outcome is ever lost to a `CancelledError`.
        """
        story = asyncio.create_task(self._story())
        while not story.done():
            try:
                await asyncio.shield(story)
            except asyncio.CancelledError:
                if workflow.cancellation_reason() is not None:  # else the worker lets go of the workflow: so does it
                    await self._asked_to_cancel()
                    self._journal.await_decision()
                    actor = workflow.cancellation_reason() or "Request Cancellation"
                    self._request_cancel(CancelOrder(reason=CancelReason.OPERATOR, actor=actor))
        return story.result()

    async def _story(self) -> str:
        try:
            for step in steps.SAGA:
                await self._do(step)
            await self._await_delivery()
        except Declined as declined:
            self._journal.add(
                EventType.PAYMENT_DECLINED,
                detail={"code": str(declined)},
                order_status=OrderStatus.PAYMENT_DECLINED,
                pay_status=PayStatus.DECLINED,
            )
        except Abandoned:
            await self._compensate()
        self._payment_known = True
        self._tell("nothing any more")
        await self._journal.flush()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._journal.state.order_status

    async def _do(self, step: Step) -> None:
        """Run a step and learn its true outcome, whatever happens meanwhile."""
        if self._asked:  # what may be cancelled in a moment begins nothing new
            await workflow.wait_condition(lambda: not self._asked)
        if self._cancel is not None:
            raise Abandoned
        self._begun.append(step)  # before the step: it may take effect and still fail
        self._tell(f"`{step.do}` of team **{step.queue}**")
        activity = workflow.start_activity(
            step.do,
            step.command(self._order),
            task_queue=step.queue,
            result_type=step.result,
            schedule_to_close_timeout=step.budget(self._order),
            start_to_close_timeout=step.attempt,
            heartbeat_timeout=step.heartbeat,
            retry_policy=step.retry,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=step.summary(self._order),
        )
        await workflow.wait_condition(lambda: activity.done() or self._cancel is not None)
        if not activity.done():
            # Withdrawn at once where no worker has it or it waits to be repeated; a running attempt is awaited.
            activity.cancel()
            await workflow.wait_condition(activity.done)
        try:
            changes = step.achieved(activity.result())
        except ActivityError as error:
            self._failed(step, error)
            raise Abandoned from error
        if self._cancel is not None:
            changes.pop("order_status", None)  # it reads OrderCanceling by now
        self._journal.add(step.done, soon=step is not steps.SAGA[-1], **changes)
        if step is steps.PAY_ORDER:
            self._journal.write()  # at once: until it reads so, nobody else has its place among the payments in flight
            self._payment_known = True

    def _failed(self, step: Step, error: ActivityError) -> None:
        """A step did not succeed: say why the order is abandoned. Raises `Declined`."""
        code = error.cause.type if isinstance(error.cause, ApplicationError) else None
        if step is steps.PAY_ORDER and code in steps.DECLINES:
            raise Declined(code) from error
        if self._cancel is not None:
            return
        reason = step.refusals.get(code or "")
        if reason is None:
            reason = step.unsettled
            self._raise_attention(step.do, error)
        self._request_cancel(CancelOrder(reason=reason, actor=step.queue))

    async def _await_delivery(self) -> None:
        """The goods are on their way: wait for the carrier, a cancellation, or the deadline."""
        self._tell("the carrier's *Delivered*")

        def decided() -> bool:
            return self._delivered or self._cancel is not None

        try:
            await workflow.wait_condition(
                decided, timeout=self._order.deliver_within, timeout_summary="delivery deadline"
            )
        except TimeoutError:
            self._raise_attention(_LATE, None)
            await workflow.wait_condition(decided)
        self._attention.pop(_LATE, None)
        if not self._delivered:
            raise Abandoned
        self._journal.add(
            EventType.DELIVERED,
            order_status=OrderStatus.DELIVERED,
            delivery_status=DeliveryStatus.DELIVERED,
            needs_attention=False,
        )
        self._tell("`complete_delivery` of team **delivery**")
        try:
            await workflow.execute_activity(
                "complete_delivery",
                steps.START_DELIVERY.command(self._order),
                task_queue=steps.START_DELIVERY.queue,
                start_to_close_timeout=steps.COMPLETION_ATTEMPT,
                retry_policy=steps.COMPLETION_RETRY,
                summary="note the arrival",
            )
        except ActivityError as error:  # the goods are with the customer, whatever the delivery team's books say
            self._raise_attention("complete_delivery", error)

    async def _compensate(self) -> None:
        """Undo everything begun. Each undo starts in its turn; none waits long for the one before."""
        self._payment_known = True
        undos: list[asyncio.Task[None]] = []
        for step in steps.COMPENSATION_ORDER:
            if step not in self._begun:
                continue
            undo = asyncio.create_task(self._undo(step))
            undos.append(undo)
            try:
                await workflow.wait_condition(
                    undo.done, timeout=steps.UNDO_PATIENCE, timeout_summary=f"patience with {step.queue}"
                )
            except TimeoutError:
                continue
        for undo in undos:
            await undo
        self._journal.add(
            EventType.ORDER_CANCELED,
            order_status=OrderStatus.ORDER_CANCELED,
            needs_attention=bool(self._attention),
        )

    async def _undo(self, step: Step) -> None:
        """Undo one step, if it takes days. One that fails for good waits for an operator."""
        while True:
            self._tell_compensation()
            try:
                undone = await workflow.execute_activity(
                    step.undo,
                    step.command(self._order),
                    task_queue=step.queue,
                    result_type=Undone,
                    schedule_to_close_timeout=steps.UNDO_BUDGET,
                    start_to_close_timeout=steps.UNDO_ATTEMPT,
                    heartbeat_timeout=step.heartbeat,
                    retry_policy=steps.UNDO_RETRY,
                    summary=f"undo: {step.summary(self._order)}",
                )
            except ActivityError as error:
                self._raise_attention(step.undo, error)
                if await self._settled(step) == "skip":
                    break
            else:
                if undone.changed:
                    self._journal.add(step.undone, **step.reverted)
                break
        self._undone.append(step)
        self._tell_compensation()

    async def _settled(self, step: Step) -> str:
        """An operator's decision on an undo that is stuck."""
        await workflow.wait_condition(lambda: step.undo in self._settlements)
        settlement = self._settlements.pop(step.undo)
        del self._attention[step.undo]
        retry = settlement.action == "retry"
        self._journal.add(
            EventType.COMPENSATION_RETRIED if retry else EventType.COMPENSATION_SKIPPED,
            detail={"undo": step.undo, "actor": settlement.actor, "reason": settlement.reason},
            needs_attention=bool(self._attention),
        )
        return settlement.action

    async def _in_turn(self) -> None:
        """Let everything else that the engine tells together with a message be heeded before it, and messages in turn.

        A workflow task that never gets to its end (its worker or the engine dies) is repeated, and what was written
        beside it has been read by then: what a step came to, as a version of the order. The repetition must come to
        the same, though it may hear of new messages, which the SDK delivers before all else. A message that is refused
        by what came before it is refused after all: who sent it is told by an error of the same code.
        """
        async with self._turn:  # first come, first served, whichever activity is done first
            await workflow.execute_local_activity("take_turn", start_to_close_timeout=steps.STATUS_ATTEMPT)

    async def _asked_to_cancel(self) -> None:
        """Wait for the turn of somebody who wants the order cancelled."""
        self._asked += 1
        try:
            await self._in_turn()
        finally:
            self._asked -= 1

    def _request_cancel(self, request: CancelOrder) -> None:
        if self._cancel is not None or self._delivered or self._journal.state.order_status.final:
            return
        self._cancel = request
        self._journal.add(
            EventType.ORDER_CANCELING,
            detail={"reason": request.reason, "actor": request.actor},
            order_status=OrderStatus.ORDER_CANCELING,
            cancel_reason=request.reason,
        )

    @workflow.update(name="cancel")
    async def cancel(self, request: CancelOrder) -> str:
        """Undo the order. Repeating it is harmless. Refused once it is delivered, was declined, or reads another
        version than the one that the request depends on."""
        await self._asked_to_cancel()
        self._can_cancel(request)
        self._journal.await_decision()
        self._request_cancel(request)
        return self._journal.state.order_status

    @cancel.validator
    def _can_cancel(self, request: CancelOrder) -> None:
        if request.if_version not in (None, self._journal.shown):
            raise _refusal("precondition-failed", f"the order is at version {self._journal.shown}")
        if self._delivered or self._journal.state.order_status.final:
            raise _refusal("too-late-to-cancel", f"the order is {self._journal.state.order_status}")

    @workflow.update(name="delivered")
    async def delivered(self) -> str:
        """The carrier handed the goods over."""
        await self._in_turn()
        if self._journal.state.order_status not in (OrderStatus.DELIVERY_STARTED, OrderStatus.DELIVERED):
            raise self._not_deliverable()
        self._journal.await_decision()
        self._delivered = True
        return OrderStatus.DELIVERED

    @delivered.validator
    def _may_come_to_be_delivered(self) -> None:
        # Before its turn: that the last step is done may be told together with this, and is heeded after it.
        if self._cancel is not None or steps.SAGA[-1] not in self._begun:
            raise self._not_deliverable()

    def _not_deliverable(self) -> ApplicationError:
        return _refusal("not-deliverable", f"the order is {self._journal.state.order_status}")

    @workflow.update(name="settle")
    async def settle(self, settlement: SettleCompensation) -> None:
        """An operator settles an undo that failed for good."""
        await self._in_turn()
        self._can_settle(settlement)
        self._journal.await_decision()
        self._settlements[settlement.undo] = settlement

    @settle.validator
    def _can_settle(self, settlement: SettleCompensation) -> None:
        if settlement.undo not in {step.undo for step in self._begun if step.undo in self._attention}:
            stuck = ", ".join(step.undo for step in self._begun if step.undo in self._attention) or "none"
            raise _refusal("not-stuck", f"{settlement.undo} is not stuck; stuck are: {stuck}")
        if settlement.undo in self._settlements:
            raise _refusal("not-stuck", f"{settlement.undo} was settled just now")
        if settlement.action not in ("retry", "skip"):
            raise _refusal("not-stuck", f"action is retry or skip, not {settlement.action}")
        if not settlement.actor.strip() or not settlement.reason.strip():
            raise _refusal("not-stuck", "say who settles it, and why")

    @workflow.update(name="payment_known")
    async def payment_known(self) -> None:
        """Answers as soon as it is known whether the order is paid."""
        await workflow.wait_condition(lambda: self._payment_known)

    def _raise_attention(self, about: str, error: ActivityError | None) -> None:
        """Call a person. What went wrong in full is for operators; customers read the timeline, and its code."""
        code = error.cause.type if error and isinstance(error.cause, ApplicationError) else None
        self._attention[about] = f"{about}: {error.cause or error}" if error else about
        self._journal.add(
            EventType.ATTENTION_RAISED,
            detail={"about": about, **({"code": code} if code else {})},
            needs_attention=True,
        )
        self._describe()

    def _tell_compensation(self) -> None:
        left = [step for step in steps.COMPENSATION_ORDER if step in self._begun and step not in self._undone]
        self._tell(", ".join(f"`{step.undo}` of team **{step.queue}**" for step in left) or "the last entry")

    def _tell(self, waiting_for: str) -> None:
        self._waiting_for = f"{waiting_for}, since {workflow.now():%Y-%m-%d %H:%M:%S} UTC"
        self._describe()

    def _describe(self) -> None:
        """What the Web UI shows of the order, for whoever is on call."""
        order, state = self._order, self._journal.state
        lines = [
            f"**{state.order_status}** · {order.product_name} × {order.qty} · "
            f"{format_amount(order.amount, order.currency)} · {state.pay_status}",
            f"- waits for: {self._waiting_for}",
            *([f"- canceled by: {self._cancel.reason} ({self._cancel.actor})"] if self._cancel else []),
            *(f"- **needs attention** {why}" for why in self._attention.values()),
        ]
        if any(step.undo in self._attention for step in self._begun):
            lines.append(
                '- to settle: update `settle` {"undo": …, "action": "retry" or "skip", "actor": …, "reason": …}'
            )
        elif not state.order_status.final and self._cancel is None:
            lines.append("- to undo the order: *Request Cancellation*. Never terminate: effects would stay behind.")
        workflow.set_current_details("\n".join(lines))


def _refusal(code: str, message: str) -> ApplicationError:
    return ApplicationError(message, type=code, category=ApplicationErrorCategory.BENIGN)
