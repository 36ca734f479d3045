"""The servers, and one order's saga on them among scripted teams."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer

from services.order.tables import Order
from services.shared.ids import new_order_id
from tests.engines import real_engine, skipping_engine
from tests.orders import an_order
from tests.saga.stage import STREETS, Stage
from tests.saga.world import PATIENCE, World
from workflows.client import OrderEngine
from workflows.order import OrderWorkflow

PAYMENT_BUDGET = timedelta(hours=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the SDK warn of what may happen on a busy machine: a status write that ended while it was being cancelled.

    As an error, the warning would end the worker.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:Cannot find activity to cancel"))


@pytest.fixture(scope="session")
async def engine() -> AsyncGenerator[WorkflowEnvironment]:
    """The real server: what happens when a cancel meets a completion is its doing, and the test server's differs."""
    async with real_engine(namespaces=STREETS) as environment:
        yield environment


@pytest.fixture(scope="session")
async def time_machine() -> AsyncGenerator[WorkflowEnvironment]:
    """The time-skipping server, for what takes hours and days."""
    async with skipping_engine() as environment:
        yield environment


@dataclass
class Saga:
    """One order on its way."""

    environment: WorkflowEnvironment
    world: World
    order: Order
    engine: OrderEngine
    stage: Stage

    @property
    def client(self) -> Client:
        return self.stage.client

    @property
    def handle(self) -> WorkflowHandle[Any, str]:
        return self.client.get_workflow_handle(self.order.order_id, result_type=str)

    async def start(self) -> None:
        await self.engine.start(self.order)

    async def come(self, team: str) -> None:
        """A team's worker comes up. `workflows` is the order team's other half."""
        await self.stage.come(team)

    async def go(self, team: str) -> None:
        """A team's worker goes away."""
        await self.stage.go(team)

    async def result(self) -> str:
        """How the order ended. One that is flagged stays open, for a person; that is how it ended then."""
        ended = asyncio.create_task(self.handle.result())
        flagged = asyncio.create_task(
            self.world.until(lambda world: world.state.order_status.final and world.state.needs_attention)
        )
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait([ended, flagged], return_when=asyncio.FIRST_COMPLETED)
                return ended.result() if ended.done() else self.world.state.order_status
        finally:
            ended.cancel()
            flagged.cancel()

    @asynccontextmanager
    async def patient(self) -> AsyncGenerator[None]:
        """Waits for something that tells of itself, though not for ever."""
        async with asyncio.timeout(PATIENCE):
            yield

    async def over(self) -> str:
        """How the order ended, once an operator has cleared what it was flagged for and its workflow has ended."""
        await self.result()
        if self.world.state.needs_attention:
            await self.engine.clear_attention(self.order.order_id, actor="kim", reason="seen to")
        async with asyncio.timeout(PATIENCE):
            return await self.handle.result()

    async def recorded(self, found: Callable[[WorkflowHistory], bool]) -> None:
        """Wait until the engine has recorded something. Its long poll tells of an order's end only, so this asks."""
        async with asyncio.timeout(PATIENCE):
            while not found(await self.handle.fetch_history()):  # noqa: ASYNC110  (there is no event to await)
                await asyncio.sleep(0.02)

    async def budget_of(self, activity: str) -> timedelta | None:
        """How long the engine tries an activity in all; nothing if it was never asked for it."""
        for event in (await self.handle.fetch_history()).events:
            scheduled = event.activity_task_scheduled_event_attributes
            if scheduled.activity_type.name == activity:
                return scheduled.schedule_to_close_timeout.ToTimedelta()
        return None

    async def patience_with(self, activity: str) -> timedelta | None:
        """For how long the engine waits for a sign of life of an activity; nothing if it was never asked for it."""
        for event in (await self.handle.fetch_history()).events:
            scheduled = event.activity_task_scheduled_event_attributes
            if scheduled.activity_type.name == activity:
                return scheduled.heartbeat_timeout.ToTimedelta()
        return None

    async def updates(self) -> list[str]:
        """The updates in the order in which the engine has them."""
        accepted = [
            event.workflow_execution_update_accepted_event_attributes.accepted_request.input.name
            for event in (await self.handle.fetch_history()).events
        ]
        return [name for name in accepted if name]

    async def let_pass(self, time: timedelta) -> None:
        """Let hours or days pass."""
        await self.environment.sleep(time)


@pytest.fixture
async def saga(engine: WorkflowEnvironment) -> AsyncGenerator[Saga]:
    """A saga whose teams are all there, and its own. Whatever happened to it, its history replays."""
    async with running_saga(engine, World()) as saga:
        yield saga


@pytest.fixture
async def long_saga(time_machine: WorkflowEnvironment) -> AsyncGenerator[Saga]:
    """A saga whose hours and days pass in no time."""
    async with running_saga(time_machine, World()) as saga:
        yield saga


@asynccontextmanager
async def running_saga(
    environment: WorkflowEnvironment, world: World, *, cached: int = 100, payment_method: str = "pm_card_visa"
) -> AsyncGenerator[Saga]:
    """A saga among teams of its own. In the end its history replays and its timeline has no gap."""
    async with (
        Stage(environment.client, cached) as stage,
        order_of(environment, world, stage, payment_method=payment_method) as saga,
    ):
        yield saga


@asynccontextmanager
async def order_of(
    environment: WorkflowEnvironment, world: World, stage: Stage, *, payment_method: str = "pm_card_visa"
) -> AsyncGenerator[Saga]:
    """An order's saga among the teams on that stage. In the end its history replays and its timeline has no gap."""
    order = an_order(
        new_order_id(),
        user_id="goodman",
        product_id="2001",
        product_name="gram",
        product_price=9_000_000,
        amount=9_000_000,
        payment_method=payment_method,
    )
    engine = OrderEngine(
        stage.client,
        payment_budget=PAYMENT_BUDGET,
        delivery_deadline=timedelta(days=7),
        order_link="https://desk.example/{orderId}",
        rpc_timeout=timedelta(seconds=20),
    )
    saga = Saga(environment, world, order, engine, stage)
    stage.worlds[order.order_id] = world
    try:
        yield saga
        history = await saga.handle.fetch_history()
        replayer = Replayer(
            workflows=[OrderWorkflow], data_converter=pydantic_data_converter, workflow_runner=stage.replayer
        )
        await replayer.replay_workflow(history)
        versions = [entry.version for entry in saga.world.timeline]
        assert versions == list(range(2, 2 + len(versions))), "the timeline has a gap"
    finally:
        world.hold_no_more()
        try:
            if (await saga.handle.describe()).close_time is None:
                await saga.handle.terminate()
        except RPCError as never_started:
            if never_started.status != RPCStatusCode.NOT_FOUND:
                raise


def reads(status: str) -> Callable[[World], bool]:
    """Whether the order reads so."""
    return lambda world: world.state.order_status == status


async def cancel(saga: Saga, *, if_version: int | None = None) -> None:
    """The customer cancels, whatever the version or only at that one."""
    await saga.engine.cancel(saga.order.order_id, by="customer", actor="goodman", if_version=if_version)


async def under_way(saga: Saga) -> None:
    """Start the order, and wait until its delivery has started."""
    await saga.start()
    await saga.world.until(reads("DeliveryStarted"))


def assert_clean_slate(saga: Saga, reason: str) -> None:
    """Nothing that the order did is left, and it reads why."""
    assert saga.world.standing == set()
    assert saga.world.state.order_status == "OrderCanceled"
    assert saga.world.state.cancel_reason == reason
    assert saga.world.events[-1] == "OrderCanceled"
