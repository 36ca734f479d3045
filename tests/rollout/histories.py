"""What the engine's histories tell of a roll-out: whether anything was begun and not ended by the one who began it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from temporalio.api.enums.v1 import EventType, TimeoutType
from temporalio.client import Client, WorkflowHistory

_LOCAL = "core_local_activity"


@dataclass
class Told:
    """What many histories tell together. Each that was redone or dropped is put in words."""

    orders: int = 0
    activities: int = 0
    local_activities: int = 0
    redone: list[str] = field(default_factory=list[str])
    """Activities that somebody had begun and somebody else began again."""
    workflow_tasks: int = 0
    dropped: list[str] = field(default_factory=list[str])
    """Workflow tasks that a worker was given and did not answer."""
    failed: list[str] = field(default_factory=list[str])
    """Workflow tasks that a worker answered as failed."""
    left_behind: list[str] = field(default_factory=list[str])
    """Workflow tasks that waited for a worker that had gone, until the server gave them to another."""
    held_up: list[float] = field(default_factory=list[float])
    """How many seconds each of both waited, until the server noticed."""
    took: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Of each order, when it was started (seconds since 1970) and how long it took until its last step was done …"""
    waited: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """… and of each task of any kind, when it was there to be taken and how long until somebody took it."""

    def add(self, history: WorkflowHistory) -> None:
        """Take in another history."""
        who, events = history.workflow_id, {event.event_id: event for event in history.events}
        self.orders += 1
        last = began = _seconds(history.events[0])
        for event in history.events:
            at = _seconds(event)
            match event.event_type:
                case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                    started = event.activity_task_started_event_attributes
                    scheduled = events[started.scheduled_event_id]
                    name = scheduled.activity_task_scheduled_event_attributes.activity_type.name
                    self.activities += 1
                    if started.attempt != 1:
                        why = started.last_failure.message or "nobody knows why"
                        since, again = (_clock(one) for one in (scheduled, event))
                        times = f"asked for at {since}, begun again at {again}"
                        self.redone.append(f"{who}: {name}, attempt {started.attempt}, {times}: {why}")
                    else:
                        self._wait(scheduled, at)
                case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                    last = at
                case EventType.EVENT_TYPE_MARKER_RECORDED if (
                    event.marker_recorded_event_attributes.marker_name == _LOCAL
                ):
                    [payload] = event.marker_recorded_event_attributes.details["data"].payloads
                    local: dict[str, Any] = json.loads(payload.data)
                    self.local_activities += 1
                    if local["attempt"] != 1:
                        self.redone.append(f"{who}: {local['activity_type']}, in a worker, attempt {local['attempt']}")
                case EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED:
                    self.workflow_tasks += 1
                    self._wait(events[event.workflow_task_started_event_attributes.scheduled_event_id], at)
                case EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT:
                    timed_out = event.workflow_task_timed_out_event_attributes
                    left_behind = timed_out.timeout_type == TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START
                    since = events[timed_out.scheduled_event_id if left_behind else timed_out.started_event_id]
                    self.held_up.append(at - _seconds(since))
                    what = f"{who}: event {event.event_id}, begun at {_clock(since)}, not answered in time"
                    (self.left_behind if left_behind else self.dropped).append(what)
                case EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                    why = event.workflow_task_failed_event_attributes.failure.message
                    self.failed.append(f"{who}: event {event.event_id}: {why}")
                case _:
                    pass
        self.took.append((began, last - began))

    def _wait(self, scheduled: Any, at: float) -> None:
        since = _seconds(scheduled)
        self.waited.append((since, at - since))


def _seconds(event: Any) -> float:
    return event.event_time.ToNanoseconds() / 1e9


def _clock(event: Any) -> str:
    return event.event_time.ToDatetime().strftime("%H:%M:%S.%f")[:-3]


def told_by(histories: Iterable[WorkflowHistory]) -> Told:
    """What these histories tell."""
    told = Told()
    for history in histories:
        told.add(history)
    return told


async def read_histories(client: Client) -> Told:
    """What the histories of all orders tell that the engine knows."""
    runs = client.list_workflows("WorkflowType = 'OrderWorkflow'", page_size=1000)
    return told_by([history async for history in runs.map_histories()])
