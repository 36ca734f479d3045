"""Waiting for an order's payment, for as long as its customer wishes (`Prefer: wait=N`, RFC 7240)."""

import asyncio
import re
from typing import Any

from fastapi import Request

from services.gateway.parts import Engine
from services.order.tables import Order

LONGEST_WAIT = 30


def wished_wait(prefer: str) -> int:
    """The seconds of `Prefer: wait=N`, 30 at most."""
    found = re.search(r"(?:^|[,;\s])wait=(\d{1,9})(?:$|[,;\s])", prefer)
    return min(int(found[1]), LONGEST_WAIT) if found else 0


async def payment_known(request: Request, engine: Engine, order: Order, seconds: float) -> None:
    """Wait until an order's payment is known, its time is over, the caller has gone away, or this process drains."""
    draining: asyncio.Event = request.app.state.draining
    waiting: list[asyncio.Task[Any]] = [
        asyncio.create_task(engine.payment_known(order, timeout=seconds)),
        asyncio.create_task(_gone(request)),
        asyncio.create_task(draining.wait()),
    ]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
