"""The teams' workers in a namespace of their own, which many orders share: each order has a world of its own."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from tests.saga.world import World, activities, local_activities
from worker import RUNNER
from workflows.order import OrderWorkflow

TEAMS = ("workflows", "order", "marketing", "delivery")
LANES = tuple(f"lane-{number}" for number in range(1, 7))
STREETS = ("steady", "forgetful", "teams", "hasty", "new-step", "keys", "versions", *LANES)
"""Namespaces, so that a worker which goes away is missed by those orders only that are to miss it."""


class Stage:
    """Workers of the teams over the worlds of their orders. `workflows` is the order team's other half."""

    def __init__(self, client: Client, cached: int = 100, *, replayer: WorkflowRunner | None = None) -> None:
        """Workers that keep so many orders' workflows in memory.

        Histories are replayed in the SDK's sandbox, unless another `replayer` is named: it reads the table anew, so
        what a test changed about the table is unknown there.
        """
        self.client = client
        self.replayer = replayer or SandboxedWorkflowRunner()
        self.worlds: dict[str, World] = {}
        self._cached = cached
        self._workers: dict[str, AsyncExitStack] = {}

    async def come(self, team: str) -> None:
        """A team's worker comes up."""
        options: dict[str, Any] = (
            {
                "workflows": [OrderWorkflow],
                "activities": local_activities(self.worlds.__getitem__),
                "no_remote_activities": True,
                "workflow_runner": RUNNER,  # as in the shop
            }
            if team == "workflows"
            else {"activities": activities(team, self.worlds.__getitem__)}
        )
        stack = AsyncExitStack()
        queue = "order" if team == "workflows" else team
        await stack.enter_async_context(
            Worker(self.client, task_queue=queue, max_cached_workflows=self._cached, **options)
        )
        self._workers[team] = stack

    async def go(self, team: str) -> None:
        """A team's worker goes away."""
        await self._workers.pop(team).aclose()

    async def __aenter__(self) -> Self:
        for team in TEAMS:
            await self.come(team)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for team in [*self._workers]:
            await self.go(team)


async def street(
    environment: WorkflowEnvironment, name: str, converter: DataConverter = pydantic_data_converter
) -> Client:
    """A client of one of the `STREETS`."""
    return await Client.connect(
        environment.client.service_client.config.target_host,
        namespace=name,
        data_converter=converter,
    )
