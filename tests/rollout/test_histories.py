"""What is read from histories: a recorded one tells of nothing twice, and each thing that was is noticed."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from temporalio.client import WorkflowHistory

from tests.replay.histories import HISTORIES, release
from tests.rollout.histories import Told, told_by

Event = dict[str, Any]
RECORDED = HISTORIES / release() / "delivered.json"


def told_of(change: Callable[[list[Event]], None]) -> Told:
    """What is told by the recorded history of an order that went well, changed like this."""
    recorded = json.loads(RECORDED.read_text())
    change(recorded["events"])
    return told_by([WorkflowHistory.from_json("order_1", recorded)])


def the_first(kind: str, events: list[Event]) -> tuple[Event, Event]:
    """The first event of a kind, and what it says."""
    [(event, attributes), *_] = [
        (event, attributes)
        for event in events
        for name, attributes in event.items()
        if name == f"{kind}EventAttributes"
    ]
    return event, attributes


def begin_again(events: list[Event]) -> None:
    _, attributes = the_first("activityTaskStarted", events)
    attributes |= {"attempt": 2, "lastFailure": {"message": "activity StartToClose timeout"}}


def time_out(events: list[Event], timeout: str) -> None:
    event, completed = the_first("workflowTaskCompleted", events)
    attributes = {name: completed[name] for name in ("scheduledEventId", "startedEventId")} | {"timeoutType": timeout}
    del event["workflowTaskCompletedEventAttributes"]
    event |= {"eventType": "EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT", "workflowTaskTimedOutEventAttributes": attributes}


def time_out_in_hand(events: list[Event]) -> None:
    time_out(events, "TIMEOUT_TYPE_START_TO_CLOSE")


def time_out_in_the_queue(events: list[Event]) -> None:
    time_out(events, "TIMEOUT_TYPE_SCHEDULE_TO_START")


def fail(events: list[Event]) -> None:
    event, _ = the_first("workflowTaskCompleted", events)
    del event["workflowTaskCompletedEventAttributes"]
    failed = {"failure": {"message": "shut down"}}
    event |= {"eventType": "EVENT_TYPE_WORKFLOW_TASK_FAILED", "workflowTaskFailedEventAttributes": failed}


def counts(told: Told) -> dict[str, int]:
    """How often each thing happened that must not."""
    names = ("redone", "dropped", "failed", "left_behind")
    return {name: len(getattr(told, name)) for name in names if getattr(told, name)}


def test_an_order_that_went_well_tells_of_nothing_twice() -> None:
    told = told_of(lambda _: None)
    assert counts(told) == {}
    assert (told.orders, told.activities, told.workflow_tasks) == (1, 6, 8)
    assert told.local_activities >= 1
    assert len(told.waited) == 6 + 8
    assert min(seconds for _, seconds in [*told.waited, *told.took]) >= 0


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (begin_again, "redone"),
        (time_out_in_hand, "dropped"),
        (time_out_in_the_queue, "left_behind"),
        (fail, "failed"),
    ],
)
def test_what_a_roll_out_cut_off_is_noticed(change: Callable[[list[Event]], None], noticed: str) -> None:
    assert counts(told_of(change)) == {noticed: 1}


def test_an_activity_in_a_worker_that_was_begun_again_is_noticed() -> None:
    history = WorkflowHistory.from_json("order_1", RECORDED.read_text())
    [marker, *_] = [event for event in history.events if event.HasField("marker_recorded_event_attributes")]
    [payload] = marker.marker_recorded_event_attributes.details["data"].payloads
    payload.data = json.dumps(json.loads(payload.data) | {"attempt": 2}).encode()
    assert counts(told_by([history])) == {"redone": 1}
