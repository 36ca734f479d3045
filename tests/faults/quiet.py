"""Waiting until nothing is under way any more: a list of conditions, each of which says what it still waits for."""

import asyncio
from collections.abc import Sequence

import httpx2

from services.order.statuses import OrderStatus
from tests.faults.crowd import Crowd
from tests.faults.mix import UNREFUNDABLE
from tests.faults.tally import Tally
from tests.faults.window import Standing, Window

_POLL_SECONDS = 0.5


async def until_quiet(window: Window, crowd: Crowd, tally: Tally, *, patience: float) -> Sequence[str]:
    """Wait so many seconds at most, settling refunds that the provider refuses as an operator would.

    Answers what has not settled by then: nothing, if all is well.
    """
    deadline = tally.now + patience
    while True:
        standings = await window.standings()
        running = await window.running()
        open_matters = _open_matters(standings, running, tally)
        if not open_matters or tally.now > deadline:
            return open_matters
        for standing in standings or ():
            if _is_stuck_refund(standing):
                try:
                    await crowd.settle(standing.order_id, "refund_payment")
                except httpx2.TransportError:
                    continue  # it is settled in the next round
        await asyncio.sleep(_POLL_SECONDS)


def _open_matters(standings: Sequence[Standing] | None, running: set[str] | None, tally: Tally) -> list[str]:
    if standings is None:
        return ["the order database does not answer"]
    if running is None:
        return ["the engine does not answer"]
    status = {standing.order_id: standing.status for standing in standings}
    waiting = {order_id for order_id, is_at in status.items() if is_at is OrderStatus.DELIVERY_STARTED}
    return [
        *(f"{order_id} was accepted and is not there" for order_id in tally.accepted.keys() - status.keys()),
        *(f"{standing.order_id} reads {standing.status}" for standing in standings if not standing.settled),
        *(f"{order_id} was cancelled and reads DeliveryStarted" for order_id in tally.canceled & waiting),
        *(f"{order_id} was delivered and reads DeliveryStarted" for order_id in tally.delivered & waiting),
        *(
            f"{one.order_id} is {one.status} and its workflow runs"
            for one in standings
            if one.status.final and one.order_id in running
        ),
        *(f"{order_id} waits for the carrier and has no workflow" for order_id in waiting - running),
    ]


def persons_needed(standings: Sequence[Standing]) -> list[str]:
    """The orders that call a person though nothing in the mix asked for it."""
    return [
        f"{one.order_id} ({one.pay}) reads {one.status} and needs attention" for one in standings if one.needs_attention
    ]


def _is_stuck_refund(standing: Standing) -> bool:
    return standing.pay == UNREFUNDABLE and standing.status is OrderStatus.ORDER_CANCELING and standing.needs_attention
