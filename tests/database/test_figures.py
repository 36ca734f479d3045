"""The figures of the shop are what its rows say, and unknown while its database is away."""

from datetime import timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.order.acceptance import Acceptance
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.circuit import AdmissionRules
from services.order.dispatch import Inbox
from services.order.figures import ShopFigures
from services.order.reconciliation_reports import ReconciliationReports
from services.order.statuses import EventType, OrderState, OrderStatus, TimelineEntry
from services.shared.database import Database
from services.shared.metrics import DatabaseMetrics
from services.shared.settings import PoolSettings
from tests.database.orders import LEASE, NOON, TEA, HeldClock

HOUR = timedelta(hours=1)
UNDER_WAY = {
    OrderStatus.ORDER_PLACED: "marketing",
    OrderStatus.COUPON_ISSUED: "delivery",
    OrderStatus.DELIVERY_STARTED: "carrier",
    OrderStatus.ORDER_CANCELING: "compensation",
}


async def test_the_figures_tell_who_is_waited_for_and_since_when(
    order_database: Database, acceptance: Acceptance, clock: HeldClock
) -> None:
    registry = CollectorRegistry()
    shown = ShopFigures(registry, clock)
    admission = Admission(AdmissionRules(), clock)
    book, inbox = OrderBook(order_database), Inbox(order_database, lease=LEASE, clock=clock)

    async def order(key: str, status: OrderStatus, *, attention: bool = False) -> None:
        placed = await acceptance.accept(user_id="minji", idempotency_key=key, request=TEA)
        entry = TimelineEntry(version=2, type=EventType.ORDER_PLACED, at=clock.now)
        state = OrderState(order_status=status, needs_attention=attention)
        await book.record(order_id=placed.order.order_id, state=state, timeline=[entry])
        await inbox.mark_started(placed.order.order_id)

    for number, status in enumerate(UNDER_WAY):
        await order(f"first-{number}", status)
    clock.now = NOON + HOUR
    for number, status in enumerate(UNDER_WAY):
        await order(f"second-{number}", status, attention=True)
    await acceptance.accept(user_id="minji", idempotency_key="unstarted", request=TEA)
    clock.now = NOON + 2 * HOUR
    await shown.refresh(order_database, admission)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"street12_{name}", labels)

    for team in UNDER_WAY.values():
        assert value("orders_waiting", team=team) == 2
        assert value("orders_waiting_oldest_seconds", team=team) == (2 * HOUR).total_seconds()
    assert value("orders_needing_attention") == 4
    assert value("reconciliation_finished_timestamp_seconds") == 0
    assert value("compensations_stuck") == 1
    assert value("orders_unstarted") == 1
    assert value("dispatch_lag_seconds") == HOUR.total_seconds()
    assert value("payments_pending") == 1
    assert value("admission_state", state="open") == 1


async def test_the_database_is_asked_once_a_while(order_database: Database, clock: HeldClock) -> None:
    measured = CollectorRegistry()
    metrics = DatabaseMetrics(measured)
    metrics.watch("order", order_database.engine.sync_engine, limit=10)
    registry = CollectorRegistry()
    shown = ShopFigures(registry, clock)
    admission = Admission(AdmissionRules(), clock)

    def queries() -> float | None:
        return measured.get_sample_value(
            "street12_database_query_seconds_count", {"database": "order", "verb": "SELECT"}
        )

    await shown.refresh(order_database, admission)
    asked = queries()
    assert asked
    await shown.refresh(order_database, admission)
    assert queries() == asked


async def test_a_database_that_is_away_makes_every_figure_unknown(clock: HeldClock, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    gone = Database(f"sqlite+aiosqlite:///{tmp_path}/no/such/place/order.db", PoolSettings(attempts=1))
    await ShopFigures(registry, clock).refresh(gone, Admission(AdmissionRules(), clock))
    await gone.close()
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert samples
    assert all(sample.value != sample.value for sample in samples), "NaN is what is not itself"


async def test_the_figures_tell_of_the_last_reconciliation_that_ended(
    order_database: Database, clock: HeldClock
) -> None:
    registry = CollectorRegistry()
    reports = ReconciliationReports(order_database)
    for name, found, ended in (("run_1", 9, NOON), ("run_2", 5, NOON + HOUR), ("run_3", 1, None)):
        await reports.begin(name, NOON)
        await reports.progress(name, compared=9, found=found, repaired=1, not_compared=[], finished_at=ended)
    await ShopFigures(registry, clock).refresh(order_database, Admission(AdmissionRules(), clock))
    told = [registry.get_sample_value(f"street12_reconciliation_{name}") for name in ("found", "left")]
    assert told == [5, 4]
    finished = registry.get_sample_value("street12_reconciliation_finished_timestamp_seconds")
    assert finished == (NOON + HOUR).timestamp()
