"""Signs of life of an attempt, so that the engine notices within seconds when its worker is gone."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from temporalio import activity

P = ParamSpec("P")
T = TypeVar("T")
_SIGN_SECONDS = 2.0


def heartbeating(attempt: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let an activity tell that it is alive for as long as it takes.

    With that, the engine can ask a running attempt to stop. It does not: it is seen to its end, because the saga needs
    to know what became of it. Only a worker that shuts down cuts it off, once its time of grace is over.
    """

    @wraps(attempt)
    async def alive(*args: P.args, **kwargs: P.kwargs) -> T:
        work = asyncio.create_task(attempt(*args, **kwargs))
        while not work.done():
            try:
                done, _ = await asyncio.wait([work], timeout=_SIGN_SECONDS)
                if not done:
                    activity.heartbeat()  # no details: the SDK fails for good what cannot decrypt them
            except asyncio.CancelledError:
                details = activity.cancellation_details()
                if details is not None and details.worker_shutdown:
                    work.cancel()
                    await asyncio.wait([work])
                    raise
        return work.result()

    return alive
