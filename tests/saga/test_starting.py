"""Starting an order's workflow can be repeated at any time: an order that has ended is not begun again."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.saga.conftest import Saga
from tests.saga.world import Refuse

WAYS: dict[str, Callable[[Saga], Awaitable[None]]] = {
    "started": Saga.start,
    "waited for": lambda saga: saga.engine.payment_known(saga.order, timeout=20),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_an_order_that_has_ended_is_not_begun_again(saga: Saga, way: Callable[[Saga], Awaitable[None]]) -> None:
    saga.world.script("pay_order", Refuse("payment-declined"))
    await saga.start()
    assert await saga.result() == "PaymentDeclined"
    run = (await saga.handle.describe()).run_id
    await asyncio.gather(*(way(saga) for _ in range(3)))
    assert (await saga.handle.describe()).run_id == run
    assert saga.world.calls.count("pay_order") == 1
