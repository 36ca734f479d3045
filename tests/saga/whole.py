"""The whole shop in this process: the API, the three teams' workers as they are composed, and the payment simulator."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.trace import TracerProvider
from temporalio.client import Client
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

import api
from activities.logs import sdk_logging
from deploy.issuer import AUDIENCE, ISSUER
from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.gateway.parts import Parts
from services.gateway.tokens import SigningKeys, Tokens
from services.marketing.coupons import Coupons
from services.order.acceptance import Acceptance
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.catalogue import Catalogue
from services.order.circuit import AdmissionRules
from services.order.dispatch import Dispatcher, Inbox
from services.order.reconciliation_reports import ReconciliationReports
from services.shared.database import Database
from services.shared.metrics import ProcessMetrics
from services.shared.migrations import upgrade
from services.shared.settings import TEAMS, PoolSettings, WorkerSettings
from services.shared.telemetry import tracer_of
from tests.issuer import TEST_ISSUER
from tests.payments import running_simulator
from worker import _worker as team_worker  # pyright: ignore[reportPrivateUsage]
from workflows.client import OrderEngine, connect
from workflows.reconciling import ReconciliationSchedule

LEASE = timedelta(seconds=30)
POOL = PoolSettings(transaction_seconds=30)  # patient: the machine may be busy


@dataclass
class Whole:
    """The shop, its client, and what lies behind."""

    http: httpx2.AsyncClient
    client: Client
    parts: Parts
    app: FastAPI

    async def until(self, order_id: str, status: str) -> None:
        async with asyncio.timeout(30):
            while (await self.parts.book.get(order_id)).view.order_status != status:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@cache
def _runtime() -> Runtime:
    return Runtime(telemetry=TelemetryConfig(logging=sdk_logging()))


async def _keys() -> object:
    return TEST_ISSUER.jwks()


async def _end_all(client: Client) -> None:
    """Leave the next shop on the same engine no order whose steps its workers would take up."""
    async for left in client.list_workflows("ExecutionStatus = 'Running'"):
        with suppress(RPCError):  # it has ended meanwhile
            await client.get_workflow_handle(left.id).terminate()


@asynccontextmanager
async def whole_shop(
    environment: WorkflowEnvironment,
    directory: Path,
    settings: pytest.MonkeyPatch,
    *,
    tracer_provider: TracerProvider | None = None,
    payment_key: str = "sk_test_street12",
    lease: timedelta = LEASE,
) -> AsyncGenerator[Whole]:
    """The shop with 10 pieces of tea at 4500 won; `directory` gets its databases."""
    tracer = tracer_of(tracer_provider)
    settings.setenv("TEMPORAL_ADDRESS", environment.client.service_client.config.target_host)
    settings.setenv("STREET12_RECONCILE_MINUTES", "10080")  # not while a test looks on
    client = await connect(codec=None, runtime=_runtime(), tracer=tracer)
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(running_simulator(directory / "ledger.db"))
        settings.setenv("STREET12_PAYMENT_URL", simulator)
        settings.setenv("STREET12_PAYMENT_KEY", payment_key)
        settings.setenv("STREET12_POOL_TRANSACTION_SECONDS", "30")
        databases: list[Database] = []
        for team in TEAMS:
            url = f"sqlite+aiosqlite:///{directory / team}.db"
            settings.setenv(f"STREET12_{team.upper()}_DATABASE_URL", url)
            await asyncio.to_thread(upgrade, url, team)
            databases.append(Database(url, POOL, tracer=tracer))
            stack.push_async_callback(databases[-1].close)
        order, delivery, marketing = databases
        engine = OrderEngine(client, payment_budget=timedelta(hours=1), delivery_deadline=timedelta(days=7))
        admission = Admission(AdmissionRules(max_pending=1000))
        parts = Parts(
            order_database=order,
            catalogue=Catalogue(order),
            admission=admission,
            acceptance=Acceptance(order, admission, lease=lease),
            book=OrderBook(order),
            dispatcher=Dispatcher(Inbox(order, lease=lease), engine.start),
            deliveries=Deliveries(delivery),
            warehouse=Warehouse(delivery),
            coupons=Coupons(marketing),
            engine=engine,
            reconciliations=ReconciliationSchedule(client),
            reports=ReconciliationReports(order),
            tokens=Tokens(SigningKeys(_keys), issuer=ISSUER, audience=AUDIENCE),
        )
        stack.push_async_callback(_end_all, client)  # once the workers are gone
        await parts.catalogue.put(product_id="tea", product_name="보성 녹차", product_price=4500)
        await parts.warehouse.open_if_new("tea", 10)
        for team in TEAMS:
            measured = ProcessMetrics(f"worker-{team}", "local")
            await stack.enter_async_context(await team_worker(team, client, WorkerSettings(), measured, stack, tracer))
        app = api.create_app(parts, tracer_provider=tracer_provider)
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx2.ASGITransport(app)
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=transport, base_url="http://shop"))
        yield Whole(http, client, parts, app)
