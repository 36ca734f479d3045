"""How the shop stands, in figures that are the same for every process: read from the order database."""

import asyncio
import math
import time
from collections.abc import Awaitable
from contextlib import suppress
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge

from services.order import repository
from services.order.admission import Admission
from services.order.circuit import Intake
from services.order.reconciliation_reports import ReconciliationReports
from services.order.statuses import OrderStatus
from services.shared.clock import Clock, utc_now
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable

READ_SECONDS = 1.0
KEPT_SECONDS = 1.0
# Whom an order waits for that stands there.
_TEAMS = {
    OrderStatus.ORDER_PLACED: "marketing",
    OrderStatus.COUPON_ISSUED: "delivery",
    OrderStatus.DELIVERY_STARTED: "carrier",
    OrderStatus.ORDER_CANCELING: "compensation",
}


class ShopFigures:
    """Gauges that are NaN while they are not known.

    They are read within a second or not at all; and, however often they are asked for, once in a second.
    """

    def __init__(self, registry: CollectorRegistry, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._read_at = -math.inf
        self._reading = asyncio.Lock()
        self._gauges: list[Gauge] = []

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            made = Gauge(f"street12_{name}", what, labels, registry=registry)
            if not labels:
                self._gauges.append(made)
            return made

        self._pending = gauge("payments_pending", "Accepted orders whose payment is in flight")
        self._limit = gauge("payments_pending_limit", "As many as that may be")
        self._oldest = gauge("payments_pending_oldest_seconds", "How long one of them has waited at most")
        self._median = gauge("payment_median_seconds", "What the last payments took; NaN where there were none")
        self._since = gauge("admission_since_timestamp_seconds", "Since when no orders are taken; 0 while they are")
        self._unstarted = gauge("orders_unstarted", "Accepted orders that have no workflow yet")
        self._lag = gauge("dispatch_lag_seconds", "How long one of them has waited for it at most")
        self._flagged = gauge("orders_needing_attention", "Orders that wait for a person")
        self._stuck = gauge("compensations_stuck", "Those of them that cannot be undone")
        self._reconciled = gauge(
            "reconciliation_finished_timestamp_seconds",
            "When the last reconciliation came to its end; 0 before the first",
        )
        self._found = gauge("reconciliation_found", "The differences that it found")
        self._left = gauge("reconciliation_left", "Those of them that it did not repair")
        states = gauge("admission_state", "1 for the state that the intake of orders is in", "state")
        waiting = gauge("orders_waiting", "Orders under way, by whom they wait for", "team")
        waited = gauge("orders_waiting_oldest_seconds", "How long the first of them has stood there", "team")
        self._states = {state: states.labels(state.value) for state in Intake}
        self._waiting = {status: waiting.labels(team) for status, team in _TEAMS.items()}
        self._waited = {status: waited.labels(team) for status, team in _TEAMS.items()}
        self._gauges += [*self._states.values(), *self._waiting.values(), *self._waited.values()]

    async def refresh(self, database: Database, admission: Admission) -> None:
        """Bring the gauges up to date. Never raises for a database that is away: other figures are not kept back."""
        async with self._reading:
            if time.monotonic() - self._read_at < KEPT_SECONDS:
                return
            for gauge in self._gauges:
                gauge.set(math.nan)
            await asyncio.gather(
                _in_time(self._read_intake(database, admission)),
                _in_time(database.read(self._set_orders)),
                _in_time(self._read_reconciled(database)),
            )
            self._read_at = time.monotonic()

    async def _read_intake(self, database: Database, admission: Admission) -> None:
        report = await admission.report(database)
        standing, median = report.standing, report.standing.circuit.median
        self._pending.set(standing.pending)
        self._limit.set(standing.rules.max_pending)
        self._oldest.set((standing.at - standing.oldest.since).total_seconds() if standing.oldest else 0)
        self._median.set(math.nan if median is None else median.total_seconds())
        for state, gauge in self._states.items():
            gauge.set(state is standing.intake)
        self._since.set(report.since.timestamp() if report.since else 0)

    async def _set_orders(self, session: repository.AsyncSession) -> None:
        for status in _TEAMS:
            count, since = await repository.waiting_in(session, status)
            self._waiting[status].set(count)
            self._waited[status].set(self._ago(since))
        self._flagged.set(await repository.needing_attention(session))
        self._stuck.set(await repository.needing_attention(session, OrderStatus.ORDER_CANCELING))
        unstarted, since = await repository.unstarted(session)
        self._unstarted.set(unstarted)
        self._lag.set(self._ago(since))

    async def _read_reconciled(self, database: Database) -> None:
        run = await ReconciliationReports(database).last_finished()
        self._reconciled.set(run.finished_at.timestamp() if run and run.finished_at else 0)
        self._found.set(run.found if run else 0)
        self._left.set(run.found - run.repaired if run else 0)

    def _ago(self, since: datetime | None) -> float:
        return max(0.0, (self._clock() - since).total_seconds()) if since else 0.0


async def _in_time(reading: Awaitable[None]) -> None:
    """Some of the figures, or none of these: what cannot be read keeps no others back."""
    with suppress(TimeoutError, DatabaseUnavailable):
        async with asyncio.timeout(READ_SECONDS):
            await reading
