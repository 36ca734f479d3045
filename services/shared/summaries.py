"""What each store says of an order, in a few words, when the stores are compared.

Every field crosses the engine's history for every order of a month, so these are tuples: short on the wire. Ids,
amounts and states only. A store that has nothing of an order says nothing of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, NamedTuple, Protocol, TypeVar


class OfOrder(Protocol):
    """What is said of one order."""

    @property
    def order_id(self) -> str: ...


S = TypeVar("S", bound=OfOrder)


@dataclass(frozen=True)
class Part(Generic[S]):
    """All that a store has of the orders up to and including `until`, in the sequence of their ids."""

    rows: list[S]
    until: str


def cut(rows: Iterable[S], until: str, *ends: str | None) -> Part[S]:
    """What is whole of rows some of which were read no further than to these `ends`."""
    until = min([until, *(end for end in ends if end is not None)])
    return Part([row for row in sorted(rows, key=lambda row: row.order_id) if row.order_id <= until], until)


def end_of(ids: Sequence[str], limit: int) -> str | None:
    """How far was read where no more than `limit` were asked for; nothing where that was all."""
    return ids[-1] if ids and len(ids) >= limit else None


class OrderSummary(NamedTuple):
    """The order team: what was ordered, where it stands, and its payment. Amounts are in the minor unit."""

    order_id: str
    product_id: str
    qty: int
    amount: int
    currency: str
    order_status: str
    needs_attention: bool
    coupon_id: str | None
    version: int
    updated_at: datetime
    started: bool
    """Whether its workflow was started."""
    payment_state: str | None
    intent_id: str | None
    excused: tuple[str, ...] = ()
    """Steps that were done without and undos that an operator skipped, by name."""


class DeliverySummary(NamedTuple):
    """The delivery team: the order's goods. `sold` pieces left the warehouse and did not come back."""

    order_id: str
    state: str | None
    product_id: str | None
    qty: int
    sold: int


class CouponSummary(NamedTuple):
    """The marketing team: whether the order's coupon stands, that is, was issued and not revoked."""

    order_id: str
    coupon_id: str
    stands: bool


class RunSummary(NamedTuple):
    """The engine: the latest run of the order's workflow. `status` is the engine's word, `RUNNING` for an open one."""

    order_id: str
    status: str
    order_status: str | None
    needs_attention: bool | None


class ChargeSummary(NamedTuple):
    """The payment provider: one payment intent, and the order that it names, where there is such an order."""

    intent_id: str
    order_id: str
    status: str
    received: int
    refunded: int
    currency: str
    order: OrderSummary | None


class StockSummary(NamedTuple):
    """The delivery team: what is on hand of a product, and what its movements come to."""

    product_id: str
    on_hand: int
    moved: int
