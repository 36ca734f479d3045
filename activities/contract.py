"""The contract between the saga and the teams: what is asked of whom, and what comes back.

Plain data, and all that the workflow knows of a team. Ids and small values only: what stands here is kept in the
engine's history, so no name, address, phone number or card ever does.
"""

from dataclasses import dataclass, field
from datetime import datetime

from services.order.comparison import Difference, Handled
from services.order.statuses import OrderState, TimelineEntry

ORDER_QUEUE = "order"
DELIVERY_QUEUE = "delivery"
MARKETING_QUEUE = "marketing"


@dataclass(frozen=True, kw_only=True)
class PayOrder:
    """Charge an order once, or give that charge back (`refund_payment`)."""

    order_id: str
    amount: int
    currency: str
    payment_method: str


@dataclass(frozen=True, kw_only=True)
class IssueCoupon:
    """Give the buyer the coupon that an order of this amount earns, or take it away (`revoke_coupon`)."""

    order_id: str
    user_id: str
    amount: int
    currency: str


@dataclass(frozen=True, kw_only=True)
class StartDelivery:
    """Set a delivery going, or call it off (`cancel_delivery`)."""

    order_id: str
    product_id: str
    qty: int


@dataclass(frozen=True, kw_only=True)
class AdjustStock:
    """Take an order's pieces out of stock, or put them back (`restore_stock`)."""

    order_id: str
    product_id: str
    qty: int


@dataclass(frozen=True, kw_only=True)
class Coupon:
    """The coupon that an order earned."""

    coupon_id: str
    coupon_kind: str


@dataclass(frozen=True, kw_only=True)
class Undone:
    """An undo's answer. `changed` is false where there was nothing to undo and only the tombstone was left."""

    changed: bool


@dataclass(frozen=True, kw_only=True)
class RecordStatus:
    """Write the status view and add to the timeline; what is not newer than what is there changes nothing."""

    order_id: str
    state: OrderState
    timeline: list[TimelineEntry]


@dataclass(frozen=True, kw_only=True)
class Summarise:
    """Say what there is of the orders behind one id and up to another, of so many at most; or of these alone."""

    after: str = ""
    until: str = ""
    limit: int = 0
    order_ids: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class SummariseCharges:
    """Say what the provider has of the intents made in a time, newest first, from behind one; or of these alone."""

    since: datetime
    until: datetime
    after: str | None = None
    limit: int = 0
    intent_ids: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class SummariseStock:
    """Say what there is of the products behind one id, of so many; or of these alone."""

    after: str = ""
    limit: int = 0
    product_ids: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class PutRight:
    """Do about each difference what is safe."""

    differences: list[Difference]


@dataclass(frozen=True, kw_only=True)
class ReportReconciliation:
    """How far a run of the reconciliation has come, and what it found since it told last; `first` numbers that."""

    reconciliation_id: str
    started_at: datetime
    compared: int = 0
    found: int = 0
    repaired: int = 0
    not_compared: list[str] = field(default_factory=list[str])
    handled: list[Handled] = field(default_factory=list[Handled])
    first: int = 1
    finished: bool = False
