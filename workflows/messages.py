"""What an order's workflow is started with and told. Kept in history: ids and small values only."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from services.order.statuses import CancelReason

# The search attributes that operators filter by, and their types.
SEARCH_ATTRIBUTES = {
    "OrderStatus": "Keyword",
    "CustomerId": "Keyword",
    "ProductId": "Keyword",
    "NeedsAttention": "Bool",
    "CancelReason": "Keyword",
}


@dataclass(frozen=True, kw_only=True)
class PlaceOrder:
    """An accepted order, as much of it as its saga needs."""

    order_id: str
    user_id: str
    product_id: str
    product_name: str
    qty: int
    amount: int
    currency: str
    payment_method: str
    deliver_within: timedelta
    """An order that is not delivered this long after its delivery started is flagged for a person."""
    pay_within: timedelta = timedelta(hours=24)
    """A payment whose outcome cannot be learned by then is called off. What an earlier release started has 24 h."""


@dataclass(frozen=True, kw_only=True)
class CancelOrder:
    """Undo the order. `actor` names who asked.

    With `if_version` only where that is still what readers are shown of it. Earlier releases named none.
    """

    reason: CancelReason
    actor: str
    if_version: int | None = None


@dataclass(frozen=True, kw_only=True)
class SettleCompensation:
    """An operator's word on an undo that failed for good: try it again, or leave it be."""

    undo: str
    action: Literal["retry", "skip"]
    actor: str
    reason: str
