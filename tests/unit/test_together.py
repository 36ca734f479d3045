"""Rounds of questions: who is in which, who is told what, and what becomes of those who leave."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest
import structlog

from services.shared.errors import DatabaseUnavailable
from services.shared.telemetry import trace_ids, trace_of
from services.shared.together import Together


class Oracle:
    """Answers twice the number, when it is let to, or once fails; notes its rounds."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.begun = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.error: BaseException | None = None

    async def answer(self, questions: Sequence[int]) -> list[int | Exception]:
        self.rounds.append(list(questions))
        self.begun.set()
        await self.may_answer.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error
        return [ValueError(str(question)) if question < 0 else 2 * question for question in questions]


def ask(together: Together[int, int], *questions: int) -> list["asyncio.Task[int]"]:
    return [asyncio.create_task(together.ask(question)) for question in questions]


async def test_who_comes_while_a_round_is_on_its_way_is_in_the_next() -> None:
    oracle = Oracle()
    together = Together(oracle.answer, most=3)
    first = ask(together, 1)
    await oracle.begun.wait()
    others = ask(together, 2, 3, 4, 5)
    await asyncio.sleep(0)
    oracle.may_answer.set()
    assert await asyncio.gather(*first, *others) == [2, 4, 6, 8, 10]
    assert oracle.rounds == [[1], [2, 3, 4], [5]]
    async with asyncio.timeout(5):
        assert await together.ask(6) == 12


async def test_an_answer_that_is_an_error_is_its_own_callers_alone() -> None:
    oracle = Oracle()
    oracle.may_answer.set()
    together = Together(oracle.answer)
    answers = await asyncio.gather(*ask(together, 1, -2, 3), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["2", "-2", "6"]
    assert oracle.rounds == [[1, -2, 3]]


async def test_a_round_that_fails_fails_for_all_in_it_and_for_nobody_else() -> None:
    oracle = Oracle()
    oracle.error = RuntimeError("broken")
    together = Together(oracle.answer, most=2)
    failing = ask(together, 1, 2, 3)
    await oracle.begun.wait()
    oracle.may_answer.set()
    with pytest.raises(RuntimeError):
        await failing[0]
    answers = await asyncio.gather(*failing, return_exceptions=True)
    assert [type(answer) for answer in answers] == [RuntimeError, RuntimeError, int]


async def test_nobody_waits_behind_a_round_for_what_is_away() -> None:
    oracle = Oracle()
    oracle.error = DatabaseUnavailable("away")
    together = Together(oracle.answer, most=1)
    waiting = ask(together, 1, 2, 3)
    await oracle.begun.wait()
    oracle.may_answer.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 3
    assert oracle.rounds == [[1]]
    assert await together.ask(4) == 8


async def test_who_leaves_is_left_out_and_holds_nobody_up() -> None:
    oracle = Oracle()
    together = Together(oracle.answer)
    first, second, third = [*ask(together, 1), *ask(together, 2, 3)]
    await oracle.begun.wait()
    late, leaving = ask(together, 4, 5)
    await asyncio.sleep(0)
    second.cancel()
    leaving.cancel()
    await asyncio.gather(second, leaving, return_exceptions=True)
    oracle.may_answer.set()
    assert await asyncio.gather(first, third, late) == [2, 6, 8]
    assert oracle.rounds == [[1, 2, 3], [4]]


async def test_nobody_is_left_waiting_when_a_round_is_cancelled() -> None:
    oracle = Oracle()
    oracle.error = asyncio.CancelledError()  # as a driver might let out
    together = Together(oracle.answer, most=1)
    waiting = ask(together, 1, 2)
    await oracle.begun.wait()
    oracle.may_answer.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 2
    assert await together.ask(3) == 6


async def test_a_round_that_hangs_is_overtaken_and_takes_nobody_with_it() -> None:
    oracle = Oracle()
    rounds = list[Sequence[int]]()

    async def answer(questions: Sequence[int]) -> Sequence[int | Exception]:
        rounds.append([*questions])
        return await oracle.answer(questions) if rounds[0] == questions else [2 * question for question in questions]

    oracle.error = DatabaseUnavailable("silent")
    together = Together(answer, patience=0.01)
    hanging = ask(together, 1)
    await oracle.begun.wait()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*ask(together, 2, 3)) == [4, 6]  # they came before it was overtaken
        assert await together.ask(4) == 8
    late = ask(together, 5)
    oracle.may_answer.set()
    answers = await asyncio.gather(*hanging, *late, return_exceptions=True)
    assert (type(answers[0]), answers[1]) == (DatabaseUnavailable, 10)
    assert [len(together) for together in rounds] == [1, 2, 1, 1]


async def test_a_round_that_is_in_time_is_not_overtaken() -> None:
    oracle = Oracle()
    together = Together(oracle.answer, patience=60)
    waiting = ask(together, 1)
    await oracle.begun.wait()
    late = ask(together, 2)
    await asyncio.sleep(0)
    assert oracle.rounds == [[1]]
    oracle.may_answer.set()
    assert await asyncio.gather(*waiting, *late) == [2, 4]


async def test_a_round_is_on_behalf_of_nobody() -> None:
    caller, callers = ContextVar("caller", default="nobody"), list[str]()

    async def answer(questions: Sequence[int]) -> Sequence[int]:
        callers.append(caller.get())
        return questions

    caller.set("minji")
    await Together(answer).ask(1)
    assert callers == ["nobody"]


async def test_a_round_is_told_of_its_first_caller() -> None:
    told: list[tuple[dict[str, str], dict[str, object]]] = []
    oracle = Oracle()

    async def answer(questions: Sequence[int]) -> Sequence[int | Exception]:
        told.append((trace_ids(), structlog.contextvars.get_contextvars()))
        return await oracle.answer(questions)

    together = Together(answer)

    async def caller(number: int) -> None:
        names = structlog.contextvars.bound_contextvars(request_id=f"request-{number}")
        with trace_of(f"00-{number:032x}-{1:016x}-01"), names:
            await together.ask(number)

    first = asyncio.create_task(caller(1))
    await oracle.begun.wait()
    others = [asyncio.create_task(caller(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    oracle.may_answer.set()
    await asyncio.gather(first, *others)
    assert told == [
        ({"trace_id": f"{1:032x}"}, {"request_id": "request-1"}),
        ({"trace_id": f"{2:032x}"}, {"request_id": "request-2", "shared_by": 2}),
    ]


async def test_nothing_is_left_running_when_nobody_asks() -> None:
    oracle = Oracle()
    oracle.may_answer.set()
    before = asyncio.all_tasks()
    await Together(oracle.answer).ask(1)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
