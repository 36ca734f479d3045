"""One log format for every process: readable on a terminal, JSON elsewhere."""

import logging
import re
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import structlog

from services.shared.settings import LogSettings
from services.shared.telemetry import trace_ids

# What the engine's SDK knows of a line and keeps beside it, and what we call that.
_SDK_NAMES = {"workflow_id": "workflow_id", "activity_type": "activity", "attempt": "attempt", "update_id": "update_id"}
_LONGEST = 500
"""Characters of a field; of a failure they say enough."""
_GIVEN = re.compile(r"input_value=.*(?=, input_type=)")
"""What pydantic could not read, in its own words."""
_RUN = re.compile(r"\brun ID ([0-9a-f-]{36})\b")


def configure_logs(process: str, settings: LogSettings) -> None:
    """Send structlog and the standard library's loggers to standard error, each line naming its process."""
    readable = settings.format == "terminal" or (settings.format == "auto" and sys.stderr.isatty())

    def name_process(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        line["process"] = process
        return line

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_process,
        _name_trace,
    ]
    render = (
        structlog.dev.ConsoleRenderer(colors=False)
        if readable
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[*shared, _name_order, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _name_what_the_sdk_knows, _name_order],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(_traceback),
                render,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("stripe").setLevel(logging.WARNING)  # two lines a call, which our own say better


def _traceback(exc_info: structlog.typing.ExcInfo) -> str:
    # A plain one: rich ones print every local, keys and customers included, and take seconds to draw.
    return _GIVEN.sub("input_value=…", "".join(traceback.format_exception(*exc_info)).rstrip())


def _name_trace(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    line.update(trace_ids())
    return line


def _name_order(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """An order's workflow has the order's id."""
    workflow_id = line.get("workflow_id")
    if isinstance(workflow_id, str) and workflow_id.startswith("order_"):
        line.setdefault("order_id", workflow_id)
    return line


def _name_what_the_sdk_knows(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    record: logging.LogRecord = line["_record"]
    for beside in ("temporal_activity", "temporal_workflow"):
        known: Mapping[str, Any] = getattr(record, beside, {})
        line.update({ours: known[theirs] for theirs, ours in _SDK_NAMES.items() if theirs in known})
    if core := getattr(record, "temporal_log", None):  # its half in Rust
        line.update({name: str(value)[:_LONGEST] for name, value in core.fields.items() if name not in line})
        line.pop("failure", None)  # whole, with what could not be read; the half in Python has told of it
    elif record.name.startswith("temporalio.") and (run := _RUN.search(line["event"])):
        line["run_id"] = run[1]
    return line
