"""The cost of an order in the engine, as a promise."""

from tests.bench.cost import MOST_EVENTS, events_of_one_order
from tests.bench.stage import stage


async def test_a_happy_order_costs_the_engine_no_more_events_than_promised() -> None:
    async with stage():
        events = await events_of_one_order()
    assert events["ACTIVITY_TASK_COMPLETED"] == 4, events
    assert events.total() <= MOST_EVENTS, events
