"""Every situation at every step: the order ends with all of its effects or with none, never between.

Three times: with workers that remember their orders; with workers that remember a few only and have to read up on most,
where every attempt takes effect twice; and with the three teams' real activities over real databases, where every
attempt takes effect twice as well.
"""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment

from tests.saga.played import Played, chosen, playing
from tests.saga.situations import ALWAYS, Case, cases
from tests.saga.teams import Teams, real_teams
from workflows.steps import SAGA

CASES = cases(SAGA)
FEW = 4
STREETS = ("steady", "forgetful", "teams")


@pytest.fixture(scope="module", params=STREETS)
async def played(request: pytest.FixtureRequest, engine: WorkflowEnvironment, teams: Teams) -> AsyncGenerator[Played]:
    """The cases that are to be tested, on their way among each other."""
    wanted = chosen(request, CASES)
    cached, times = (FEW if request.param == "forgetful" else 100), (1 if request.param == "steady" else 2)
    async with playing(
        engine,
        wanted,
        on=request.param,
        cached=cached,
        times=times,
        teams=teams if request.param == "teams" else None,
    ) as played:
        yield played


@pytest.fixture(scope="module")
async def teams(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Teams]:
    directory: Path = tmp_path_factory.mktemp("teams")
    async with real_teams(directory, product_id="2001") as teams:
        yield teams


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_an_order_ends_with_all_effects_or_none(played: Played, case: Case) -> None:
    await played.ended(case)


async def test_the_stock_is_what_its_movements_say(teams: Teams) -> None:
    assert await teams.sold() == await teams.moved()


def test_every_step_meets_every_situation() -> None:
    met = {covered for case in CASES for covered in case.covers}
    assert {(step.do, situation) for step in SAGA for situation in ALWAYS} <= met
    refused = {(step.do, f"refused: {code}") for step in SAGA for code in step.refusals}
    assert met - refused == {(step.do, situation) for step in SAGA for situation in ALWAYS} | {
        ("pay_order", "declined: insufficient-funds"),
        ("pay_order", "declined: payment-declined"),
    }
