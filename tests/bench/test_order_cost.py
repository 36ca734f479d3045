"""The cost of an order, as a promise."""

import pytest

from tests.bench.cost import MOST_EVENTS, MOST_RPCS, MOST_STATEMENTS, MOST_STATEMENTS_ALONE, Cost, cost
from tests.bench.stage import stage


@pytest.fixture(scope="module")
async def measured() -> Cost:
    async with stage(dispatch_seconds=3600) as here:
        return await cost(here, 96)


async def test_a_happy_order_costs_the_engine_no_more_events_than_promised(measured: Cost) -> None:
    assert measured.events["ACTIVITY_TASK_COMPLETED"] == 4, measured.events
    assert measured.events.total() <= MOST_EVENTS, measured.events


async def test_a_happy_order_costs_the_engine_no_more_requests_than_promised(measured: Cost) -> None:
    assert measured.polls["PollWorkflowTaskQueue"], measured.polls
    assert measured.rpcs <= MOST_RPCS, (measured.calls, measured.polls)


async def test_a_happy_order_costs_the_databases_no_more_statements_than_promised(measured: Cost) -> None:
    assert {"order", "delivery", "marketing", "order, accepting"} <= {*measured.statements}
    assert measured.statements_alone <= MOST_STATEMENTS_ALONE, measured.alone
    assert measured.statements_each <= MOST_STATEMENTS, measured.statements
