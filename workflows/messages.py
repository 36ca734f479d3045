"""What an order's workflow is started with and told. Kept in history: ids and small values only."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from services.order.statuses import CancelReason, EventType, OrderState

# The search attributes that operators filter by, and their types.
SEARCH_ATTRIBUTES = {
    "OrderStatus": "Keyword",
    "CustomerId": "Keyword",
    "ProductId": "Keyword",
    "NeedsAttention": "Bool",
    "CancelReason": "Keyword",
    "CancelingSince": "Datetime",
}


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """Where an order stood whose workflow is gone, as its view and timeline tell; its new workflow goes on there."""

    version: int
    state: OrderState
    done: list[EventType]
    """What its timeline holds."""
    skipped: list[str] = field(default_factory=list[str])
    """The undos that an operator decided to do without: what they did by hand is not done again."""
    undo: bool
    """Somebody ended its workflow: everything is to be undone. Else the engine has lost it: it goes on."""
    unsure: bool = False
    """More may have been begun than its timeline tells: where it is undone later, all of it is. What an earlier release
    took up undoes what its timeline tells."""


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
    link: str = ""
    """Where an operator can look the order up."""
    resumed: Resumed | None = None
    """Where to go on, for an order whose workflow is gone."""


@dataclass(frozen=True, kw_only=True)
class CancelOrder:
    """Undo the order. `actor` names who asked, `note` says why in the words of an operator.

    With `if_version` only where that is still what readers are shown of it. Earlier releases named none.
    """

    reason: CancelReason
    actor: str
    if_version: int | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class SettleCompensation:
    """An operator's word on an undo that failed for good: try it again, or leave it be."""

    undo: str
    action: Literal["retry", "skip"]
    actor: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class WaiveCoupon:
    """An operator's word that an order goes on without the coupon that marketing does not issue."""

    actor: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ClearAttention:
    """An operator's word that what the order was flagged for has been seen to."""

    actor: str
    reason: str
    about: str = ""
    """What has been seen to; all that can be cleared, where nothing is named."""


@dataclass(frozen=True, kw_only=True)
class FlagOrder:
    """Something about the order that only a person can put right. `about` names it, `detail` tells an operator more."""

    about: str
    detail: str
    actor: str = "reconciliation"
