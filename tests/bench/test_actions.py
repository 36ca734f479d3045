"""How actions are counted, and that what the documents say of them is so."""

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from deploy.local import ROOT
from tests.bench.actions import SHOWN, actions, of_path


def history_of(*events: HistoryEvent) -> WorkflowHistory:
    return WorkflowHistory("an order", events)


def test_an_attempt_that_is_repeated_costs_each_time() -> None:
    scheduled = HistoryEvent(event_type=EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
    started = HistoryEvent(event_type=EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED)
    started.activity_task_started_event_attributes.attempt = 3
    assert actions(history_of(scheduled, started)).total() == 3


def test_the_markers_of_one_task_cost_once() -> None:
    markers = [HistoryEvent(event_type=EventType.EVENT_TYPE_MARKER_RECORDED) for _ in range(3)]
    for marker, task in zip(markers, (4, 4, 10), strict=True):
        marker.marker_recorded_event_attributes.workflow_task_completed_event_id = task
    assert actions(history_of(*markers)).total() == 2


@pytest.mark.parametrize("path", SHOWN)
def test_the_documents_say_what_an_order_costs(path: str) -> None:
    row = f"| {SHOWN[path]} | {of_path(path).total()} |"
    assert row in (ROOT / "docs" / "deployment.md").read_text()
