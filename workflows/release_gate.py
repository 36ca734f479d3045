"""What a new version of a team's worker must do before orders are given to it."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import VersioningBehavior

with workflow.unsafe.imports_passed_through():
    from activities.contract import DELIVERY_QUEUE, MARKETING_QUEUE, ORDER_QUEUE, Summarise

# Each changes nothing, and reads a row of its team's own tables, if there is one.
_LOOKS = {
    ORDER_QUEUE: "summarise_orders",
    DELIVERY_QUEUE: "summarise_deliveries",
    MARKETING_QUEUE: "summarise_coupons",
}
_A_LOOK = timedelta(seconds=15)
_PATIENCE = timedelta(minutes=10)
"""A database that fails over just now is no fault of the version's."""
_LAST_ID = "~"


@workflow.defn(name="ReleaseGate", versioning_behavior=VersioningBehavior.PINNED)
class ReleaseGate:
    """Completes when this version takes tasks, holds the history's keys, and reads its team's database; else it fails.

    Started on each of a version's queues, pinned to it, by whoever rolls it out: the Temporal worker controller, by
    `gate` of its `WorkerDeployment`. Without an input: theirs would stand in clear, which is refused.
    """

    @workflow.run
    async def run(self) -> str:
        """The version that passed."""
        info = workflow.info()
        await workflow.execute_activity(
            _LOOKS[info.task_queue],
            Summarise(until=_LAST_ID, limit=1),
            start_to_close_timeout=_A_LOOK,
            schedule_to_close_timeout=_PATIENCE,
        )
        version = info.get_current_deployment_version()
        return version.to_canonical_string() if version else ""
