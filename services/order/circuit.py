"""The shop's circuit breaker as pure rules: when orders are taken, when not, and when to come back.

Two things close the door. Too many payments in flight: that is counted anew each time. And payments that have become
slow: the circuit opens, stays open for a cooldown, then lets exactly one order through as a trial, and closes when the
trial's payment was fast.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median

from services.shared.settings import OrderSettings

MEASURED = 10
"""How many payments, the last ones, are looked at to tell whether payments are slow."""
_LONGEST_RETRY_SECONDS = 60


class Intake(StrEnum):
    """Whether orders are taken, or else why not."""

    OPEN = "open"
    PAYMENTS_PENDING = "paymentsPending"
    PAYMENTS_SLOW = "paymentsSlow"


@dataclass(frozen=True, kw_only=True)
class AdmissionRules:
    """What a shop may set. `slow` is the median payment above which the circuit opens, for `cooldown` at first."""

    max_pending: int = 3
    slow: timedelta = timedelta(milliseconds=610)
    cooldown: timedelta = timedelta(seconds=5)


def admission_rules(settings: OrderSettings) -> AdmissionRules:
    """The rules as a shop has set them."""
    return AdmissionRules(
        max_pending=settings.max_pending_payments,
        slow=timedelta(milliseconds=settings.slow_payment_ms),
        cooldown=timedelta(seconds=settings.admission_cooldown_seconds),
    )


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """Closed while `open_since` is not set. `trial_at` is from when on an order may go through as a trial.

    `recent` is how long the last payments had taken when their outcome became known, whatever it was.
    """

    open_since: datetime | None = None
    trial_at: datetime | None = None
    trial_order_id: str | None = None
    recent: tuple[timedelta, ...] = ()

    @property
    def median(self) -> timedelta | None:
        """What a payment takes, by the last ones; nothing if there were none since the circuit closed."""
        return timedelta(seconds=median(took.total_seconds() for took in self.recent)) if self.recent else None

    def settled(self, rules: AdmissionRules, order_id: str, *, took: timedelta, at: datetime) -> "Circuit":
        """A payment's outcome became known at that moment, after so long."""
        after = replace(self, recent=(*self.recent, took)[-MEASURED:])
        if self.open_since is None:
            slow = len(after.recent) == MEASURED and after.median is not None and after.median > rules.slow
            return after._opened(rules, at) if slow else after
        if order_id != self.trial_order_id:
            return after
        return after._opened(rules, at) if took > rules.slow else Circuit()

    def tried_by(self, order_id: str | None) -> "Circuit":
        """An order goes through as the trial; or none does, because the one that did ended without an outcome."""
        return replace(self, trial_order_id=order_id)

    def _opened(self, rules: AdmissionRules, at: datetime) -> "Circuit":
        return replace(self, open_since=self.open_since or at, trial_at=at + rules.cooldown, trial_order_id=None)


@dataclass(frozen=True, kw_only=True)
class Pending:
    """An accepted order whose payment is in flight."""

    order_id: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the intake of orders stands at a moment: the circuit, and the payments in flight.

    `oldest` is the one that has waited longest; not given where orders are taken, because nobody asks then.
    """

    rules: AdmissionRules
    circuit: Circuit
    pending: int
    at: datetime
    oldest: Pending | None = None

    @property
    def on_trial(self) -> bool:
        """Whether the circuit is open and has cooled down: the next order, or the one under way, is its trial.

        A cooldown that would last for longer than one was set by a clock that is ahead of ours: it is not waited for.
        """
        trial_at = self.circuit.trial_at
        return trial_at is not None and not trial_at - self.rules.cooldown <= self.at < trial_at

    @property
    def room(self) -> int:
        """How many orders may be taken now."""
        free = max(0, self.rules.max_pending - self.pending)
        if self.circuit.open_since is None:
            return free
        return min(1, free) if self.on_trial and self.circuit.trial_order_id is None else 0

    @property
    def intake(self) -> Intake:
        """Whether orders are taken, or else why not."""
        if self.circuit.open_since is not None:
            return Intake.PAYMENTS_SLOW
        return Intake.OPEN if self.room else Intake.PAYMENTS_PENDING

    @property
    def retry_after_seconds(self) -> int:
        """When it is worth asking again: whole seconds, 1 to 60.

        That is when the next trial is due; or else when a payment in flight should finish, by how long the last ones
        took. Where the oldest in flight has waited for longer than that, as long again.
        """
        if self.circuit.trial_at is not None and not self.on_trial:
            seconds = (self.circuit.trial_at - self.at).total_seconds()
        else:
            usual = (self.circuit.median or timedelta()).total_seconds()
            waited = (self.at - self.oldest.since).total_seconds() if self.oldest else 0.0
            seconds = waited if waited > usual else usual / self.rules.max_pending
        return min(max(1, math.ceil(seconds)), _LONGEST_RETRY_SECONDS)
