"""What a log line holds, and what it never does."""

import asyncio
import contextvars
import logging
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from services.shared.telemetry import trace_of
from tests.logged import Format, logged

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ORDER = "order_01m8e3612jeq5sc09jd1k4s8jv"
_log = structlog.get_logger("test")


@pytest.mark.parametrize("format", ["terminal", "json"])
def test_a_logged_failure_shows_no_local_value(format: Format) -> None:
    with logged(format) as written:
        try:
            secret = "sk_" + "live_1"
            raise ValueError(len(secret))
        except ValueError:
            logging.getLogger("test").exception("it failed")
            _log.exception("it failed")
    assert written.getvalue().count("it failed") == 2
    assert "ValueError" in written.getvalue()
    assert "sk_live_1" not in written.getvalue()


@pytest.mark.parametrize("log", [_log, logging.getLogger("any")], ids=["structlog", "logging"])
async def test_each_line_names_its_process_wherever_it_comes_from(log: Any) -> None:
    with logged() as written:
        log.warning("here")
        await asyncio.to_thread(log.warning, "here")
        contextvars.Context().run(log.warning, "here")
    assert [line["process"] for line in written.of("here")] == ["test"] * 3


@pytest.mark.parametrize("log", [_log, logging.getLogger("any")], ids=["structlog", "logging"])
def test_a_line_names_the_trace_that_it_belongs_to(log: Any) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with logged() as written:
        log.warning("of none")
        with trace_of(f"00-{TRACE}-{PARENT}-01"):
            log.warning("in a caller's trace")
            with tracer.start_as_current_span("own") as span:
                log.warning("in a span")
    [none], [callers], [own] = (written.of(event) for event in ("of none", "in a caller's trace", "in a span"))
    assert none.keys() & {"trace_id", "span_id"} == set()
    assert callers["trace_id"] == own["trace_id"] == TRACE
    assert "span_id" not in callers, "it is the caller's"
    assert own["span_id"] == f"{span.get_span_context().span_id:016x}"


def test_what_the_engines_sdk_keeps_beside_a_line_becomes_its_fields() -> None:
    log = logging.getLogger("temporalio.test")
    ids = {"workflow_id": ORDER, "activity_type": "pay_order", "attempt": 3, "workflow_run_id": "1", "task_queue": "x"}
    run_id = "01a21c33-056f-7e68-8f76-4e057c24911c"
    core = SimpleNamespace(fields={"workflow_id": ORDER, "error": "x" * 10_000, "event": "another"})
    with logged() as written:
        log.warning("an activity's", extra={"temporal_activity": ids})
        log.warning("a workflow's", extra={"temporal_workflow": {"workflow_id": "tidying", "attempt": 1}})
        log.warning("a core's", extra={"temporal_log": core})
        log.warning("Failed handling activation on workflow with run ID %s", run_id)
    activity, workflow, of_core, run = written.parsed()
    assert (activity["order_id"], activity["workflow_id"]) == (ORDER, ORDER)
    assert (activity["activity"], activity["attempt"]) == ("pay_order", 3)
    assert workflow["workflow_id"] == "tidying"
    assert "order_id" not in workflow
    assert (of_core["order_id"], of_core["event"], len(of_core["error"])) == (ORDER, "a core's", 500)
    assert run["run_id"] == run_id
