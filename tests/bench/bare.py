"""The measures that an order is held against: a workflow that only asks three teams for four empty things, and none."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():  # else the sandbox imports it anew for each run
    from services.shared.settings import Team

QUEUES: dict[Team, str] = {"order": "bare-order", "marketing": "bare-marketing", "delivery": "bare-delivery"}
_STEPS: tuple[tuple[Team, str], ...] = (
    ("order", "bare_pay"),
    ("marketing", "bare_coupon"),
    ("delivery", "bare_delivery"),
    ("delivery", "bare_stock"),
)


@workflow.defn(name="BareWorkflow")
class BareWorkflow:
    """Four empty remote activities, one after the other, on the queues of three teams."""

    @workflow.run
    async def run(self) -> None:
        for team, name in _STEPS:
            await workflow.execute_activity(name, task_queue=QUEUES[team], start_to_close_timeout=timedelta(seconds=15))


@workflow.defn(name="EmptyWorkflow")
class EmptyWorkflow:
    """Nothing at all: what the engine takes for a workflow by itself."""

    @workflow.run
    async def run(self) -> None:
        return


def activities(team: Team) -> Sequence[Callable[..., Any]]:
    """The empty activities of one team."""
    return [_empty(name) for of_team, name in _STEPS if of_team == team]


def _empty(name: str) -> Callable[..., Any]:
    @activity.defn(name=name)
    async def empty() -> None:
        return

    return empty
