"""Orders and workers that have not the same keys: what one cannot read waits for one that can, and nothing is lost."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.testing import WorkflowEnvironment

from services.shared.ids import new_order_id
from tests.orders import an_order
from tests.saga.conftest import PAYMENT_BUDGET, Saga, reads
from tests.saga.stage import TEAMS, Stage, street
from tests.saga.world import PATIENCE, World
from workflows.client import EngineUnavailable, OrderEngine, data_converter
from workflows.codec import HistoryCodec

OLD, NEW = {"old": os.urandom(32)}, {"new": os.urandom(32)}
STRICT, ACCEPTING, OFF = HistoryCodec(NEW), HistoryCodec(NEW, accept_plain=True), HistoryCodec(NEW, encrypt=False)


@asynccontextmanager
async def order_of(environment: WorkflowEnvironment, codec: HistoryCodec) -> AsyncGenerator[Saga]:
    """An order that an API with this codec knows, and as yet no worker."""
    client = await street(environment, "keys", data_converter(codec))
    engine = OrderEngine(
        client,
        payment_budget=PAYMENT_BUDGET,
        delivery_deadline=timedelta(days=7),
        rpc_timeout=timedelta(seconds=2),
    )
    stage, world, order = Stage(client), World(), an_order(new_order_id())
    stage.worlds[order.order_id] = world
    saga = Saga(environment, world, order, engine, stage)
    await saga.start()
    yield saga
    world.hold_no_more()
    if (await saga.handle.describe()).close_time is None:
        await saga.handle.terminate()


@asynccontextmanager
async def workers(saga: Saga, codec: HistoryCodec, *teams: str) -> AsyncGenerator[None]:
    """Workers of these teams, or of all, that have this codec."""
    client = await street(saga.environment, "keys", data_converter(codec))
    stage = Stage(client)
    stage.worlds = saga.stage.worlds
    for team in teams or TEAMS:
        await stage.come(team)
    try:
        yield
    finally:
        for team in teams or TEAMS:
            await stage.go(team)


async def until(look: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await look():  # noqa: ASYNC110  (the engine tells of it to who asks)
            await asyncio.sleep(0.05)


async def is_over(saga: Saga) -> bool:
    return not await is_running(saga)


async def is_running(saga: Saga) -> bool:
    return (await saga.handle.describe()).status == WorkflowExecutionStatus.RUNNING


async def task_failed(saga: Saga) -> bool:
    events = (await saga.handle.fetch_history()).events
    return any(event.HasField("workflow_task_failed_event_attributes") for event in events)


async def cancelled(saga: Saga) -> bool:
    try:
        await saga.engine.cancel(saga.order.order_id, by="customer", actor="goodman")
    except EngineUnavailable:
        return False
    return True


async def test_an_order_that_no_worker_can_read_waits_for_one_that_can(engine: WorkflowEnvironment) -> None:
    async with order_of(engine, HistoryCodec(NEW)) as saga:
        async with workers(saga, HistoryCodec(OLD)):
            await until(lambda: task_failed(saga))
        assert await is_running(saga)
        async with workers(saga, HistoryCodec(OLD | NEW)):
            await saga.world.until(reads("DeliveryStarted"))


async def test_an_open_order_goes_on_once_its_key_is_back(
    engine: WorkflowEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    async with order_of(engine, HistoryCodec(OLD)) as saga:
        async with workers(saga, HistoryCodec(OLD)):
            await saga.world.until(reads("DeliveryStarted"))
        async with workers(saga, HistoryCodec(NEW)):  # from which the old key was taken too early
            assert not await cancelled(saga)
        assert await is_running(saga)
        assert "encrypted with the key 'old', which STREET12_CODEC_KEYS does not hold" in caplog.text
        async with workers(saga, HistoryCodec(OLD | NEW)):
            await until(lambda: cancelled(saga))  # the engine waits a little before it repeats a task
            assert await saga.result() == "OrderCanceled"
            assert saga.world.standing == set()


async def test_a_team_without_the_key_tries_again_until_it_has_it(engine: WorkflowEnvironment) -> None:
    async with (
        order_of(engine, HistoryCodec(NEW)) as saga,
        workers(saga, HistoryCodec(NEW), "workflows", "order", "delivery"),
    ):
        async with workers(saga, HistoryCodec(OLD), "marketing"):

            async def tried_twice() -> bool:
                pending = (await saga.handle.describe()).raw_description.pending_activities
                return any(one.activity_type.name == "issue_coupon" and one.attempt > 1 for one in pending)

            await until(tried_twice)
        async with workers(saga, HistoryCodec(NEW | OLD), "marketing"):
            await saga.world.until(reads("DeliveryStarted"))


async def test_a_message_in_clear_is_refused_and_holds_up_nothing(engine: WorkflowEnvironment) -> None:
    async with order_of(engine, HistoryCodec(NEW)) as saga, workers(saga, HistoryCodec(NEW)):
        await saga.world.until(reads("DeliveryStarted"))
        plain: Any = (await street(engine, "keys")).get_workflow_handle(saga.order.order_id)
        decision = {"reason": "operator", "actor": "somebody"}
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(WorkflowUpdateFailedError):
                await plain.execute_update("cancel", decision)
            await plain.signal("whatever", decision)
            assert "OrderCanceling" not in saga.world.events
            await saga.engine.cancel(saga.order.order_id, by="customer", actor="goodman")
            assert await saga.result() == "OrderCanceled"


async def test_a_step_that_no_worker_had_is_withdrawn(
    engine: WorkflowEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine tells of it in clear."""
    async with order_of(engine, STRICT) as saga, workers(saga, STRICT, "workflows", "order", "delivery"):
        await saga.world.until(lambda world: "OrderPlaced" in world.events)
        await until(lambda: cancelled(saga))
        await saga.world.until(lambda world: "PaymentRefunded" in world.events)
        async with workers(saga, STRICT, "marketing"):
            assert await saga.result() == "OrderCanceled"
    assert "plain text" not in capsys.readouterr().out


async def test_an_order_of_before_the_keys_waits_until_what_stands_in_clear_is_accepted(
    engine: WorkflowEnvironment,
) -> None:
    async with order_of(engine, OFF) as saga:
        async with workers(saga, OFF):
            await saga.world.until(reads("DeliveryStarted"))
        async with workers(saga, STRICT):
            assert not await cancelled(saga)
        assert await is_running(saga)
        async with workers(saga, ACCEPTING):
            await until(lambda: cancelled(saga))
            await until(lambda: is_over(saga))
        assert saga.world.standing == set()


async def test_a_message_that_was_accepted_in_clear_is_not_forgotten(engine: WorkflowEnvironment) -> None:
    async with order_of(engine, ACCEPTING) as saga:
        async with workers(saga, ACCEPTING, "workflows", "order", "marketing"):  # the undo will wait for the delivery
            await saga.world.until(lambda world: "CouponIssued" in world.events or "issue_coupon" in world.calls)
            plain: Any = (await street(engine, "keys")).get_workflow_handle(saga.order.order_id)
            await plain.execute_update("cancel", {"reason": "customer", "actor": "goodman"}, result_type=RawValue)
        async with workers(saga, STRICT):
            await until(lambda: task_failed(saga))
        assert await is_running(saga)
        async with workers(saga, ACCEPTING):
            await until(lambda: is_over(saga))
        assert saga.world.events[-1] == "OrderCanceled"
