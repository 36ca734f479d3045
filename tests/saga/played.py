"""Many cases played at once among the same teams, so that each costs what its order costs and no worker's start."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import WorkflowRunner

from tests.saga.conftest import Saga, order_of, reads
from tests.saga.curtain import Curtain
from tests.saga.situations import Case, End
from tests.saga.stage import Stage, street
from tests.saga.teams import Teams
from tests.saga.world import World
from workflows import steps

AT_ONCE = 12


class Played:
    """Cases on their way. Each is an order of its own, so none disturbs another."""

    def __init__(self, environment: WorkflowEnvironment, stage: Stage, *, times: int, teams: Teams | None) -> None:
        self._environment = environment
        self._stage = stage
        self._times = times
        self._teams = teams
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def play(self, cases: Iterable[Case], curtain: Curtain | None = None) -> None:
        """Set cases going: all at once behind a curtain, else as many as there is room for."""
        for case in cases:
            self._tasks[case.id] = asyncio.create_task(self._one(case, curtain))

    async def ended(self, case: Case) -> None:
        """Wait until a case has ended. Raises what was wrong about its end."""
        await self._tasks[case.id]

    async def settled(self) -> None:
        """Wait until all that were set going have ended, however."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """Let nothing go on."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _one(self, case: Case, curtain: Curtain | None) -> None:
        world = World(self._teams.activities if self._teams else None, times=self._times)
        async with AsyncExitStack() as stack:
            if curtain is None:
                await stack.enter_async_context(self._room)
            saga = await stack.enter_async_context(order_of(self._environment, world, self._stage))
            if case.behind is not None and curtain is not None:
                try:
                    await case.behind(saga, curtain)
                except BaseException:
                    await curtain.tear()
                    raise
            elif case.play is not None:
                await case.play(saga)
            await assert_ended(saga, case.end, self._teams)


@asynccontextmanager
async def playing(
    environment: WorkflowEnvironment,
    cases: Sequence[Case],
    *,
    on: str,
    cached: int = 100,
    times: int = 1,
    teams: Teams | None = None,
    replayer: WorkflowRunner | None = None,
) -> AsyncGenerator[Played]:
    """These cases on their way, on that street."""
    behind = [case for case in cases if case.behind is not None]
    async with Stage(await street(environment, on), cached, replayer=replayer) as stage:
        played = Played(environment, stage, times=times, teams=teams)
        try:
            # The curtain falls for all alike, so those behind it come first and the others after.
            if behind:
                played.play(behind, Curtain(stage, len(behind)))
                await played.settled()
            played.play(case for case in cases if case.behind is None)
            yield played
        finally:
            await played.close()


def chosen(request: pytest.FixtureRequest, cases: Sequence[Case]) -> list[Case]:
    """Of these cases those that this run is to test on what the fixture is parametrised by."""
    tested = {item.name.partition("[")[2] for item in request.session.items if item.path == request.path}
    return [case for case in cases if f"{request.param}-{case.id}]" in tested]


async def assert_ended(saga: Saga, end: End, teams: Teams | None = None) -> None:
    """The order ends so: with all its effects or with none, never between, and each effect once."""
    everything = {step.do for step in steps.SAGA}
    if end.status == "DeliveryStarted":
        await saga.world.until(reads(end.status))
    else:
        assert await saga.result() == end.status
    stands = await teams.standing(saga.order.order_id) if teams else saga.world.standing
    left = {end.left} if end.left else set[str]()
    assert stands == (everything if end.status == "DeliveryStarted" else left)
    assert saga.world.repeated == set()
    if teams:
        assert await teams.charges(saga.order.order_id) <= 1, "the customer was charged twice"
    state = saga.world.state
    assert state.order_status == end.status
    assert state.cancel_reason == end.reason
    assert state.needs_attention == end.attention
    if end.undone:
        assert saga.world.events.count(end.undone) == 1, "the step took effect: its undo must say so"
    assert not set(end.never) & set(saga.world.calls), "it went on after it was cancelled"
    if end.status == "PaymentDeclined":
        assert [call for call in saga.world.calls if call != "record_status"] == ["pay_order"]
        assert state.pay_status == "Declined"
