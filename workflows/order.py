"""The order saga: pay, coupon, delivery, stock, and the way back.

`run` turns the platform's cancellation into the shop's; `_story` is the order's life, top down. The table of steps
and undos, with their timeouts and retries, is in `workflows/steps.py`.
"""

import asyncio
from collections.abc import Iterable

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, ApplicationErrorCategory, CancelledError

with workflow.unsafe.imports_passed_through():
    from activities.contract import RecordStatus, Undone
    from services.order.statuses import CancelReason, DeliveryStatus, EventType, OrderStatus, PayStatus
    from workflows import meters, steps
    from workflows.details import Situation, Waiting, details, work_of
    from workflows.journal import Journal
    from workflows.messages import (
        CancelOrder,
        ClearAttention,
        FlagOrder,
        PlaceOrder,
        Resumed,
        SettleCompensation,
        WaiveCoupon,
    )
    from workflows.steps import Step

_LATE = "delivery deadline"
_ENDS = frozenset({EventType.DELIVERED, EventType.PAYMENT_DECLINED, EventType.ORDER_CANCELED})
_EARLIER = "flagged before its workflow was lost"
_TERMINATED = "ended workflow"
_ARRIVAL = "complete_delivery"
# Of what people write and failures say. The engine takes no more than 2 MB at once, and status writes go together: a
# task that is refused for its size is repeated for ever.
_LONGEST = 500


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
        self._journal = Journal(order.order_id, order.resumed)
        self._earlier = frozenset(order.resumed.done if order.resumed else ())
        self._turn = asyncio.Lock()
        self._asked = 0
        self._cancel: CancelOrder | None = None
        self._waived = EventType.COUPON_WAIVED in self._earlier
        self._delivered = self._journal.state.order_status is OrderStatus.DELIVERED
        self._payment_known = False
        self._begun = [step for step in steps.SAGA if step.done in self._earlier]
        self._running: Step | None = None
        self._undos: dict[str, asyncio.Task[None]] = {}
        self._attention: dict[str, str] = {_EARLIER: _EARLIER} if self._journal.state.needs_attention else {}
        self._settlements: dict[str, SettleCompensation] = {}
        self._waiting: dict[str, Waiting] = {}
        self._last_error = ""

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
                    actor = (workflow.cancellation_reason() or "Request Cancellation")[:_LONGEST]
                    self._request_cancel(CancelOrder(reason=CancelReason.OPERATOR, actor=actor))
        return story.result()

    async def _story(self) -> str:
        try:
            self._take_up()
            if not self._journal.state.order_status.final:
                for step in steps.SAGA:
                    await self._do(step)
                await self._await_delivery()
            if self._delivered:
                await self._note_arrival()
        except Declined as declined:
            self._journal.add(
                EventType.PAYMENT_DECLINED,
                detail={"code": str(declined)},
                order_status=OrderStatus.PAYMENT_DECLINED,
                pay_status=PayStatus.DECLINED,
            )
        except Abandoned:
            await self._compensate()
        if not self._earlier & _ENDS:  # else it was counted before
            meters.order_settled(self._journal.state.order_status, self._journal.state.cancel_reason)
        self._payment_known = True
        self._waiting.pop("", None)
        self._describe()
        for undo in self._undos.values():
            await undo  # a waived coupon's, once marketing is back
        await self._rest()
        return self._journal.state.order_status

    def _take_up(self) -> None:
        """Go on where an order stood whose workflow is gone. Raises `Abandoned`."""
        resumed, status = self._order.resumed, self._journal.state.order_status
        if resumed is None:
            return
        revoked = EventType.COUPON_REVOKED in self._earlier or steps.ISSUE_COUPON.undo in resumed.skipped
        if self._waived and not revoked and status is not OrderStatus.ORDER_CANCELED:
            if steps.ISSUE_COUPON not in self._begun:
                self._begun.append(steps.ISSUE_COUPON)
            self._begin_undo(steps.ISSUE_COUPON)
        canceling = status is OrderStatus.ORDER_CANCELING
        if status.final or (not canceling and not resumed.undo):
            return
        self._begun = _all_but_skipped(resumed)
        reason = self._journal.state.cancel_reason or CancelReason.OPERATOR
        if canceling:
            self._cancel = CancelOrder(reason=reason, actor=_TERMINATED)
        else:
            self._request_cancel(CancelOrder(reason=reason, actor=_TERMINATED))
        raise Abandoned

    async def _rest(self) -> None:
        """Everything is done. An order that is flagged stays open all the same, until a person has seen to it: there
        is nobody else who could clear it."""
        while True:
            self._tell("nothing any more")
            await self._journal.flush()
            await workflow.wait_condition(workflow.all_handlers_finished)
            if not self._journal.flushed:  # a message came while the last write was under way
                continue
            if not self._attention or not workflow.patched("flagged-orders-stay-open"):
                return
            self._tell("a person")
            await workflow.wait_condition(lambda: not self._attention)

    async def _do(self, step: Step) -> None:
        """Run a step and learn its true outcome, whatever happens meanwhile."""
        if step in self._begun and step is not steps.PAY_ORDER:
            return  # of an order that is taken up; its payment says whether it was called off, and nobody wrote it down
        if self._asked:  # what may be cancelled in a moment begins nothing new
            await workflow.wait_condition(lambda: not self._asked)
        if self._cancel is not None:
            raise Abandoned
        if step not in self._begun:
            self._begun.append(step)  # before the step: it may take effect and still fail
        if self._waived and step is steps.ISSUE_COUPON:
            self._begin_undo(step)
            return
        self._running, began = step, workflow.now()
        self._tell(work_of([step.do], step.queue))
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

        def given_up() -> bool:
            return self._cancel is not None or (self._waived and step is steps.ISSUE_COUPON)

        await workflow.wait_condition(lambda: activity.done() or given_up())
        if not activity.done():
            # Withdrawn at once where no worker has it or it waits to be repeated; a running attempt is awaited.
            activity.cancel()
            await workflow.wait_condition(activity.done)
        self._running = None
        waived = self._waived and step is steps.ISSUE_COUPON and self._cancel is None
        try:
            changes = step.achieved(activity.result())
        except ActivityError as error:
            meters.step_known(step.do, _outcome(step, error), began)
            if not waived:
                self._failed(step, error)
                raise Abandoned from error
        else:
            meters.step_known(step.do, "done", began)
            if waived or self._cancel is not None:
                changes.pop("order_status", None)  # it reads OrderCanceling by now, or never had to have it
            if step.done not in self._earlier:
                self._journal.add(step.done, soon=step is not steps.SAGA[-1], **changes)
        if waived:
            self._begin_undo(step)  # an attempt may have issued it all the same, or still may
        if step is steps.PAY_ORDER:
            self._journal.write()  # at once: until it reads so, nobody else has its place among the payments in flight
            self._payment_known = True

    def _failed(self, step: Step, error: ActivityError) -> None:
        """A step did not succeed: say why the order is abandoned. Raises `Declined`."""
        code = _code(error)
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

        while not decided():
            try:
                await workflow.wait_condition(
                    decided, timeout=self._order.deliver_within, timeout_summary="delivery deadline"
                )
            except TimeoutError:
                self._raise_attention(_LATE, None)
                # Once a person has seen to it, it has as long again.
                await workflow.wait_condition(lambda: decided() or _LATE not in self._attention)
        self._attention.pop(_LATE, None)
        if not self._delivered:
            raise Abandoned
        self._journal.add(
            EventType.DELIVERED,
            order_status=OrderStatus.DELIVERED,
            delivery_status=DeliveryStatus.DELIVERED,
            needs_attention=bool(self._attention),
        )

    async def _note_arrival(self) -> None:
        self._tell(work_of([_ARRIVAL], steps.START_DELIVERY.queue))
        try:
            await workflow.execute_activity(
                _ARRIVAL,
                steps.START_DELIVERY.command(self._order),
                task_queue=steps.START_DELIVERY.queue,
                start_to_close_timeout=steps.COMPLETION_ATTEMPT,
                retry_policy=steps.COMPLETION_RETRY,
                summary="note the arrival",
            )
        except ActivityError as error:  # the goods are with the customer, whatever the delivery team's books say
            self._raise_attention(_ARRIVAL, error)

    async def _compensate(self) -> None:
        """Undo everything begun. Each undo starts in its turn; none waits long for the one before."""
        self._payment_known = True
        self._waiting.pop("", None)
        if self._may_have_begun_more():
            self._begun = _all_but_skipped(self._order.resumed)
        undos: list[asyncio.Task[None]] = []
        for step in steps.COMPENSATION_ORDER:
            if step not in self._begun:
                continue
            undo = self._begin_undo(step)
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

    def _may_have_begun_more(self) -> bool:
        """Whether an earlier workflow of the order may have begun steps that this one does not know of."""
        resumed, info = self._order.resumed, workflow.info()
        if resumed is not None and resumed.unsure:
            return True
        # One that was reset to where it had not come to them yet. A replay goes by the marker: it may have a history
        # from a file, of which nobody knows the run.
        reset = info.run_id != info.first_execution_run_id
        return (reset or workflow.unsafe.is_replaying()) and workflow.patched("reset-orders-undo-all")

    def _begin_undo(self, step: Step) -> asyncio.Task[None]:
        """Undo a step, once."""
        if step.undo not in self._undos:
            self._undos[step.undo] = asyncio.create_task(self._undo(step))
        return self._undos[step.undo]

    async def _undo(self, step: Step) -> None:
        """Undo one step, if it takes days. One that fails for good waits for an operator."""
        while True:
            self._tell(work_of([step.undo], step.queue), about=step.undo)
            began = workflow.now()
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
                meters.undo_known(step.undo, "stuck", began)
                self._raise_attention(step.undo, error)
                if await self._settled(step) == "skip":
                    break
            else:
                meters.undo_known(step.undo, "undone" if undone.changed else "nothing", began)
                if undone.changed and step.undone not in self._earlier:
                    self._journal.add(step.undone, **step.reverted)
                break
        del self._waiting[step.undo]
        self._describe()

    async def _settled(self, step: Step) -> str:
        """An operator's decision on an undo that is stuck."""
        self._tell(f"an operator's `settle` of `{step.undo}`", about=step.undo)
        await workflow.wait_condition(lambda: step.undo in self._settlements)
        settlement = self._settlements.pop(step.undo)
        meters.compensation_settled(step.undo, settlement.action)
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
            limit, why = steps.STATUS_ATTEMPT, "after what was told together with it"
            await workflow.execute_local_activity("take_turn", start_to_close_timeout=limit, summary=why)

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
            detail={
                "reason": request.reason,
                "actor": request.actor,
                **({"note": request.note.strip()} if request.note.strip() else {}),
            },
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
    def _may_cancel(self, request: CancelOrder) -> None:
        # Here and not after its turn: what was accepted once must be accepted when it is replayed.
        _must_be_short("too-late-to-cancel", request.actor, request.note)
        self._can_cancel(request)

    def _can_cancel(self, request: CancelOrder) -> None:
        if request.if_version not in (None, self._journal.shown):
            raise _refusal("precondition-failed", f"the order is at version {self._journal.shown}")
        if self._delivered or self._journal.state.order_status.final:
            raise _refusal("too-late-to-cancel", f"the order is {self._journal.state.order_status}")

    @workflow.update(name="delivered")
    async def delivered(self) -> str:
        """The carrier handed the goods over."""
        if self._order.resumed is not None:  # its payment may tell that it was called off
            await workflow.wait_condition(lambda: self._payment_known or self._journal.state.order_status.final)
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
    def _may_settle(self, settlement: SettleCompensation) -> None:
        _must_be_short("not-stuck", settlement.actor, settlement.reason)
        self._can_settle(settlement)

    def _can_settle(self, settlement: SettleCompensation) -> None:
        if settlement.undo not in self._stuck():
            raise _refusal("not-stuck", f"{settlement.undo} is not stuck; stuck are: {_listed(self._stuck())}")
        if settlement.undo in self._settlements:
            raise _refusal("not-stuck", f"{settlement.undo} was settled just now")
        if settlement.action not in ("retry", "skip"):
            raise _refusal("not-stuck", f"action is retry or skip, not {settlement.action}")
        _must_be_signed("not-stuck", settlement.actor, settlement.reason)

    @workflow.update(name="waive_coupon")
    async def waive_coupon(self, waiver: WaiveCoupon) -> None:
        """An operator lets the order go on without the coupon that it waits for. Repeating it is harmless."""
        await self._in_turn()
        self._can_waive(waiver)
        self._journal.await_decision()
        if not self._waived:
            self._waived = True
            self._journal.add(EventType.COUPON_WAIVED, detail={"actor": waiver.actor, "reason": waiver.reason})

    @waive_coupon.validator
    def _may_waive(self, waiver: WaiveCoupon) -> None:
        _must_be_short("not-waiting", waiver.actor, waiver.reason)
        self._can_waive(waiver)

    def _can_waive(self, waiver: WaiveCoupon) -> None:
        if not self._waived and not self._waits_for_coupon():
            raise _refusal("not-waiting", "the order does not wait for its coupon")
        _must_be_signed("not-waiting", waiver.actor, waiver.reason)

    @workflow.update(name="clear_attention")
    async def clear_attention(self, clearance: ClearAttention) -> None:
        """An operator has seen to what the order was flagged for. A stuck undo is settled instead."""
        await self._in_turn()
        self._can_clear(clearance)
        self._journal.await_decision()
        cleared = self._clearable(clearance)
        for about in cleared:
            del self._attention[about]
        self._journal.add(
            EventType.ATTENTION_CLEARED,
            detail={"about": _listed(cleared), "actor": clearance.actor, "reason": clearance.reason},
            needs_attention=bool(self._attention),
        )
        self._describe()

    @clear_attention.validator
    def _may_clear(self, clearance: ClearAttention) -> None:
        _must_be_short("not-flagged", clearance.actor, clearance.reason, clearance.about)
        self._can_clear(clearance)

    def _clearable(self, clearance: ClearAttention) -> list[str]:
        """What it was flagged for and is seen to. A stuck undo never is."""
        flagged = [about for about in self._attention if about not in self._stuck()]
        return [about for about in flagged if clearance.about in ("", about)]

    def _can_clear(self, clearance: ClearAttention) -> None:
        if not self._clearable(clearance):
            stuck = _listed(self._stuck())
            raise _refusal("not-flagged", f"flagged for: {_listed(self._attention)}; of those to settle: {stuck}")
        _must_be_signed("not-flagged", clearance.actor, clearance.reason)

    @workflow.update(name="flag")
    async def flag(self, flag: FlagOrder) -> None:
        """Something about the order was found that only a person can put right. Once for each thing."""
        await self._in_turn()
        self._journal.await_decision()
        if flag.about not in self._attention:
            self._call_person(flag.about, f"{flag.about}: {flag.detail}", {"actor": flag.actor})

    @flag.validator
    def _may_flag(self, flag: FlagOrder) -> None:
        _must_be_short("not-flagged", flag.about, flag.detail, flag.actor)
        own = {_LATE, _EARLIER, _ARRIVAL, *(name for step in steps.SAGA for name in (step.do, step.undo))}
        if not flag.about.strip() or flag.about in own:
            raise _refusal("not-flagged", f"about must name something that the order itself does not: {flag.about!r}")

    @workflow.query(name="journal")
    def journal(self) -> RecordStatus:
        """What the view must read of the order, and its timeline as far as this workflow has written it."""
        return self._journal.whole

    @workflow.update(name="payment_known")
    async def payment_known(self) -> None:
        """Answers as soon as it is known whether the order is paid."""
        await workflow.wait_condition(lambda: self._payment_known)

    def _raise_attention(self, about: str, error: ActivityError | None) -> None:
        """Call a person. What went wrong in full is for operators; customers read the timeline, and its code."""
        code = _code(error)
        if error:
            self._last_error = f"{about}: {_told(error)}"
        self._call_person(about, self._last_error if error else about, {"code": code} if code else {})

    def _call_person(self, about: str, why: str, detail: dict[str, str]) -> None:
        self._attention[about] = why
        self._journal.add(EventType.ATTENTION_RAISED, detail={"about": about, **detail}, needs_attention=True)
        self._describe()

    def _stuck(self) -> list[str]:
        """The undos that wait for an operator."""
        return [step.undo for step in self._begun if step.undo in self._attention]

    def _waits_for_coupon(self) -> bool:
        return self._running is steps.ISSUE_COUPON and self._cancel is None

    def _tell(self, what: str, about: str = "") -> None:
        """The order waits for this from now on; an undo that it is `about` may go on beside the rest."""
        self._waiting[about] = Waiting(what, workflow.now())
        self._describe()

    def _describe(self) -> None:
        """Tell the Web UI how the order stands."""
        final = self._journal.state.order_status.final
        now = Situation(
            waiting=[*self._waiting.values()],
            stuck=self._stuck(),
            attention=self._attention,
            last_error=self._last_error,
            cancel=self._cancel,
            may_cancel=not final and self._cancel is None,
            may_waive=self._waits_for_coupon() and not self._waived,
        )
        workflow.set_current_details(details(self._order, self._journal.state, now))


