"""One worker process: `python worker.py --team order|delivery|marketing|all`.

The composition root of a team's worker: settings from the environment, the team's database and clients, its
activities on its task queue, and for the order team the workflows, the dispatcher and the housekeeping.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import structlog
from opentelemetry.trace import Tracer
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import PollerBehaviorSimpleMaximum, UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig

from activities.contract import DELIVERY_QUEUE, MARKETING_QUEUE, ORDER_QUEUE
from activities.delivery import DeliveryActivities
from activities.logs import NamedInLogs
from activities.marketing import MarketingActivities
from activities.order import OrderActivities
from activities.reconciliation import ReconciliationActivities
from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.marketing.coupons import Coupons
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.circuit import admission_rules
from services.order.dispatch import Dispatcher, Inbox
from services.order.housekeeping import Housekeeping
from services.order.metrics import OrderMetrics
from services.order.payments import Payments
from services.order.provider import StripeProvider
from services.order.reconciliation import Reconciler
from services.order.reconciliation_reports import ReconciliationReports
from services.shared.database import Database
from services.shared.health import background, health, keep_alive
from services.shared.logs import configure_logs
from services.shared.metrics import ProcessMetrics, exposed
from services.shared.process import end
from services.shared.settings import (
    TEAMS,
    CodecSettings,
    DatabaseSettings,
    LogSettings,
    OrderSettings,
    PaymentSettings,
    PoolSettings,
    Team,
    TraceSettings,
    WorkerSettings,
    WrongSetting,
    read_settings,
)
from services.shared.telemetry import tracer_of, tracing
from workflows.client import OrderEngine, connect
from workflows.codec import HistoryCodec, history_codec
from workflows.order import OrderWorkflow
from workflows.reconciliation import PinnedReconciliation, ReconciliationWorkflow
from workflows.reconciling import EngineBooks, ReconciliationSchedule
from workflows.release_gate import ReleaseGate
from workflows.telemetry import Telemetry

_log = structlog.get_logger(__name__)
TIDY_SECONDS = 60.0
# The sandbox, which refuses what is not deterministic, is for the tests and replays: every one of them runs in it.
# Here it would cost each order a fifth of its worker's CPU and find nothing new.
RUNNER = UnsandboxedWorkflowRunner()
# A worker that ends asks the engine to answer its polls. The SDK takes the first one that brings nothing for the end of
# all, and forgets what another one may just bring: nobody would do that activity until its attempt has timed out. Of
# one poll there is no other. It costs a worker that it takes no more than one activity in each round trip.
ONE_POLL = PollerBehaviorSimpleMaximum(1)


def main() -> int:
    """Run until SIGTERM or SIGINT. Exit status 1 when the settings are wrong or a worker breaks down."""
    parser = argparse.ArgumentParser(description="A worker of one team, or of all.")
    parser.add_argument("--team", choices=[*TEAMS, "all"], required=True)
    team: str = parser.parse_args().team
    teams: Sequence[Team] = TEAMS if team == "all" else [named for named in TEAMS if named == team]
    try:
        name = f"worker-{team}"
        configure_logs(name, read_settings(LogSettings))
        settings = read_settings(WorkerSettings)
        with tracing(name, read_settings(TraceSettings)) as tracer_provider:
            return asyncio.run(_run(name, teams, settings, tracer_of(tracer_provider)))
    except WrongSetting as error:
        print(error, file=sys.stderr)  # noqa: T201  (for the person who started it)
        return 1


async def _run(name: str, teams: Sequence[Team], settings: WorkerSettings, tracer: Tracer | None) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _begin_stop, stop, settings.hard_deadline_seconds)
    telemetry = Telemetry()
    measured = ProcessMetrics(name, settings.build_id)
    workers: list[Worker] = []

    def ready() -> bool:
        return bool(workers) and all(worker.is_running for worker in workers) and not stop.is_set()

    async def metrics() -> bytes:
        return await exposed(measured.registry, telemetry.exposition)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            health(settings.health_host, settings.health_port, ready=ready, metrics=metrics)
        )
        await stack.enter_async_context(background(keep_alive(settings.liveness_file)))
        client = await _connected(stop, history_codec(read_settings(CodecSettings)), telemetry, tracer)
        if client is None:
            return 0

        async def break_down(_: BaseException) -> None:
            """One worker polls no more: end what is under way and this process, so that another takes over."""
            _begin_stop(stop, settings.hard_deadline_seconds)

        workers += [await _worker(team, client, settings, measured, stack, tracer, break_down) for team in teams]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        _log.info("polling", teams=list(teams), deployment=settings.deployment_name or None, build_id=settings.build_id)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        _begin_stop(stop, settings.hard_deadline_seconds)  # also where one could not even begin
        _log.info("draining", grace_seconds=settings.grace_seconds)
        await asyncio.gather(*(worker.shutdown() for worker in workers), return_exceptions=True)
        ended = await asyncio.gather(*running, return_exceptions=True)
        broken = [error for error in ended if isinstance(error, BaseException)]
        for error in broken:
            _log.error("the worker broke down", error=f"{type(error).__name__}: {error}")
    _log.info("stopped")
    return 1 if broken else 0


def _begin_stop(stop: asyncio.Event, hard_deadline: float) -> None:
    """Drain, and end all the same when draining takes too long: what was cut off is redone elsewhere, once."""
    if not stop.is_set():
        asyncio.get_running_loop().call_later(hard_deadline, os._exit, 1)
        stop.set()


async def _connected(
    stop: asyncio.Event, codec: HistoryCodec | None, telemetry: Telemetry, tracer: Tracer | None
) -> Client | None:
    """A client, as soon as the engine answers; nothing when the process is told to stop first."""
    while not stop.is_set():
        try:
            return await connect(codec=codec, runtime=telemetry.runtime, tracer=tracer)
        except RuntimeError as error:  # what the SDK raises when it cannot connect
            _log.warning("the engine is away; trying again", error=str(error))
        try:
            async with asyncio.timeout(1):
                await stop.wait()
        except TimeoutError:
            continue
    return None


async def _worker(
    team: Team,
    client: Client,
    settings: WorkerSettings,
    measured: ProcessMetrics,
    stack: AsyncExitStack,
    tracer: Tracer | None = None,
    on_fatal_error: Callable[[BaseException], Awaitable[None]] | None = None,
) -> Worker:
    url, pool = read_settings(DatabaseSettings).url(team), read_settings(PoolSettings)
    database = Database(url, pool, name=team, metrics=measured.databases, tracer=tracer)
    stack.push_async_callback(database.close)

    gate: list[type] = [ReleaseGate] if settings.deployment_name else []  # nobody asks an unversioned worker to pass it

    def worker(
        queue: str, activities: Sequence[Callable[..., Any]], workflows: Sequence[type] = (), **options: Any
    ) -> Worker:
        return Worker(
            client,
            task_queue=queue,
            activities=activities,
            workflows=[*workflows, *gate],
            workflow_runner=RUNNER,
            graceful_shutdown_timeout=timedelta(seconds=settings.grace_seconds),
            activity_task_poller_behavior=ONE_POLL,
            interceptors=[NamedInLogs()],
            on_fatal_error=on_fatal_error,
            **version_of(settings),
            **options,
        )

    if team == "marketing":
        coupons = MarketingActivities(Coupons(database))
        return worker(MARKETING_QUEUE, [coupons.issue_coupon, coupons.revoke_coupon, coupons.summarise_coupons])
    if team == "delivery":
        goods = DeliveryActivities(Deliveries(database), Warehouse(database))
        return worker(
            DELIVERY_QUEUE,
            [
                goods.start_delivery,
                goods.cancel_delivery,
                goods.adjust_stock,
                goods.restore_stock,
                goods.complete_delivery,
                goods.summarise_deliveries,
                goods.summarise_stock,
            ],
        )
    rules = read_settings(OrderSettings)
    metrics = OrderMetrics(measured.registry)
    provider = StripeProvider(read_settings(PaymentSettings), metrics, tracer=tracer)
    stack.push_async_callback(provider.close)
    payments = Payments(database, provider, Admission(admission_rules(rules)), metrics=metrics)
    book = OrderBook(database, metrics=metrics)
    orders = OrderActivities(payments, book)
    engine = OrderEngine(
        client,
        payment_budget=rules.payment_budget,
        delivery_deadline=rules.delivery_deadline,
        order_link=rules.order_link,
    )
    inbox = Inbox(database, lease=timedelta(seconds=rules.dispatch_lease_seconds))
    await stack.enter_async_context(background(Dispatcher(inbox, engine.start).sweep(rules.dispatch_seconds)))
    housekeeping = Housekeeping(
        database,
        keep_keys=timedelta(hours=rules.idempotency_hours),
        keep_reports=timedelta(days=rules.reconcile_keep_days),
    )
    await stack.enter_async_context(background(housekeeping.run(TIDY_SECONDS)))
    reconciler = Reconciler(database, book, provider, EngineBooks(client, engine))
    comparing = ReconciliationActivities(reconciler, ReconciliationReports(database))
    every = timedelta(minutes=rules.reconcile_minutes)
    scheduled = ReconciliationSchedule(client).keep(every=every, days=rules.reconcile_days)
    await stack.enter_async_context(background(scheduled))
    return worker(
        ORDER_QUEUE,
        [orders.pay_order, orders.refund_payment, orders.record_status, orders.take_turn, *comparing.all],
        workflows=[OrderWorkflow, PinnedReconciliation if settings.deployment_name else ReconciliationWorkflow],
        max_cached_workflows=5000,  # below the number of live orders, each wake-up costs a replay
    )


def version_of(settings: WorkerSettings) -> dict[str, Any]:
    """How a worker says which build it is: a label, or with a deployment's name a version that tasks are routed by.

    Orders are open for a week or longer: they go on with whatever version is current (docs/changing-workflows.md).
    """
    if not settings.deployment_name:
        return {"build_id": settings.build_id}
    return {
        "deployment_config": WorkerDeploymentConfig(
            version=WorkerDeploymentVersion(settings.deployment_name, settings.build_id),
            use_worker_versioning=True,
            default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
        )
    }


if __name__ == "__main__":
    end(main())
