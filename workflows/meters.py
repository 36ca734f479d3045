"""What workflows measure. Replayed workflows measure nothing: the SDK's meters see to that."""

from datetime import datetime, timedelta

from temporalio import workflow


def step_known(step: str, outcome: str, began: datetime) -> None:
    """It is known what a step came to: done, refused, failed or withdrawn. Its team's absence counts."""
    took = workflow.now() - began
    meter = workflow.metric_meter().with_additional_attributes({"step": step, "outcome": outcome})
    meter.create_histogram_timedelta("street12_step", "Steps, from being asked for until known").record(took)


def undo_known(undo: str, outcome: str, began: datetime) -> None:
    """It is known what an undo came to: undone, nothing (there was nothing to undo) or stuck."""
    took = workflow.now() - began
    meter = workflow.metric_meter().with_additional_attributes({"undo": undo, "outcome": outcome})
    described = "Undos, from being asked for until known"
    meter.create_histogram_timedelta("street12_compensation", described).record(took)


def compensation_settled(undo: str, action: str) -> None:
    """An operator settled a stuck undo: by retry, or by skip."""
    meter = workflow.metric_meter().with_additional_attributes({"undo": undo, "action": action})
    meter.create_counter("street12_compensations_settled", "Decisions of operators on stuck undos").add(1)


def order_settled(status: str, reason: str | None) -> None:
    """An order has come to its end; the reason is that of a cancelled one."""
    meter = workflow.metric_meter().with_additional_attributes({"status": status, "reason": reason or "none"})
    meter.create_counter("street12_orders_settled", "Orders that came to their end").add(1)


def difference_found(code: str, outcome: str) -> None:
    """The reconciliation found that two stores disagree, and this became of it."""
    meter = workflow.metric_meter().with_additional_attributes({"code": code, "outcome": outcome})
    meter.create_counter("street12_reconciliation_differences", "Differences between stores").add(1)


def reconciled(took: timedelta) -> None:
    """A run of the reconciliation has come to its end."""
    described = "Runs of the reconciliation, from their beginning to their end"
    workflow.metric_meter().create_histogram_timedelta("street12_reconciliation", described).record(took)
