"""Who may order now, over all processes that take orders. Decided in the order database, in the accepting transaction.

One row carries the circuit. Payments in flight are not counted there but in the status view, which is the truth about
them. Whoever takes an order locks that row last before the commit and counts what is there then, its own included:
so no two can both take the last place, and the lock is held for a moment only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.order import repository
from services.order.circuit import AdmissionRules, Circuit, Intake, Pending, Standing
from services.order.statuses import OrderStatus
from services.order.tables import AdmissionState
from services.shared.clock import Clock, utc_now
from services.shared.database import Database, insert_if_new

_NAME = "payments"


@dataclass(frozen=True, kw_only=True)
class AdmissionReport:
    """What an operator reads: where the intake stands, and since when it takes no orders, if it does not."""

    standing: Standing
    since: datetime | None


class Admission:
    """The one door for orders. What has a `session` is a part of its caller's transaction."""

    def __init__(self, rules: AdmissionRules, clock: Clock = utc_now) -> None:
        self._rules = rules
        self._clock = clock

    async def look(self, session: repository.AsyncSession) -> Standing:
        """Where the intake stands, as far as can be said without holding anybody up."""
        standing = await self._standing(session, await repository.admission(session, _NAME), besides=0)
        return standing if standing.room else replace(standing, oldest=await _pending(session, newest=False))

    async def take(self, session: repository.AsyncSession, order_ids: Sequence[str]) -> bool:
        """Take places for orders that this transaction has put in; where it says no, they must be taken back."""
        standing = await self._standing(session, await _locked(session), besides=len(order_ids))
        if standing.room < len(order_ids):
            return False
        if standing.on_trial:
            await repository.set_admission(session, self._row(standing.circuit.tried_by(order_ids[0])))
        return True

    async def settled(self, session: repository.AsyncSession, order_id: str, *, took: timedelta) -> None:
        """A payment's outcome became known, after so long. To be told once for each payment."""
        before = _circuit(await _locked(session))
        after = before.settled(self._rules, order_id, took=max(took, timedelta()), at=self._clock())
        await repository.set_admission(session, self._row(after))

    async def report(self, database: Database) -> AdmissionReport:
        """Where the intake stands, for an operator."""

        async def work(session: repository.AsyncSession) -> AdmissionReport:
            standing = await self.look(session)
            if standing.oldest is None:
                standing = replace(standing, oldest=await _pending(session, newest=False))
            since = standing.circuit.open_since
            if standing.intake is Intake.PAYMENTS_PENDING:
                newest = await _pending(session, newest=True)
                since = newest and newest.since  # it took the last place
            return AdmissionReport(standing=standing, since=since)

        return await database.read(work)

    async def _standing(
        self, session: repository.AsyncSession, state: AdmissionState | None, *, besides: int
    ) -> Standing:
        """The standing without so many of the orders that are there."""
        circuit = _circuit(state)
        if circuit.trial_order_id is not None and await _is_over(session, circuit.trial_order_id):
            circuit = circuit.tried_by(None)
        pending = await repository.pending_payments(session) - besides
        return Standing(rules=self._rules, circuit=circuit, pending=pending, at=self._clock())

    def _row(self, circuit: Circuit) -> AdmissionState:
        return AdmissionState(
            name=_NAME,
            open_since=circuit.open_since,
            trial_at=circuit.trial_at,
            trial_order_id=circuit.trial_order_id,
            recent=[took.total_seconds() for took in circuit.recent],
            updated_at=self._clock(),
        )


def _circuit(state: AdmissionState | None) -> Circuit:
    if state is None:
        return Circuit()
    return Circuit(
        open_since=state.open_since,
        trial_at=state.trial_at,
        trial_order_id=state.trial_order_id,
        recent=tuple(timedelta(seconds=seconds) for seconds in state.recent),
    )


async def _locked(session: repository.AsyncSession) -> AdmissionState | None:
    """The row, which nobody else changes or decides by until this transaction ends. The first to come puts it in."""
    state = await repository.admission(session, _NAME, lock=True)
    if state is None:
        await insert_if_new(session, AdmissionState(name=_NAME, updated_at=utc_now()))
        state = await repository.admission(session, _NAME, lock=True)
    return state


async def _pending(session: repository.AsyncSession, *, newest: bool) -> Pending | None:
    view = await repository.pending_order(session, newest=newest)
    return view and Pending(order_id=view.order_id, since=view.updated_at)


async def _is_over(session: repository.AsyncSession, order_id: str) -> bool:
    """Whether a trial has ended without its payment having an outcome: then another order may be the trial."""
    view = await repository.view_of_order(session, order_id)
    return view is None or view.order_status != OrderStatus.ORDER_RECEIVED
