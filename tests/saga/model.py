"""A small model of an order: what it lets customers, carriers, operators and teams do, and what comes of it.

It knows nothing of time, tasks or messages. Between two actions everything that can happen by itself has happened:
the order waits for a team that has been asked something, for a person, or for nobody any more.
"""

from dataclasses import dataclass, field
from typing import Literal

from workflows.steps import DECLINES, ISSUE_COUPON, PAY_ORDER, SAGA, START_DELIVERY, Step

Outcome = Literal["works", "fails", "loses reply", "refuses"]
Answer = Literal[
    "accepted",
    "too-late-to-cancel",
    "precondition-failed",
    "not-deliverable",
    "not-stuck",
    "not-waiting",
    "not-flagged",
]
ARRIVAL = "complete_delivery"
FINAL = ("Delivered", "PaymentDeclined", "OrderCanceled")
_TEAM = {ARRIVAL: START_DELIVERY.queue} | {name: step.queue for step in SAGA for name in (step.do, step.undo)}
_STEP = {name: step for step in SAGA for name in (step.do, step.undo)}


@dataclass
class OrderModel:
    """One order. The fields say where it stands, and what it must look like."""

    asked: set[str] = field(default_factory=lambda: {SAGA[0].do})
    """What teams have been asked to do and have not answered for good."""
    away: set[str] = field(default_factory=set[str])
    stuck: set[str] = field(default_factory=set[str])
    """The undos that wait for an operator."""
    standing: set[str] = field(default_factory=set[str])
    undone: set[str] = field(default_factory=set[str])
    begun: list[Step] = field(default_factory=lambda: [SAGA[0]])
    events: list[str] = field(default_factory=list[str])
    status: str = "OrderReceived"
    reason: str | None = None
    delivered: bool = False
    waived: bool = False
    settled: set[str] = field(default_factory=set[str])
    """The undos that nobody is asked for any more."""
    flagged: set[str] = field(default_factory=set[str])
    """Why it needs a person."""

    @property
    def held(self) -> set[str]:
        """What teams that are there are busy with."""
        return {name for name in self.asked if _TEAM[name] not in self.away}

    @property
    def over(self) -> bool:
        return not self.asked and not self.flagged and self.status in FINAL

    @property
    def under_way(self) -> bool:
        """Whether all is done, and the goods are on their way."""
        return self.status == "DeliveryStarted"

    def may_leave(self, team: str) -> bool:
        """A team leaves in between two tasks only: what it was busy with would be cut off, which is another story."""
        return team not in self.away and not any(_TEAM[name] == team for name in self.held)

    # What teams answer.

    def answer(self, name: str, outcome: Outcome, code: str = "") -> None:
        """A team is done with an attempt, this way."""
        if name == ARRIVAL:
            self._arrived(outcome, code)
        elif name == _STEP[name].do:
            self._done(_STEP[name], outcome, code)
        else:
            self._undone(_STEP[name], outcome)

    def _done(self, step: Step, outcome: Outcome, code: str) -> None:
        if outcome in ("works", "loses reply"):
            self.standing.add(step.do)
        waived = self.waived and step is ISSUE_COUPON and self.reason is None
        if outcome == "works":
            self.events.append(step.done)
        elif waived:
            pass
        elif outcome == "refuses" and step is PAY_ORDER and code in DECLINES:
            self._end("PaymentDeclined")
            return
        elif outcome == "refuses" and self.reason is None:
            if code not in step.refusals:
                self._flag(step.do)
            self._cancel(step.refusals.get(code, step.unsettled))
        elif self.reason is None:
            return  # it is repeated
        if self.reason is not None:
            self._undo_all()
        elif waived:
            self._go_on_without_coupon()
        else:
            self.status = str(step.achieved(_Coupon).get("order_status", self.status))
            self._next(step)

    def _go_on_without_coupon(self) -> None:
        self.asked.add(ISSUE_COUPON.undo)
        self._next(ISSUE_COUPON)

    def _next(self, step: Step) -> None:
        self.asked.remove(step.do)
        if step is not SAGA[-1]:
            following = SAGA[SAGA.index(step) + 1]
            self.begun.append(following)
            self.asked.add(following.do)

    def _undo_all(self) -> None:
        self.asked = {step.undo for step in self.begun} - self.settled - self.stuck
        self._see_whether_undone()

    def _undone(self, step: Step, outcome: Outcome) -> None:
        if outcome in ("works", "loses reply"):
            self.undone |= self.standing & {step.do}
            self.standing.discard(step.do)
        if outcome == "works":
            if step.do in self.undone:
                self.events.append(step.undone)
            self._settled(step.undo)
        elif outcome == "refuses":
            self.asked.remove(step.undo)
            self.stuck.add(step.undo)
            self._flag(step.undo)

    def _settled(self, undo: str) -> None:
        self.asked.discard(undo)
        self.settled.add(undo)
        self._see_whether_undone()

    def _see_whether_undone(self) -> None:
        if self.status == "OrderCanceling" and not self.asked and not self.stuck:
            self._end("OrderCanceled")

    def _arrived(self, outcome: Outcome, code: str) -> None:
        if outcome == "works":
            self.asked.remove(ARRIVAL)
        elif outcome == "refuses":
            self.asked.remove(ARRIVAL)
            self._flag(ARRIVAL)

    # What people ask for.

    def cancel(self, version: Literal["any", "read", "stale"]) -> Answer:
        """Its customer cancels it: whatever its version, at the one that is read, or at one that was read before."""
        if self.over:
            return "too-late-to-cancel"
        if version == "stale":
            return "precondition-failed"
        if self.status in FINAL:
            return "too-late-to-cancel"
        self._cancel("customer")
        return "accepted"

    def request_cancellation(self) -> None:
        """An operator presses *Request Cancellation*: nobody answers."""
        if self.status not in FINAL:
            self._cancel("operator")

    def deliver(self) -> Answer:
        """The carrier hands it over."""
        if self.over or self.status not in ("DeliveryStarted", "Delivered"):
            return "not-deliverable"
        if not self.delivered:
            self.delivered = True
            self.status = "Delivered"
            self.events.append("Delivered")
            self.asked.add(ARRIVAL)
        return "accepted"

    def settle(self, undo: str, action: Literal["retry", "skip"]) -> Answer:
        """An operator settles an undo."""
        if undo not in self.stuck:
            return "not-stuck"
        self.stuck.remove(undo)
        self.flagged.remove(undo)
        self.events.append("CompensationRetried" if action == "retry" else "CompensationSkipped")
        if action == "retry":
            self.asked.add(undo)
        else:
            self._settled(undo)
        return "accepted"

    def waive(self) -> Answer:
        """An operator lets it go on without its coupon."""
        if self.over or not (self.waived or (ISSUE_COUPON.do in self.asked and self.reason is None)):
            return "not-waiting"
        if not self.waived:
            self.waived = True
            self.events.append("CouponWaived")
            # What marketing is busy with is awaited; what nobody has begun is withdrawn.
            if ISSUE_COUPON.do not in self.held:
                self._go_on_without_coupon()
        return "accepted"

    def clear(self) -> Answer:
        """An operator has seen to what it was flagged for."""
        if not self.flagged - self.stuck:
            return "not-flagged"
        self.flagged &= self.stuck
        self.events.append("AttentionCleared")
        return "accepted"

    def _cancel(self, reason: str) -> None:
        if self.reason is not None:
            return
        self.reason = str(reason)
        self.status = "OrderCanceling"
        self.events.append("OrderCanceling")
        # What a team is busy with is awaited; what nobody has begun is withdrawn.
        if not any(step.do in self.held for step in SAGA):
            self._undo_all()

    def _flag(self, about: str) -> None:
        self.flagged.add(about)
        self.events.append("AttentionRaised")

    def _end(self, status: str) -> None:
        self.asked.clear()
        self.status = status
        self.events.append(status)


class _Coupon:
    """Any coupon, for what having it changes."""

    coupon_id = coupon_kind = ""
