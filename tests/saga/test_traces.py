"""The trace of the request that brought an order is a memo of its workflow, whoever starts it."""

import pytest

from tests.saga.conftest import Saga
from tests.saga.world import Gate

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def begun(saga: Saga, way: str) -> None:
    """Have the order started, by the starter or by who waits for its payment, and wait until it is on its way."""
    gate = Gate()
    saga.world.script("issue_coupon", gate)
    if way == "starter":
        await saga.start()
    else:
        await saga.engine.payment_known(saga.order, timeout=30)
    await gate.reached.wait()
    gate.opened.set()


@pytest.mark.parametrize("way", ["starter", "waiting"])
@pytest.mark.parametrize("trace", [TRACE, None])
async def test_a_workflow_shows_the_trace_of_its_order(saga: Saga, way: str, trace: str | None) -> None:
    saga.order.traceparent = trace
    await begun(saga, way)
    assert await (await saga.handle.describe()).memo() == ({"traceparent": trace} if trace else {})
