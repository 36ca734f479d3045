"""What a line that is logged by an attempt at an activity names, and how the engine's SDK says the same."""

import logging
from typing import Any

import structlog
from temporalio import activity, workflow
from temporalio.runtime import LogForwardingConfig, LoggingConfig, TelemetryFilter
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from services.shared.telemetry import trace_ids


def sdk_logging() -> LoggingConfig:
    """Have the SDK's lines come in our format: its ids as fields, and those of its half in Rust like any others."""
    activity.logger.activity_info_on_message = False
    workflow.logger.workflow_info_on_message = False
    forwarding = LogForwardingConfig(
        logging.getLogger("temporalio"), prepend_target_on_message=False, append_log_fields_to_message=False
    )
    return LoggingConfig(TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarding=forwarding)


class NamedInLogs(Interceptor):
    """Names order, workflow, activity, attempt and trace in each line of an attempt."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Named(next)


class _Named(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        order_id = getattr(input.args[0], "order_id", None) if input.args else None
        # For good: an attempt has a task of its own, and the SDK's line about its failure comes after this.
        structlog.contextvars.bind_contextvars(
            workflow_id=info.workflow_id,
            activity=info.activity_type,
            attempt=info.attempt,
            **({"order_id": order_id} if order_id else {}),
            **trace_ids(),
        )
        return await super().execute_activity(input)
