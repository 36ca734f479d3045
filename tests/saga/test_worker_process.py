"""A worker as a process: ready while it asks for work, no longer once it drains, and what it had begun it ends."""

import asyncio
import signal
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

from activities.contract import DELIVERY_QUEUE, MARKETING_QUEUE, AdjustStock, Coupon, IssueCoupon, StartDelivery
from deploy.stack import take_ports
from services.delivery.stock import Warehouse
from services.shared.clock import utc_now
from services.shared.database import Database
from services.shared.metrics import ProcessMetrics
from services.shared.migrations import upgrade
from services.shared.settings import TEAMS, PoolSettings, Team, WorkerSettings
from tests.database.orders import accept, selling_tea
from tests.e2e.shop import eventually
from tests.programs import Started, started
from tests.rollout.histories import told_by
from tests.saga.stage import street
from worker import RUNNER
from worker import _worker as team_worker  # pyright: ignore[reportPrivateUsage]
from workflows.client import OrderEngine


@workflow.defn(name="OneDelivery", sandboxed=False)
class OneDelivery:
    """Has a delivery started, and nothing else."""

    @workflow.run
    async def run(self, order_id: str) -> None:
        await workflow.execute_activity(
            "start_delivery",
            StartDelivery(order_id=order_id, product_id="tea", qty=1),
            task_queue=DELIVERY_QUEUE,
            start_to_close_timeout=timedelta(minutes=1),
        )


@asynccontextmanager
async def worker_of(team: Team, settings: Mapping[str, str]) -> AsyncGenerator[Started]:
    """`python worker.py --team …`."""
    port = take_ports({"": 0})[""]
    own = {"STREET12_CODEC_ENCRYPT": "false", "STREET12_WORKER_HEALTH_PORT": str(port)}
    async with started(
        *("worker.py", "--team", team), settings=own | {**settings}, port=port, stderr=asyncio.subprocess.PIPE
    ) as worker:
        yield worker


@pytest.fixture
async def deliveries(tmp_path: Path) -> Path:
    """The delivery team's database, with a product on hand."""
    file = tmp_path / "delivery.db"
    url = f"sqlite+aiosqlite:///{file}"
    await asyncio.to_thread(upgrade, url, "delivery")
    database = Database(url, PoolSettings())
    await Warehouse(database).open_if_new("tea", 10)
    await database.close()
    return file


