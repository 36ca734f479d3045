"""The time-skipping server, and one order's saga on it among scripted teams."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.common import SearchAttributeKey
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, Worker

from services.order.tables import Order
from services.shared.ids import new_order_id
from tests.orders import an_order
from tests.saga.world import World
from workflows.client import OrderEngine
from workflows.messages import SEARCH_ATTRIBUTES
from workflows.order import OrderWorkflow

PAYMENT_BUDGET = timedelta(hours=6)
_TYPES = {
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Bool": IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
}


@pytest.fixture(scope="session")
async def engine() -> AsyncGenerator[WorkflowEnvironment]:
    """The real server: what happens when a cancel meets a completion is its doing, and the test server's differs."""
    attributes = [
        SearchAttributeKey.for_bool(name) if kind == "Bool" else SearchAttributeKey.for_keyword(name)
        for name, kind in SEARCH_ATTRIBUTES.items()
    ]
    async with await WorkflowEnvironment.start_local(  # pyright: ignore[reportUnknownMemberType]  (the SDK's type)
        dev_server_existing_path=_binary("temporal"),
        data_converter=pydantic_data_converter,
        search_attributes=attributes,
        dev_server_log_level="error",
    ) as environment:
        yield environment


@pytest.fixture(scope="session")
async def time_machine() -> AsyncGenerator[WorkflowEnvironment]:
    """The time-skipping server, for what takes hours and days."""
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=_binary("temporal-test-server"), data_converter=pydantic_data_converter
    ) as environment:
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace="default", search_attributes={name: _TYPES[kind] for name, kind in SEARCH_ATTRIBUTES.items()}
            )
        )
        yield environment


def _binary(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@dataclass
class Saga:
    """One order on its way."""

    environment: WorkflowEnvironment
    world: World
    order: Order
    engine: OrderEngine
    cached: int = 100
    _workers: dict[str, AsyncExitStack] = field(default_factory=dict[str, AsyncExitStack])

    @property
    def client(self) -> Client:
        return self.environment.client

    @property
    def handle(self) -> WorkflowHandle[Any, str]:
        return self.client.get_workflow_handle(self.order.order_id, result_type=str)

    async def start(self) -> None:
        await self.engine.start(self.order)

    async def come(self, team: str) -> None:
        """A team's worker comes up. `workflows` is the order team's other half."""
        stack = AsyncExitStack()
        options: dict[str, Any] = (
            {
                "workflows": [OrderWorkflow],
                "activities": self.world.activities("order")[-1:],
                "no_remote_activities": True,
            }
            if team == "workflows"
            else {"activities": self.world.activities(team)}
        )
        queue = "order" if team == "workflows" else team
        await stack.enter_async_context(
            Worker(self.client, task_queue=queue, max_cached_workflows=self.cached, **options)
        )
        self._workers[team] = stack

    async def go(self, team: str) -> None:
        """A team's worker goes away."""
        await self._workers.pop(team).aclose()

    async def result(self) -> str:
        """How the order ended."""
        async with asyncio.timeout(60):
            return await self.handle.result()

    async def recorded(self, found: Callable[[WorkflowHistory], bool]) -> None:
        """Wait until the engine has recorded something. Its long poll tells of an order's end only, so this asks."""
        async with asyncio.timeout(60):
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

    async def let_pass(self, time: timedelta) -> None:
        """Let hours or days pass."""
        await self.environment.sleep(time)

    async def close(self) -> None:
        for team in [*self._workers]:
            await self.go(team)


@pytest.fixture(params=[100, 0], ids=["cached", "uncached"])
async def saga(request: pytest.FixtureRequest, engine: WorkflowEnvironment) -> AsyncGenerator[Saga]:
    """A saga whose teams are all there. Whatever happened to it, its history replays."""
    async with running_saga(engine, World(), cached=request.param) as saga:
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
    """A saga among the teams of that world. In the end its history replays and its timeline has no gap."""
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
        environment.client,
        payment_budget=PAYMENT_BUDGET,
        delivery_deadline=timedelta(days=7),
        rpc_timeout=timedelta(seconds=20),
    )
    saga = Saga(environment, world, order, engine, cached)
    try:
        for team in ("workflows", "order", "marketing", "delivery"):
            await saga.come(team)
        yield saga
        history = await saga.handle.fetch_history()
        await Replayer(workflows=[OrderWorkflow], data_converter=pydantic_data_converter).replay_workflow(history)
        versions = [entry.version for entry in saga.world.timeline]
        assert versions == list(range(2, 2 + len(versions))), "the timeline has a gap"
    finally:
        await saga.close()
        handle = saga.handle
        if (await handle.describe()).close_time is None:
            await handle.terminate()


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
