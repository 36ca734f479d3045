"""A step that is added to the saga's table meets every situation, without a new test."""

from collections.abc import AsyncGenerator

import pytest
from temporalio.testing import WorkflowEnvironment

from tests.saga.played import Played, playing
from tests.saga.situations import ALWAYS, Case, cases
from tests.saga.table import WITH_GIFT, WRAP_GIFT, instead
from worker import RUNNER
from workflows.steps import SAGA

NEW = [case for case in cases(WITH_GIFT) if case.step is WRAP_GIFT]


@pytest.fixture(scope="module")
async def played(engine: WorkflowEnvironment) -> AsyncGenerator[Played]:
    with instead(WITH_GIFT):
        async with playing(engine, NEW, on="new-step", cached=4, replayer=RUNNER) as played:
            yield played


@pytest.mark.parametrize("case", NEW, ids=lambda case: case.id)
async def test_an_order_ends_with_all_effects_or_none(played: Played, case: Case) -> None:
    await played.ended(case)


def test_it_meets_every_situation_and_the_others_meet_all_of_theirs() -> None:
    met = {covered for case in cases(WITH_GIFT) for covered in case.covers}
    before = {covered for case in cases(SAGA) for covered in case.covers}
    assert met - before == {("wrap_gift", situation) for situation in (*ALWAYS, "refused: out-of-paper")}
    assert before <= met