def _code(error: ActivityError | None) -> str | None:
    """What a team calls the failure of its activity."""
    return error.cause.type if error and isinstance(error.cause, ApplicationError) else None


def _outcome(step: Step, error: ActivityError) -> str:
    """What a step that was not done came to, for the metrics."""
    if isinstance(error.cause, CancelledError):
        return "withdrawn"
    return (
        "refused"
        if _code(error) in {*step.refusals, *(steps.DECLINES if step is steps.PAY_ORDER else ())}
        else "failed"
    )


def _told(error: ActivityError) -> str:
    """How a team put it; its message begins with the code, as its type does."""
    cause = error.cause
    return (cause.message if isinstance(cause, ApplicationError) else str(cause or error))[:_LONGEST]


def _all_but_skipped(resumed: Resumed | None) -> list[Step]:
    """What is to be undone where nobody knows what was begun. An undo of nothing does no harm."""
    return [step for step in steps.SAGA if resumed is None or step.undo not in resumed.skipped]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _must_be_short(code: str, *texts: str) -> None:
    if any(len(text) > _LONGEST for text in texts):
        raise _refusal(code, f"say it in {_LONGEST} characters")


def _must_be_signed(code: str, actor: str, reason: str) -> None:
    if not actor.strip() or not reason.strip():
        raise _refusal(code, "say who decides it, and why")


def _refusal(code: str, message: str) -> ApplicationError:
    return ApplicationError(message, type=code, category=ApplicationErrorCategory.BENIGN)
