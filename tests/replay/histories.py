"""Recorded histories: where they lie, what stands in a file, and what one tells."""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from temporalio.client import WorkflowHistory

_ROOT = Path(__file__).parents[2]
HISTORIES = Path(__file__).parent / "histories"
"""A directory for each release that orders may still be open of, a file for each path in it."""

# What no replay looks at: it names the machine, differs with each recording, or is for people.
_NEEDLESS = {"identity", "meteringMetadata", "requestId", "stackTrace", "taskId", "userMetadata", "workerVersion"}


def release() -> str:
    """The release that this code is, or will be."""
    return str(tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"])


def recorded(of_release: str = "*") -> list[Path]:
    """The files of one release or of all."""
    return sorted(HISTORIES.glob(f"{of_release}/*.json"))


def text_of(history: WorkflowHistory) -> str:
    """What to keep of a history: a line an event, so that one can see what a new recording changes."""
    lines = [
        json.dumps(_needed(event), ensure_ascii=False, separators=(",", ":"))
        for event in history.to_json_dict()["events"]
    ]
    return '{"events":[\n' + ",\n".join(lines) + "\n]}\n"


def _needed(value: Any) -> Any:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {name: _needed(field) for name, field in fields.items() if name not in _NEEDLESS}
    if isinstance(value, list):
        return [_needed(item) for item in cast("list[Any]", value)]
    return value


def story(history: WorkflowHistory) -> list[str]:
    """What happened, in words: `scheduled pay_order`, `update cancel`, `timer fired`, …"""
    activity: dict[int, str] = {}
    told: list[str] = []
    for event in history.events:
        kind = cast("str", event.WhichOneof("attributes")).removesuffix("_event_attributes")
        attributes: Any = getattr(event, f"{kind}_event_attributes")
        if kind == "activity_task_scheduled":
            activity[event.event_id] = attributes.activity_type.name
            told.append(f"scheduled {attributes.activity_type.name}")
        elif kind.startswith("activity_task_"):  # cancel requested, completed, failed, timed out, canceled
            told.append(
                f"{kind.removeprefix('activity_task_').replace('_', ' ')} {activity[attributes.scheduled_event_id]}"
            )
        elif kind == "workflow_execution_update_accepted":
            told.append(f"update {attributes.accepted_request.input.name}")
        elif kind == "marker_recorded":
            told.append(f"marker {attributes.marker_name}")
        else:
            told.append(kind.replace("_", " "))
    return told


def patches(histories: Iterable[WorkflowHistory]) -> set[str]:
    """The ids of the patches (`workflow.patched`) that these histories have taken."""
    found: set[str] = set()
    for history in histories:
        for event in history.events:
            marker = event.marker_recorded_event_attributes
            if marker.marker_name == "core_patch":
                found.add(json.loads(marker.details["patch-data"].payloads[0].data)["id"])
    return found
