"""What workflows measure is what happened, once; and a release that does not fit open orders is counted."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from temporalio import workflow
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.saga.conftest import Saga, cancel, order_of, reads, under_way
from tests.saga.stage import Stage
from tests.saga.world import PATIENCE, Refuse, World
from worker import RUNNER
from workflows.telemetry import Telemetry


async def samples(telemetry: Telemetry, name: str) -> dict[frozenset[str], float]:
    """What was measured under a name, by the labels that the shop gives it."""
    text = (await telemetry.exposition()).decode()
    sdk = ("namespace", "task_queue", "workflow_type", "le")
    return {
        frozenset(value for label, value in sample.labels.items() if label not in sdk): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@asynccontextmanager
async def measured(engine: WorkflowEnvironment, telemetry: Telemetry, *, cached: int = 100) -> AsyncGenerator[Saga]:
    client = await Client.connect(
        engine.client.service_client.config.target_host,
        namespace="steady",
        data_converter=pydantic_data_converter,
        runtime=telemetry.runtime,
    )
    async with Stage(client, cached) as stage, order_of(engine, World(), stage) as saga:
        yield saga


async def test_steps_undos_decisions_and_ends_are_counted_once_however_often_they_are_replayed(
    engine: WorkflowEnvironment,
) -> None:
    telemetry = Telemetry()
    async with measured(engine, telemetry, cached=0) as saga:  # so that each task replays all before it
        saga.world.script("refund_payment", Refuse("refused"))
        await under_way(saga)
        await cancel(saga)
        await saga.world.until(lambda world: world.state.needs_attention)
        await saga.engine.settle(
            saga.order.order_id, step="refund_payment", action="retry", actor="kim", reason="it is back"
        )
        assert await saga.result() == "OrderCanceled"
    steps = ("pay_order", "issue_coupon", "start_delivery", "adjust_stock")
    assert await samples(telemetry, "street12_step_seconds_count") == {frozenset({step, "done"}): 1 for step in steps}
    undone = {frozenset({undo, "undone"}): 1.0 for undo in ("revoke_coupon", "cancel_delivery", "restore_stock")}
    refund = {frozenset({"refund_payment", outcome}): 1.0 for outcome in ("stuck", "undone")}
    assert await samples(telemetry, "street12_compensation_seconds_count") == undone | refund
    settled = {frozenset({"refund_payment", "retry"}): 1.0}
    assert await samples(telemetry, "street12_compensations_settled_total") == settled
    assert await samples(telemetry, "street12_orders_settled_total") == {frozenset({"OrderCanceled", "customer"}): 1.0}


@pytest.mark.parametrize(
    ("step", "code", "outcome"),
    [
        ("pay_order", "payment-declined", "refused"),
        ("start_delivery", "out-of-stock", "refused"),
        ("issue_coupon", "something-odd", "failed"),
    ],
)
async def test_a_step_that_is_not_done_says_what_it_came_to(
    engine: WorkflowEnvironment, step: str, code: str, outcome: str
) -> None:
    telemetry = Telemetry()
    async with measured(engine, telemetry) as saga:
        saga.world.script(step, Refuse(code))
        await saga.start()
        await saga.result()
    counted = await samples(telemetry, "street12_step_seconds_count")
    assert counted[frozenset({step, outcome})] == 1


async def test_a_step_that_is_withdrawn_says_so(engine: WorkflowEnvironment) -> None:
    telemetry = Telemetry()
    async with measured(engine, telemetry) as saga:
        await saga.go("marketing")
        await saga.start()
        await saga.world.until(reads("OrderPlaced"))
        await cancel(saga)
        await saga.come("marketing")
        await saga.result()
    assert (await samples(telemetry, "street12_step_seconds_count"))[frozenset({"issue_coupon", "withdrawn"})] == 1


_changed = asyncio.Event()


@workflow.defn(name="Unfitting", sandboxed=False)
class Unfitting:
    """Not the same when it is replayed."""

    @workflow.run
    async def run(self) -> None:
        if _changed.is_set():
            await workflow.execute_activity("another", start_to_close_timeout=timedelta(seconds=1))
        _changed.set()
        await workflow.sleep(0.01)


async def test_a_release_that_does_not_fit_is_counted_as_such(engine: WorkflowEnvironment) -> None:
    """By the name and the reason that the alert looks for."""
    telemetry = Telemetry()
    target = engine.client.service_client.config.target_host
    client = await Client.connect(target, namespace="steady", runtime=telemetry.runtime)
    async with Worker(
        client, task_queue="unfitting", workflows=[Unfitting], workflow_runner=RUNNER, max_cached_workflows=0
    ):
        handle = await client.start_workflow("Unfitting", id="unfitting", task_queue="unfitting")
        async with asyncio.timeout(PATIENCE):
            name = "temporal_workflow_task_execution_failed_total"
            while not (failed := await samples(telemetry, name)):  # noqa: ASYNC110  (no event tells of it)
                await asyncio.sleep(0.05)
        await handle.terminate()
    assert [*failed] == [frozenset({"NonDeterminismError"})]
