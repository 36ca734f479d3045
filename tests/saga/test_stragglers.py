"""An attempt that the engine has given up may still take effect: it is undone, and refused once it was undone.

With the scripted teams and with the real ones over real databases. Time limits of seconds stand in for those of days.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment

from tests.saga.conftest import Saga, reads
from tests.saga.played import Played, chosen, playing
from tests.saga.situations import Case, End
from tests.saga.table import HASTY, instead
from tests.saga.teams import real_teams
from tests.saga.world import Gate, Refuse
from workflows.steps import Step


def cases(table: Sequence[Step]) -> Iterator[Case]:
    """What an attempt that was given up can do, for every step of a table."""
    for step in table:
        given_up = End(status="OrderCanceled", reason=step.unsettled, attention=True)
        undone = End(status="OrderCanceled", reason=step.unsettled, attention=True, undone=step.undone)

        async def never_said_so(saga: Saga, step: Step = step) -> None:
            silent = [Gate(late=True) for _ in range(5)]
            saga.world.script(step.do, *silent)
            await saga.start()
            await saga.result()
            assert silent[0].reached.is_set()
            await _let_go(gate for gate in silent if gate.reached.is_set())

        async def commits_after_its_undo(saga: Saga, step: Step = step) -> None:
            straggler = Gate()
            saga.world.script(step.do, straggler, Refuse("something-odd"))
            await saga.start()
            await saga.result()
            await _let_go([straggler])
            assert straggler.failure is not None, "it was let through"

        async def is_repeated(saga: Saga, step: Step = step) -> None:
            silent = Gate(late=True)
            saga.world.script(step.do, silent)
            await saga.start()
            await saga.world.until(reads("DeliveryStarted"))
            assert saga.world.calls.count(step.do) == 2
            await _let_go([silent])

        yield Case(situation="takes effect, never says so and is undone", step=step, play=never_said_so, end=undone)
        commits = "commits after its undo and is refused"
        yield Case(situation=commits, step=step, play=commits_after_its_undo, end=given_up)
        repeated = End(status="DeliveryStarted")
        yield Case(situation="takes effect, is repeated and counts once", step=step, play=is_repeated, end=repeated)


async def _let_go(gates: Iterator[Gate] | Sequence[Gate]) -> None:
    """Let attempts that the engine has given up take effect now, and see them to their end."""
    for gate in gates:
        gate.opened.set()
        await gate.left.wait()


CASES = list(cases(HASTY))


@pytest.fixture(scope="module", params=["scripted", "real"])
async def played(
    request: pytest.FixtureRequest, engine: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Played]:
    """The cases on their way, each attempt twice."""
    directory: Path = tmp_path_factory.mktemp("hasty")
    wanted = chosen(request, CASES)
    with instead(HASTY):
        async with real_teams(directory, product_id="2001") as teams:
            real = teams if request.param == "real" else None
            async with playing(engine, wanted, on="hasty", times=2, teams=real) as played:
                yield played


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_what_was_given_up_leaves_no_order_in_between(played: Played, case: Case) -> None:
    await played.ended(case)
