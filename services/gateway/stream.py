"""An order's timeline as server-sent events."""

import asyncio
from collections.abc import AsyncIterator

from services.gateway.schemas import EventAnswer
from services.order.book import OrderBook
from services.order.statuses import OrderStatus
from services.shared.errors import Unavailable

STREAM_SECONDS = 0.5
HEARTBEAT_ROUNDS = 30


async def follow(book: OrderBook, order_id: str, after: int, *, every: float, heartbeat: int) -> AsyncIterator[str]:
    """The timeline as it grows, until the order is at its end. Holds no connection between two looks.

    Where the database goes away the stream ends: the reader comes back with the last event that it saw.
    """
    quiet = 0
    while True:
        try:
            reading = await book.get(order_id)
            events = await book.timeline(order_id, after=after)
        except Unavailable:
            return
        for event in events:
            yield f"id: {event.version}\nevent: {event.type}\ndata: {EventAnswer.of(event).model_dump_json()}\n\n"
            after, quiet = event.version, 0
        if OrderStatus(reading.view.order_status).final and after >= reading.view.version:
            return
        quiet += 1
        if quiet % heartbeat == 0:
            yield ": still here\n\n"
        await asyncio.sleep(every)
