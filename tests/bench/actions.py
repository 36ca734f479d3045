"""What an order costs on Temporal Cloud, which bills actions: `python -m tests.bench.actions` prints it.

Counted in the recorded histories of the present release, by Temporal Cloud's own rules (docs.temporal.io, *Temporal
Cloud Actions*). What leaves no event is not in it: heartbeats (an activity that takes more than 2 s), queries, refused
updates, and repeated local activities.
"""

from collections import Counter

from rich.console import Console
from rich.table import Table
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory

from tests.replay.histories import HISTORIES, release

# One action each. A new run of a workflow (continue-as-new) is counted where it starts.
_EACH = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED: "workflow started",
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: "activities",
    EventType.EVENT_TYPE_TIMER_STARTED: "timers",
    EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES: "search attributes",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED: "updates",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: "signals",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_OPTIONS_UPDATED: "options",
}
RETRIES, MARKERS = "repeated attempts", "status writes"
KINDS = (*_EACH.values(), RETRIES, MARKERS)
SHOWN = {
    "delivered": "delivered",
    "declined-payment-declined": "payment declined",
    "refused-start_delivery-out-of-stock": "out of stock after all, undone",
    "cancel-under-way-by-customer": "cancelled by its customer while under way",
}
"""The paths that most orders take, and what people call them."""


def actions(history: WorkflowHistory) -> Counter[str]:
    """The billed actions of a workflow, by their kind.

    All markers of one workflow task are one action: those of local activities, which write the status here.
    """
    counted: Counter[str] = Counter()
    marked: set[int] = set()
    for event in history.events:
        if event.event_type in _EACH:
            counted[_EACH[event.event_type]] += 1
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            counted[RETRIES] += event.activity_task_started_event_attributes.attempt - 1
        elif event.event_type == EventType.EVENT_TYPE_MARKER_RECORDED:
            marked.add(event.marker_recorded_event_attributes.workflow_task_completed_event_id)
    counted[MARKERS] = len(marked)
    return counted


def of_path(path: str) -> Counter[str]:
    """The actions of an order of the present release that took a path of the replay tests."""
    return actions(WorkflowHistory.from_json(path, (HISTORIES / release() / f"{path}.json").read_text()))


def main() -> None:
    """Print a table."""
    counted = {called: of_path(path) for path, called in SHOWN.items()}
    table = Table("", *counted, title="Actions of one order", title_justify="left")
    for kind in KINDS:
        if any(one[kind] for one in counted.values()):
            table.add_row(kind, *(str(one[kind]) for one in counted.values()))
    table.add_row("in all", *(str(one.total()) for one in counted.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
