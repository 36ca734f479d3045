"""Waiting for a payment: what it costs the engine, and that it ends in time and leaves nothing behind."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig

from tests.orders import an_order
from tests.saga.conftest import PAYMENT_BUDGET, Saga
from tests.saga.world import Gate
from workflows.client import OrderEngine


async def watched_engine(saga: Saga) -> tuple[OrderEngine, MetricBuffer]:
    """The way to the engine by a connection of its own, whose calls are counted."""
    buffer = MetricBuffer(10_000)
    client = await Client.connect(
        saga.client.service_client.config.target_host,
        data_converter=pydantic_data_converter,
        runtime=Runtime(telemetry=TelemetryConfig(metrics=buffer)),
    )
    buffer.retrieve_updates()  # what it took to connect
    return OrderEngine(client, payment_budget=PAYMENT_BUDGET, delivery_deadline=timedelta(days=7)), buffer


def calls(buffer: MetricBuffer) -> Counter[str]:
    """How often each call was made, long polls included."""
    return Counter(
        str(update.attributes["operation"])
        for update in buffer.retrieve_updates()
        if update.metric.name in ("temporal_request", "temporal_long_request")
    )


def tasks() -> set["asyncio.Task[object]"]:
    """Whatever is running but the workers' own."""
    return {task for task in asyncio.all_tasks() if "Worker" not in repr(task.get_coro())}


@pytest.mark.parametrize("started", [True, False], ids=["started by others", "started with the same call"])
async def test_it_is_one_round_trip_until_the_payment_is_known(saga: Saga, started: bool) -> None:
    gate = Gate()
    saga.world.script("pay_order", gate)
    engine, buffer = await watched_engine(saga)
    if started:
        await saga.start()
    waiting = asyncio.create_task(engine.payment_known(saga.order, timeout=30))
    await gate.reached.wait()
    await asyncio.wait([waiting], timeout=0.5)  # a payment that takes its time
    gate.opened.set()
    await waiting
    assert calls(buffer) == {"ExecuteMultiOperation": 1}
    assert saga.world.state.pay_status == "Paid"  # what the customer reads next says so already


async def test_without_a_worker_it_ends_when_its_time_is_over_and_leaves_nothing_behind(saga: Saga) -> None:
    await saga.go("workflows")
    engine, _ = await watched_engine(saga)
    before = tasks()
    await engine.payment_known(saga.order, timeout=0.3)
    await asyncio.sleep(0)
    assert tasks() == before
    await saga.come("workflows")
    await saga.world.until(lambda world: world.state.order_status == "DeliveryStarted")  # it was started all the same


async def test_without_an_engine_it_ends_when_its_time_is_over_and_leaves_nothing_behind() -> None:
    nobody = await Client.connect("127.0.0.1:1", data_converter=pydantic_data_converter, lazy=True)
    engine = OrderEngine(nobody, payment_budget=PAYMENT_BUDGET, delivery_deadline=timedelta(days=7))
    before = tasks()
    await engine.payment_known(an_order("order_1"), timeout=0.3)
    await asyncio.sleep(0)
    assert tasks() == before
