"""An order's state and timeline, as its workflow writes them into the view."""

import asyncio
from dataclasses import replace
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate
from temporalio.exceptions import FailureError

from activities.contract import RecordStatus
from services.order.statuses import EventType, OrderState, TimelineEntry
from workflows import steps

ORDER_STATUS = SearchAttributeKey.for_keyword("OrderStatus")
NEEDS_ATTENTION = SearchAttributeKey.for_bool("NeedsAttention")
CANCEL_REASON = SearchAttributeKey.for_keyword("CancelReason")


class Journal:
    """Counts the order's versions and writes each down, in order, beside whatever the saga does next.

    The saga never waits for a write but at its end (`flush`), and no failing write ever reaches it.
    """

    def __init__(self, order_id: str) -> None:
        self.state = OrderState()
        self._order_id = order_id
        self._version = self._shown = 1  # `OrderReceived` was written when the order was accepted
        self._unwritten: list[TimelineEntry] = []
        self._published = self.state
        self._writer: asyncio.Task[None] | None = None

    def add(
        self, type: EventType, *, detail: dict[str, str] | None = None, publish: bool = True, **changes: Any
    ) -> None:
        """Something happened, and changed this about the order.

        With `publish=False` it is written together with the next entry, which saves a history event.
        """
        self._version += 1
        self.state = replace(self.state, **changes)
        self._unwritten.append(TimelineEntry(version=self._version, type=type, at=workflow.now(), detail=detail or {}))
        if publish:
            self._publish()

    @property
    def shown(self) -> int:
        """The version that readers of the view see, or are about to: what is not published yet does not count."""
        return self._shown

    async def flush(self) -> None:
        """Wait until everything is written."""
        self._publish()
        await workflow.wait_condition(lambda: self._writer is None or self._writer.done())

    def _publish(self) -> None:
        if not self._unwritten:
            return
        self._shown = self._version
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        seen, now = self._published, self.state
        updates: list[SearchAttributeUpdate[Any]] = [
            *([ORDER_STATUS.value_set(now.order_status)] if seen.order_status != now.order_status else []),
            *([NEEDS_ATTENTION.value_set(now.needs_attention)] if seen.needs_attention != now.needs_attention else []),
            *([CANCEL_REASON.value_set(now.cancel_reason)] if now.cancel_reason and not seen.cancel_reason else []),
        ]
        if updates:
            workflow.upsert_search_attributes(updates)  # pyright: ignore[reportUnknownMemberType]  (the SDK's type)
        self._published = now

    async def _write(self) -> None:
        while self._unwritten:
            timeline, self._unwritten = self._unwritten, []
            self._shown = self._version
            command = RecordStatus(order_id=self._order_id, state=self.state, timeline=timeline)
            while not await self._written(command):
                await workflow.sleep(steps.STATUS_PAUSE, summary="until the status can be written")

    async def _written(self, command: RecordStatus) -> bool:
        """Write in the worker itself, or else have the server repeat it; says whether it was written."""
        try:
            await workflow.execute_local_activity(
                "record_status",
                command,
                schedule_to_close_timeout=steps.STATUS_LOCAL_BUDGET,
                retry_policy=steps.STATUS_LOCAL_RETRY,
            )
        except FailureError:  # a local activity fails with its bare cause
            try:
                await workflow.execute_activity(
                    "record_status",
                    command,
                    start_to_close_timeout=steps.STATUS_ATTEMPT,
                    retry_policy=steps.STATUS_RETRY,
                    summary=f"write {command.timeline[-1].type}",
                )
            except FailureError:
                return False
        return True