async def test_a_worker_that_drains_is_not_ready_and_ends_what_it_had_begun(
    engine: WorkflowEnvironment, deliveries: Path
) -> None:
    client = engine.client
    settings = {
        "TEMPORAL_ADDRESS": client.service_client.config.target_host,
        "STREET12_DELIVERY_DATABASE_URL": f"sqlite+aiosqlite:///{deliveries}",
    }
    async with (
        Worker(client, task_queue="one-delivery", workflows=[OneDelivery], workflow_runner=RUNNER),
        worker_of("delivery", settings) as worker,
    ):

        async def ready() -> bool:
            return await worker.readiness() == 200

        await eventually(ready, "the worker to be ready")
        with closing(sqlite3.connect(deliveries, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # nobody else writes for now
            order = await client.start_workflow("OneDelivery", "order-1", id="one-delivery", task_queue="one-delivery")

            async def under_way() -> bool:
                pending = (await order.describe()).raw_description.pending_activities
                return bool(pending) and pending[0].state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED

            await eventually(under_way, "the delivery to be under way")
            worker.process.send_signal(signal.SIGTERM)

            async def not_ready() -> bool:
                return await worker.readiness() == 503

            await eventually(not_ready, "the worker to be unready")
            assert worker.process.returncode is None
            other.execute("ROLLBACK")
        async with asyncio.timeout(60):
            assert await worker.process.wait() == 0
            await order.result()
    history = await order.fetch_history()
    [started] = [event for event in history.events if event.HasField("activity_task_started_event_attributes")]
    assert started.activity_task_started_event_attributes.attempt == 1


@asynccontextmanager
async def other_teams(client: Client) -> AsyncGenerator[asyncio.Event]:
    """Teams without books. They let no piece out of the stock before the event is set."""
    go_on = asyncio.Event()

    @activity.defn(name="issue_coupon")
    async def issue_coupon(_: IssueCoupon) -> Coupon:
        return Coupon(coupon_id="coupon-1", coupon_kind="tea")

    @activity.defn(name="start_delivery")
    async def start_delivery(_: StartDelivery) -> None: ...

    @activity.defn(name="adjust_stock")
    async def adjust_stock(_: AdjustStock) -> None:
        await go_on.wait()

    async with (
        Worker(client, task_queue=MARKETING_QUEUE, activities=[issue_coupon]),
        Worker(client, task_queue=DELIVERY_QUEUE, activities=[start_delivery, adjust_stock]),
    ):
        yield go_on


async def test_a_worker_that_drains_ends_a_status_write_and_the_workflow_task_that_it_belongs_to(
    engine: WorkflowEnvironment, simulator: str, tmp_path: Path
) -> None:
    client, url = engine.client, f"sqlite+aiosqlite:///{tmp_path / 'order.db'}"
    settings = {
        "TEMPORAL_ADDRESS": client.service_client.config.target_host,
        "STREET12_ORDER_DATABASE_URL": url,
        "STREET12_PAYMENT_URL": simulator,
        "STREET12_PAYMENT_KEY": "sk_test_worker",
    }
    await asyncio.to_thread(upgrade, url, "order")
    database = Database(url)
    order = (await accept(await selling_tea(database, utc_now))).order
    await database.close()
    week = timedelta(days=7)
    await OrderEngine(client, payment_budget=week, delivery_deadline=week).start(order)
    handle = client.get_workflow_handle(order.order_id)

    async def resting() -> bool:
        """Until the pieces have left, nothing happens once customers read that the order is paid."""
        kinds = {event.event_type for event in (await handle.fetch_history()).events}
        pending = (await handle.describe()).raw_description.HasField("pending_workflow_task")
        return EventType.EVENT_TYPE_TIMER_FIRED in kinds and not pending

    async def under_way() -> bool:
        last = (await handle.fetch_history()).events[-1]
        return last.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED

    async with other_teams(client) as go_on, worker_of("order", settings) as worker:

        async def not_ready() -> bool:
            return await worker.readiness() == 503

        await eventually(resting, "the order to wait for the warehouse")
        with closing(sqlite3.connect(tmp_path / "order.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # nobody else writes for now
            go_on.set()
            await eventually(under_way, "the status to be written")
            worker.process.send_signal(signal.SIGTERM)
            await eventually(not_ready, "the worker to be unready")
            assert worker.process.returncode is None
            other.execute("ROLLBACK")
        async with asyncio.timeout(60):
            assert await worker.process.wait() == 0
    told = told_by([await handle.fetch_history()])
    await handle.terminate()
    assert [*told.redone, *told.dropped, *told.failed, *told.left_behind] == []
    with closing(sqlite3.connect(tmp_path / "order.db")) as books:
        assert books.execute("SELECT order_status FROM order_views").fetchall() == [("DeliveryStarted",)]


async def test_a_worker_whose_namespace_is_not_there_says_so_and_ends(
    engine: WorkflowEnvironment, deliveries: Path
) -> None:
    settings = {
        "TEMPORAL_ADDRESS": engine.client.service_client.config.target_host,
        "TEMPORAL_NAMESPACE": "misspelt",
        "STREET12_DELIVERY_DATABASE_URL": f"sqlite+aiosqlite:///{deliveries}",
    }
    async with worker_of("delivery", settings) as worker:
        assert worker.process.stderr is not None
        async with asyncio.timeout(60):
            said = await worker.process.stderr.read()
            assert await worker.process.wait() == 1
    assert b"the worker broke down" in said
    assert b"misspelt" in said


@pytest.mark.parametrize("team", TEAMS)
async def test_no_worker_has_two_polls_for_activities_under_way(
    team: Team, engine: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """When it ends, the SDK forgets what one of them may just bring once another brings nothing."""
    monkeypatch.setenv("STREET12_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("STREET12_PAYMENT_KEY", "sk_test_worker")
    own = await street(engine, "versions")  # it is never run, so a client would keep its place on the queue for ever
    async with AsyncExitStack() as stack:
        measured = ProcessMetrics(team, "test")
        worker = await team_worker(team, own, WorkerSettings(), measured, stack)
        options: dict[str, Any] = {**worker.config()}
    assert options["activity_task_poller_behavior"] == PollerBehaviorSimpleMaximum(1)
