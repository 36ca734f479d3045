"""Many callers, one round: what is asked for at the same time is done together.

A transaction costs the same for one order as for fifty. Under load it is therefore shared, and the cost of each falls
just when it matters; a caller who is alone waits for nobody. A round that hangs, as on a connection that fell silent,
can be overtaken.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import structlog
from opentelemetry import context

from services.shared.errors import Unavailable

Q = TypeVar("Q")
A = TypeVar("A")


class _Affair(NamedTuple):
    """What a caller is about: their trace, and what each line that is logged names."""

    trace: context.Context
    names: dict[str, Any]


class Together(Generic[Q, A]):
    """Answers questions in rounds of at most so many. While one round is on its way, whoever comes waits for the next.

    `answer` takes the questions of a round, in the order in which they came, and gives an answer to each; one that is
    an exception is raised to its caller alone. If `answer` itself raises, all of its round are told so; and if what it
    needs is away (`Unavailable`), so is whoever waits behind them: they would only wait as long again.

    With `patience`, in seconds, nobody waits longer than that behind a round: the next one begins beside it.

    What is traced and logged meanwhile is told of the first of a round; the lines say of how many it was (`shared_by`).
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]],
        *,
        most: int = 64,
        patience: float | None = None,
    ) -> None:
        self._answer = answer
        self._most = most
        self._patience = patience
        self._waiting: deque[tuple[Q, asyncio.Future[A], _Affair]] = deque()
        self._rounds: asyncio.Task[None] | None = None
        self._overtaken: set[asyncio.Task[None]] = set()  # the loop itself keeps no hold of them

    async def ask(self, question: Q) -> A:
        """The answer to one question. A caller that is cancelled is left out of a round that has not begun."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        affair = _Affair(context.get_current(), structlog.contextvars.get_contextvars())
        self._waiting.append((question, future, affair))
        if self._rounds is None:
            self._begin()
        return await future

    def _begin(self) -> None:
        # In a context of its own: it works for others, too, than the one who happened to come first.
        self._rounds = asyncio.create_task(self._go_rounds(), context=contextvars.Context())

    async def _go_rounds(self) -> None:
        """Go one round after the other until nobody waits or another task has overtaken this one."""
        together: list[tuple[Q, asyncio.Future[A], _Affair]] = []
        this = asyncio.current_task()
        loop = asyncio.get_running_loop()
        try:
            while self._rounds is this and (together := self._next()):
                overtaking = None if self._patience is None else loop.call_later(self._patience, self._overtake)
                try:
                    with _told_of(together[0][2], len(together)):
                        answers = await self._answer([question for question, _, _ in together])
                except Exception as error:
                    if isinstance(error, Unavailable) and self._rounds is this:
                        together += self._waiting
                        self._waiting.clear()
                    answers = [error] * len(together)
                finally:
                    if overtaking is not None:
                        overtaking.cancel()
                for (_, future, _), answer in zip(together, answers, strict=True):
                    if future.done():
                        continue
                    if isinstance(answer, Exception):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:
            left = [*together]  # nobody is left, but where the round was cancelled
            if self._rounds is this:
                self._rounds = None
                left += self._waiting
                self._waiting.clear()
            for _, future, _ in left:
                future.cancel()

    def _overtake(self) -> None:
        if self._rounds is not None:
            self._overtaken.add(self._rounds)
            self._rounds.add_done_callback(self._overtaken.discard)
            self._rounds = None
            if self._waiting:
                self._begin()

    def _next(self) -> list[tuple[Q, asyncio.Future[A], _Affair]]:
        together: list[tuple[Q, asyncio.Future[A], _Affair]] = []
        while self._waiting and len(together) < self._most:
            asked = self._waiting.popleft()
            if not asked[1].done():
                together.append(asked)
        return together


@contextmanager
def _told_of(affair: _Affair, callers: int) -> Generator[None]:
    # One transaction is in one place of one trace. A link to each of the others would have to be looked for by somebody
    # who reads theirs; there, the time that it took is what is left over.
    token = context.attach(affair.trace)
    try:
        with structlog.contextvars.bound_contextvars(**affair.names, **({"shared_by": callers} if callers > 1 else {})):
            yield
    finally:
        context.detach(token)
