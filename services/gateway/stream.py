"""Orders' timelines as server-sent events. One look a round serves all who follow one, and nobody asks on their own."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager, suppress

import structlog
from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.gateway.caller import Caller
from services.gateway.schemas import EventAnswer
from services.order.book import OrderBook, OrderReading, Progress
from services.order.statuses import OrderStatus
from services.order.tables import OrderEvent, OrderView
from services.shared.errors import Unavailable

STREAM_SECONDS = 0.5
"""The pause between two rounds: no reader hears of anything much later than that."""
HEARTBEAT_SECONDS = 15.0
"""After so much silence a reader is told that it is still connected."""
RETRY_MILLISECONDS = 2000
"""How long a reader whose stream has ended is to wait before it comes back."""
_log = structlog.get_logger(__name__)


class _Reader:
    """Somebody who follows an order. `after` is the last version that was handed over, `ended` that it was the last."""

    def __init__(self, order_id: str, after: int) -> None:
        self.order_id, self.after, self.ended = order_id, after, False
        self._unsent: list[OrderEvent] = []  # an order's timeline at most, however slow its reader is
        self._news = asyncio.Event()

    @property
    def done(self) -> bool:
        """Whether there is nothing left to send, and nothing more to come."""
        return self.ended and not self._unsent

    def hear(self, timeline: Sequence[OrderEvent]) -> None:
        """Hand over what the reader has not been told yet; nothing may be missing before it."""
        if new := [event for event in timeline if event.version > self.after]:
            self._unsent += new
            self.after = new[-1].version
            self._news.set()

    def end(self) -> None:
        self.ended = True
        self._news.set()

    async def news(self, seconds: float) -> Sequence[OrderEvent]:
        """What was handed over meanwhile; waits for it no longer than so many seconds, and returns nothing then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()
        events, self._unsent = self._unsent, []
        return events


class Timelines:
    """The timelines that are followed in this process.

    Costs one query a round while anybody follows, another where something happened, and holds no connection in between.
    A database that is away ends no stream: whatever was missed comes with the first round that succeeds.
    """

    def __init__(self, book: OrderBook, draining: asyncio.Event) -> None:
        self._book = book
        self._draining = draining
        self._followed: dict[str, set[_Reader]] = {}
        self._somebody = asyncio.Event()

    async def serve(self) -> None:
        """Tell readers what happens, until cancelled. Once draining begins, all streams end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_again_and_again())
            await self._draining.wait()
            for readers in self._followed.values():
                for reader in readers:
                    reader.end()

    async def answer(self, reading: OrderReading, last_event_id: str, who: Caller) -> Response:
        """The timeline after the event that a reader saw last, as it grows: until no more can come, or until their
        token expires.

        An id that was never given out means from the start. 204 where no more can
        come from the outset: that keeps an EventSource from coming back. Raises `Unavailable`.
        """
        seen = int(last_event_id) if re.fullmatch(r"[0-9]{1,9}", last_event_id) else 0
        reader = _Reader(reading.view.order_id, seen if seen <= reading.view.version else 0)
        if _is_over(reading.view, reader):
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        reader.hear(await self._book.timeline(reader.order_id, after=reader.after))
        if _is_over(reading.view, reader):
            reader.end()
        return _Stream(self, reader, who)

    @contextmanager
    def followed_by(self, reader: _Reader) -> Generator[None]:
        """Within this, the reader is told what happens."""
        if self._draining.is_set() or reader.ended:
            reader.end()
            yield
            return
        readers = self._followed.setdefault(reader.order_id, set())
        readers.add(reader)
        self._somebody.set()
        try:
            yield
        finally:
            readers.remove(reader)
            if not readers:
                del self._followed[reader.order_id]
            if not self._followed:
                self._somebody.clear()

    async def _look_again_and_again(self) -> None:
        while True:
            await self._somebody.wait()
            try:
                await self._look()
            except Unavailable:
                pass  # the database has said so in the log
            except Exception:  # whatever it was, the readers stay
                _log.exception("timelines could not be read")
            await asyncio.sleep(STREAM_SECONDS)

    async def _look(self) -> None:
        followed = await self._book.progress([*self._followed])
        # A reader who comes while the next query is under way may lack more than that brings.
        behind = [reader for progress in followed for reader in self._of(progress) if reader.after < progress.version]
        if behind:
            timelines: dict[str, list[OrderEvent]] = {reader.order_id: [] for reader in behind}
            for event in await self._book.timelines([*timelines], after=min(reader.after for reader in behind)):
                timelines[event.order_id].append(event)
            for reader in behind:
                reader.hear(timelines[reader.order_id])
        for progress in followed:
            for reader in self._of(progress):
                if _is_over(progress, reader):
                    reader.end()

    def _of(self, progress: Progress) -> set[_Reader]:
        return self._followed.get(progress.order_id, set())


class _Stream(StreamingResponse):
    """What one reader is sent. It follows for as long as that takes, whichever way it ends."""

    media_type = "text/event-stream"

    def __init__(self, timelines: Timelines, reader: _Reader, who: Caller) -> None:
        # Of nginx and its like, the second: a proxy that waits for more would keep the events back.
        super().__init__(_sent(reader, who), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._timelines, self._reader = timelines, reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._timelines.followed_by(self._reader):
            await super().__call__(scope, receive, send)


async def _sent(reader: _Reader, who: Caller) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    while True:
        left = who.expires_at - time.time()
        events = await reader.news(min(HEARTBEAT_SECONDS, left))
        for event in events:
            told = EventAnswer.of(event, to_operator=who.sees is None).model_dump_json()
            yield f"id: {event.version}\nevent: {event.type}\ndata: {told}\n\n"
        if reader.done or left <= 0:
            return
        if not events:
            yield ": still here\n\n"


def _is_over(order: OrderView | Progress, reader: _Reader) -> bool:
    """Whether the reader was handed everything that can ever happen to the order."""
    return OrderStatus(order.order_status).final and reader.after >= order.version
