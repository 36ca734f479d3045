"""Workers of two versions side by side: which of them an order goes on with, and what a new one must show first."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import PinnedVersioningOverride, VersioningBehavior, WorkerDeploymentVersion
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.contract import ORDER_QUEUE
from services.shared.migrations import upgrade
from services.shared.settings import TEAMS, Team, WorkerSettings, read_settings
from tests.programs import started
from tests.saga.conftest import order_of, reads
from tests.saga.stage import Stage, street
from tests.saga.versions import make_current, registered
from tests.saga.world import PATIENCE, World, activities
from worker import RUNNER, version_of
from workflows.order import OrderWorkflow
from workflows.reconciliation import PinnedReconciliation, Reconcile


def a_version(deployment: str, build: str) -> WorkerDeploymentVersion:
    return WorkerDeploymentVersion(deployment, build)


def told(version: WorkerDeploymentVersion) -> dict[str, str]:
    """What the worker controller sets."""
    return {"TEMPORAL_DEPLOYMENT_NAME": version.deployment_name, "TEMPORAL_WORKER_BUILD_ID": version.build_id}


def settings_of(version: WorkerDeploymentVersion) -> WorkerSettings:
    return read_settings(WorkerSettings, **told(version))


async def test_an_open_order_goes_on_with_the_version_that_is_current(engine: WorkflowEnvironment) -> None:
    client = await street(engine, "versions")
    first, second = (a_version("street12/worker-order", build) for build in ("build-1", "build-2"))
    world = World()
    stage = Stage(client)
    async with AsyncExitStack() as workers:
        for team in ("marketing", "delivery"):
            await stage.come(team)
            workers.push_async_callback(stage.go, team)
        async with order_of(engine, world, stage) as saga:
            async with order_worker(stage, first):
                await make_current(client, first)
                await saga.start()
                await world.until(reads("DeliveryStarted"))
                await workers.enter_async_context(order_worker(stage, second))
                await registered(client, second)
                assert await versions_that_worked(saga.handle) == ["build-1"]
                await make_current(client, second)
            await saga.engine.delivered(saga.order.order_id)
            assert await saga.result() == "Delivered"
            assert await versions_that_worked(saga.handle) == ["build-1", "build-2"]


async def test_a_reconciliation_ends_with_the_version_that_began_it(engine: WorkflowEnvironment) -> None:
    """Its runs take minutes, so that no change of it has to suit one that is under way."""
    client = await street(engine, "versions")
    version = a_version("street12/reconciling", "build-1")
    queue = "reconciling"
    options = version_of(settings_of(version))
    async with Worker(client, task_queue=queue, workflows=[PinnedReconciliation], workflow_runner=RUNNER, **options):
        await make_current(client, version)
        run = await client.start_workflow("ReconciliationWorkflow", Reconcile(), id=queue, task_queue=queue)
        async with asyncio.timeout(PATIENCE):
            while not await versions_that_worked(run):  # noqa: ASYNC110  (there is no event to await)
                await asyncio.sleep(0.1)
        info = (await run.describe()).raw_description.workflow_execution_info.versioning_info
        assert info.behavior == VersioningBehavior.PINNED
        assert info.deployment_version.build_id == "build-1"
        await run.terminate()


@pytest.mark.parametrize("team", TEAMS)
async def test_a_new_version_of_a_team_passes_the_gate_before_it_is_current(
    team: Team, engine: WorkflowEnvironment, tmp_path: Path
) -> None:
    client = await street(engine, "versions")
    version = a_version(f"street12/gate-{team}", "build-1")
    await asyncio.to_thread(upgrade, f"sqlite+aiosqlite:///{tmp_path / team}.db", team)
    async with worker_process(team, client, version, tmp_path):
        assert await registered(client, version) == {team}
        gate = await through_the_gate(client, version, team)
        async with asyncio.timeout(PATIENCE):
            assert await gate.result() == f"{version.deployment_name}.{version.build_id}"


async def test_a_version_that_cannot_read_its_database_does_not_pass(
    engine: WorkflowEnvironment, tmp_path: Path
) -> None:
    client = await street(engine, "versions")
    version = a_version("street12/gate-shut", "build-1")
    async with worker_process("marketing", client, version, tmp_path):  # whose tables nobody has made
        await registered(client, version)
        gate = await through_the_gate(client, version, "marketing")
        async with asyncio.timeout(PATIENCE):
            while not (pending := await failing(gate)):  # noqa: ASYNC110  (there is no event to await)
                await asyncio.sleep(0.1)
        assert "no such table" in pending
        await gate.terminate()


async def failing(gate: WorkflowHandle[Any, str]) -> str:
    """What the activity that a gate waits for failed with last."""
    [*pending] = (await gate.describe()).raw_description.pending_activities
    return str(pending[0].last_failure) if pending and pending[0].attempt > 1 else ""


async def through_the_gate(client: Client, version: WorkerDeploymentVersion, queue: str) -> WorkflowHandle[Any, str]:
    """What the worker controller starts on each queue of a version that is to become current."""
    return await client.start_workflow(
        "ReleaseGate",
        id=f"gate-{version.to_canonical_string()}-{queue}",
        task_queue=queue,
        result_type=str,
        versioning_override=PinnedVersioningOverride(version),
    )


async def versions_that_worked(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """The builds of the workers that took an order on, in their order."""
    builds = [
        event.workflow_task_completed_event_attributes.deployment_version.build_id
        for event in (await handle.fetch_history()).events
        if event.HasField("workflow_task_completed_event_attributes")
    ]
    return list(dict.fromkeys(builds))


@asynccontextmanager
async def order_worker(stage: Stage, version: WorkerDeploymentVersion) -> AsyncGenerator[None]:
    """The order team's worker, of a version, over the worlds of a stage."""
    async with Worker(
        stage.client,
        task_queue=ORDER_QUEUE,
        workflows=[OrderWorkflow],
        workflow_runner=RUNNER,
        activities=activities("order", stage.worlds.__getitem__),
        **version_of(settings_of(version)),
    ):
        yield


@asynccontextmanager
async def worker_process(
    team: Team, client: Client, version: WorkerDeploymentVersion, data_dir: Path
) -> AsyncGenerator[None]:
    """`python worker.py --team …` with what the worker controller sets."""
    settings = {
        "TEMPORAL_ADDRESS": client.service_client.config.target_host,
        "TEMPORAL_NAMESPACE": client.namespace,
        **told(version),
        "STREET12_DATA_DIR": str(data_dir),
        "STREET12_CODEC_ENCRYPT": "false",
        "STREET12_PAYMENT_KEY": "sk_test",
    }
    async with started("worker.py", "--team", team, settings=settings) as worker:
        yield
        assert await worker.end() == 0
