"""An order's state and timeline, as its workflow writes them into the view."""

import asyncio
from dataclasses import replace
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate
from temporalio.exceptions import FailureError

from activities.contract import RecordStatus
from services.order.statuses import EventType, OrderState, OrderStatus, TimelineEntry
from workflows import steps
from workflows.messages import Resumed

ORDER_STATUS = SearchAttributeKey.for_keyword("OrderStatus")
NEEDS_ATTENTION = SearchAttributeKey.for_bool("NeedsAttention")
CANCEL_REASON = SearchAttributeKey.for_keyword("CancelReason")
CANCELING_SINCE = SearchAttributeKey.for_datetime("CancelingSince")


class Journal:
    """Counts the order's versions and writes each down, in order, beside whatever the saga does next.

    Publishing is two things: the status view, which customers read, and the engine's search attributes, by which
    operators find orders. The saga never waits for a write but at its end (`flush`), and no failing write ever reaches
    it.
    """

    def __init__(self, order_id: str, resumed: Resumed | None = None) -> None:
        self.state = resumed.state if resumed else OrderState()
        self._order_id = order_id
        # `OrderReceived` was written when the order was accepted.
        self._version = self._shown = resumed.version if resumed else 1
        self._timeline: list[TimelineEntry] = []
        self._unwritten: list[TimelineEntry] = []
        self._published = self.state
        self._writer: asyncio.Task[None] | None = None
        self._publisher: asyncio.Task[None] | None = None
        self._undecided = False

    def await_decision(self) -> None:
        """What is added from now on comes from a message, which is in the history only once this workflow task is over.

        A task that never gets that far (its worker or the engine dies) is forgotten, and its updates with it. Nothing
        may have been written of them by then: customers would be told what nobody remembers, and the API would answer
        a repeated cancel by the view. Nor of a *Request Cancellation*, which stays: the repetition may hear of more,
        and that comes first.
        """
        self._undecided = True

    def add(self, type: EventType, *, detail: dict[str, str] | None = None, soon: bool = False, **changes: Any) -> None:
        """Something happened, and changed this about the order.

        Published at once; or `soon`, which is with whatever is published next, but within `steps.PUBLISH_WITHIN`.
        An order that goes from step to step in no time is so written once for several of them, and one that comes to
        wait for a team is found where it waits.
        """
        self._version += 1
        self.state = replace(self.state, **changes)
        entry = TimelineEntry(version=self._version, type=type, at=workflow.now(), detail=detail or {})
        self._timeline.append(entry)
        self._unwritten.append(entry)
        if not soon:
            self._publish()
        elif self._publisher is None or self._publisher.done():
            self._publisher = asyncio.create_task(self._publish_soon())

    @property
    def shown(self) -> int:
        """The version that readers of the view see, or are about to: what is not written yet does not count."""
        return self._shown

    @property
    def whole(self) -> RecordStatus:
        """Everything that was ever to be written, so that a view which lags behind can be brought up to date."""
        return RecordStatus(order_id=self._order_id, state=self.state, timeline=[*self._timeline])

    def write(self) -> None:
        """Begin to bring the view up to date."""
        if not self._unwritten:
            return
        self._shown = self._version
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    @property
    def flushed(self) -> bool:
        """Whether everything is published: nothing waits to be written, and nothing is being written."""
        return self._is_published() and not self._unwritten and (self._writer is None or self._writer.done())

    async def flush(self) -> None:
        """Wait until everything is published."""
        self._publish()
        await workflow.wait_condition(lambda: self._writer is None or self._writer.done())

    async def _publish_soon(self) -> None:
        while not self._is_published():
            try:
                await workflow.wait_condition(
                    self._is_published, timeout=steps.PUBLISH_WITHIN, timeout_summary="publish the status"
                )
            except TimeoutError:
                self._publish()

    def _is_published(self) -> bool:
        """Also while the writer still waits for the database: to look again and again would cost history."""
        return self._shown == self._version and self._published == self.state

    def _publish(self) -> None:
        self.write()
        seen, now = self._published, self.state
        canceling = now.order_status is OrderStatus.ORDER_CANCELING and seen.order_status is not now.order_status
        updates: list[SearchAttributeUpdate[Any]] = [
            *([ORDER_STATUS.value_set(now.order_status)] if seen.order_status != now.order_status else []),
            *([NEEDS_ATTENTION.value_set(now.needs_attention)] if seen.needs_attention != now.needs_attention else []),
            *([CANCEL_REASON.value_set(now.cancel_reason)] if now.cancel_reason and not seen.cancel_reason else []),
            *([CANCELING_SINCE.value_set(workflow.now())] if canceling else []),
        ]
        if updates:
            workflow.upsert_search_attributes(updates)  # pyright: ignore[reportUnknownMemberType]  (the SDK's type)
        self._published = now

    async def _write(self) -> None:
        while self._unwritten:
            timeline, self._unwritten = self._unwritten, []
            self._shown = self._version
            command = RecordStatus(order_id=self._order_id, state=self.state, timeline=timeline)
            beside, self._undecided = not self._undecided, False
            while not await self._written(command, beside=beside):
                await workflow.sleep(steps.STATUS_PAUSE, summary="until the status can be written")

    async def _written(self, command: RecordStatus, *, beside: bool) -> bool:
        """Write in the worker itself, `beside` this workflow task, or else have the server see to it after the task.

        Says whether it was written.
        """
        summary = f"write {command.timeline[-1].type}"
        if beside:
            try:
                await workflow.execute_local_activity(
                    "record_status",
                    command,
                    schedule_to_close_timeout=steps.STATUS_LOCAL_BUDGET,
                    retry_policy=steps.STATUS_LOCAL_RETRY,
                    summary=summary,
                )
                return True
            except FailureError:  # a local activity fails with its bare cause
                pass
        try:
            await workflow.execute_activity(
                "record_status",
                command,
                start_to_close_timeout=steps.STATUS_ATTEMPT,
                retry_policy=steps.STATUS_RETRY,
                summary=summary,
            )
        except FailureError:
            return False
        return True
