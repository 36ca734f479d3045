"""The reconciliation's schedule, and its door to the engine: which workflows there are, and what is done to them."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import structlog
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
    WorkflowExecution,
    WorkflowQueryFailedError,
)
from temporalio.service import RPCError, RPCStatusCode

from activities.contract import ORDER_QUEUE
from services.order.reconciliation import Journal, Standing
from services.order.tables import Order
from services.shared.errors import NotFound
from services.shared.summaries import Part, RunSummary, cut, end_of
from workflows.client import EngineUnavailable, OrderEngine
from workflows.journal import NEEDS_ATTENTION, ORDER_STATUS
from workflows.messages import FlagOrder, Resumed
from workflows.reconciliation import Reconcile, ReconciliationWorkflow

SCHEDULE = "reconciliation"
_AGAIN_SECONDS = 10.0
_RPC = timedelta(seconds=10)
_AT_ONCE = 8
_PAGE = 500
# What the SDK raises when the engine does not answer; the second comes from a lazy client that never connected.
_AWAY = (RPCError, RuntimeError)
_log = structlog.get_logger(__name__)


class ReconciliationSchedule:
    """The schedule that runs the reconciliation, one run at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def keep(self, *, every: timedelta, days: float) -> None:
        """Have the schedule as it is set: see `ensure`. Tries until the engine answers; never raises."""
        while True:
            try:
                return await self.ensure(every=every, days=days)
            except Exception as error:  # whatever it was, orders are taken meanwhile
                _log.warning("the reconciliation is not scheduled yet; trying again", error=f"{error}")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def ensure(self, *, every: timedelta, days: float) -> None:
        """Make the schedule, or bring the one that is there to these settings. An operator's pause is kept."""
        wanted = Schedule(
            action=ScheduleActionStartWorkflow(
                ReconciliationWorkflow.run, Reconcile(days=days), id=SCHEDULE, task_queue=ORDER_QUEUE
            ),
            spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
            policy=SchedulePolicy(
                overlap=ScheduleOverlapPolicy.SKIP,
                catchup_window=every,  # after an outage one run is enough
            ),
        )
        try:
            await self._client.create_schedule(SCHEDULE, wanted, rpc_timeout=_RPC)
        except ScheduleAlreadyRunningError:
            pass
        else:
            return

        def updated(known: ScheduleUpdateInput) -> ScheduleUpdate:
            wanted.state = known.description.schedule.state
            return ScheduleUpdate(wanted)

        await self._client.get_schedule_handle(SCHEDULE).update(updated, rpc_timeout=_RPC)

    async def trigger(self) -> bool:
        """Run the reconciliation now. Says whether that begins a run: one that is under way goes on instead.

        Raises `EngineUnavailable`, also before any order worker has made the schedule.
        """
        handle = self._client.get_schedule_handle(SCHEDULE)
        try:
            running = (await handle.describe(rpc_timeout=_RPC)).info.running_actions
            if not running:
                await handle.trigger(rpc_timeout=_RPC)
        except _AWAY as error:
            raise EngineUnavailable(f"the schedule cannot be triggered: {error}") from error
        return not running


class EngineBooks:
    """See `services.order.reconciliation.Workflows`."""

    def __init__(self, client: Client, engine: OrderEngine) -> None:
        self._client = client
        self._engine = engine

    async def runs(self, *, after: str, until: str, limit: int) -> Part[RunSummary]:
        query = f"WorkflowType = 'OrderWorkflow' AND WorkflowId > '{after}' AND WorkflowId <= '{until}'"
        found: dict[str, tuple[datetime, RunSummary]] = {}
        end = until
        try:
            # The engine lists them in its own sequence, and there may be any number of them: beyond `limit`, only those
            # with the lowest ids are kept.
            async for run in self._client.list_workflows(query, page_size=_PAGE, rpc_timeout=_RPC):
                known = found.get(run.id)
                if run.id <= end and (known is None or known[0] < run.start_time):
                    found[run.id] = run.start_time, _summary(run)
                if len(found) > 2 * limit:
                    end = sorted(found)[limit - 1]
                    found = {order_id: one for order_id, one in found.items() if order_id <= end}
        except _AWAY as error:
            raise EngineUnavailable(str(error)) from error
        ids = sorted(found)[:limit]
        return cut([summary for _, summary in found.values()], end, end_of(ids, limit))

    async def runs_of(self, order_ids: Collection[str]) -> Sequence[RunSummary]:
        room = asyncio.Semaphore(_AT_ONCE)

        async def run_of(order_id: str) -> RunSummary | None:
            async with room:
                try:
                    return _summary(await self._client.get_workflow_handle(order_id).describe(rpc_timeout=_RPC))
                except _AWAY as error:
                    if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
                        return None
                    raise EngineUnavailable(str(error)) from error

        return [run for run in await asyncio.gather(*map(run_of, order_ids)) if run is not None]

    async def journal(self, order_id: str) -> Journal | None:
        try:
            known = await self._engine.journal(order_id)
        except NotFound:
            return None
        except EngineUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, WorkflowQueryFailedError):
                return None  # its history does not fit the code any more, or its key is lost
            if isinstance(cause, RPCError) and cause.status == RPCStatusCode.FAILED_PRECONDITION:
                return None  # it was ended before it began, or while its tasks failed
            raise
        return Journal(known.state, known.timeline)

    async def resume(self, order: Order, standing: Standing, *, undo: bool) -> None:
        await self._engine.resume(order, _resumed(standing, undo=undo))

    async def flag(self, order: Order, standing: Standing, *, about: str, detail: str) -> None:
        await self._engine.flag(order, _resumed(standing, undo=False), FlagOrder(about=about, detail=detail))


def _resumed(standing: Standing, *, undo: bool) -> Resumed:
    return Resumed(
        version=standing.version, state=standing.state, done=standing.done, skipped=standing.skipped, undo=undo
    )


def _summary(run: WorkflowExecution) -> RunSummary:
    attributes = run.typed_search_attributes
    return RunSummary(
        run.id,
        run.status.name if run.status else "UNKNOWN",
        attributes.get(ORDER_STATUS),
        attributes.get(NEEDS_ATTENTION),
    )
