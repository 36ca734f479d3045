"""Another table in place of the saga's, for as long as a test runs: hasty steps, or one step more."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from services.order.statuses import CancelReason, EventType
from workflows import steps
from workflows.messages import PlaceOrder
from workflows.steps import COMPENSATION_ORDER, PAY_ORDER, SAGA, START_DELIVERY, Step

HASTE = timedelta(seconds=2)


def _little_time(_: PlaceOrder) -> timedelta:
    return 3 * HASTE


HASTY = tuple(replace(step, attempt=HASTE, heartbeat=None, budget=_little_time) for step in SAGA)
"""The saga's steps, each attempt given up after two seconds, and each step after six."""


def _wrapping(order: PlaceOrder) -> str:
    return f"wrap {order.product_name}"


def _nothing(_: object) -> dict[str, object]:
    return {}


WRAP_GIFT = replace(
    START_DELIVERY,
    do="wrap_gift",
    undo="unwrap_gift",
    summary=_wrapping,
    # The shop has no words for it; nothing else in these tests says these.
    done=EventType.COUPON_WAIVED,
    undone=EventType.DELIVERED,
    achieved=_nothing,
    reverted={},
    refusals={"out-of-paper": CancelReason.OUT_OF_STOCK},
)
"""A step that the shop does not have."""
WITH_GIFT = (*SAGA[:2], WRAP_GIFT, *SAGA[2:])


@contextmanager
def instead(table: Sequence[Step]) -> Generator[None]:
    """The saga goes by this table. A step that it has beyond the real one is undone first."""
    by_name = {step.do: step for step in table}
    known = {step.do for step in SAGA}
    undone_first = [step for step in table if step.do not in known]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps, "SAGA", tuple(table))
        patched.setattr(
            steps, "COMPENSATION_ORDER", (*undone_first, *(by_name[step.do] for step in COMPENSATION_ORDER))
        )
        patched.setattr(steps, "PAY_ORDER", by_name[PAY_ORDER.do])
        yield
