"""Many callers, one round: what is asked for at the same time is done together.

A transaction costs the same for one order as for fifty. Under load it is therefore shared, and the cost of each falls
just when it matters; a caller who is alone waits for nobody.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from services.shared.errors import Unavailable

Q = TypeVar("Q")
A = TypeVar("A")


class Together(Generic[Q, A]):
    """Answers questions in rounds of at most so many. While one round is on its way, whoever comes waits for the next.

    `answer` takes the questions of a round, in the order in which they came, and gives an answer to each; one that is
    an exception is raised to its caller alone. If `answer` itself raises, all of its round are told so; and if what it
    needs is away (`Unavailable`), so is whoever waits behind them: they would only wait as long again.
    """

    def __init__(self, answer: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]], *, most: int = 64) -> None:
        self._answer = answer
        self._most = most
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._rounds: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """The answer to one question. A caller that is cancelled is left out of a round that has not begun."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._rounds is None:
            # In a context of its own: it works for others, too, than the one who happened to come first.
            self._rounds = asyncio.create_task(self._go_round(), context=contextvars.Context())
        return await future

    async def _go_round(self) -> None:
        together: list[tuple[Q, asyncio.Future[A]]] = []
        try:
            while together := self._next():
                try:
                    answers = await self._answer([question for question, _ in together])
                except Exception as error:
                    if isinstance(error, Unavailable):
                        together += self._waiting
                        self._waiting.clear()
                    answers = [error] * len(together)
                for (_, future), answer in zip(together, answers, strict=True):
                    if future.done():
                        continue
                    if isinstance(answer, Exception):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:
            self._rounds = None
            for _, future in (*together, *self._waiting):  # nobody is left, but where the round was cancelled
                future.cancel()
            self._waiting.clear()

    def _next(self) -> list[tuple[Q, asyncio.Future[A]]]:
        together: list[tuple[Q, asyncio.Future[A]]] = []
        while self._waiting and len(together) < self._most:
            question, future = self._waiting.popleft()
            if not future.done():
                together.append((question, future))
        return together
