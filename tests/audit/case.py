"""An order's file: everything that was found about one order id, and what it comes to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from services.delivery.deliveries import DeliveryState
from services.delivery.stock import MovementKind
from services.delivery.tables import Delivery, StockMovement
from services.marketing.tables import Coupon
from services.order.statuses import EventType, OrderStatus
from services.order.tables import IdempotencyKey, Order, OrderEvent, OrderView, Payment
from tests.audit.acknowledgements import Acknowledgement, OrderAccepted, Shown
from workflows.steps import ADJUST_STOCK, ISSUE_COUPON, PAY_ORDER, START_DELIVERY


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """What the provider's ledger says of an order, in one currency. Amounts are in its minor unit."""

    order_id: str
    charged: int
    refunded: int
    currency: str
    charges: int
    refunds: int


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """One run of an order's workflow, as the engine lists it. `status` is the engine's word: `RUNNING`, …"""

    order_id: str
    status: str
    order_status: str | None
    needs_attention: bool | None


@dataclass(kw_only=True)
class Case:
    """All that bears an order's id. Lists, because what must be there once may be there twice, or not at all."""

    order_id: str
    settled: bool = True
    """Whether nothing is under way in the shop any more."""
    forgotten: bool = False
    """Whether it ended so long ago that the engine may have deleted its workflow."""
    orders: list[Order] = field(default_factory=list[Order])
    views: list[OrderView] = field(default_factory=list[OrderView])
    events: list[OrderEvent] = field(default_factory=list[OrderEvent])
    keys: list[IdempotencyKey] = field(default_factory=list[IdempotencyKey])
    payments: list[Payment] = field(default_factory=list[Payment])
    coupons: list[Coupon] = field(default_factory=list[Coupon])
    deliveries: list[Delivery] = field(default_factory=list[Delivery])
    movements: list[StockMovement] = field(default_factory=list[StockMovement])
    ledger: list[LedgerEntry] = field(default_factory=list[LedgerEntry])
    workflows: list[Workflow] = field(default_factory=list[Workflow])
    told: list[Acknowledgement] = field(default_factory=list[Acknowledgement])

    @property
    def order(self) -> Order:
        """The order as it was accepted. Only of one that was."""
        return self.orders[0]

    @property
    def view(self) -> OrderView:
        """Where readers see it. Only of an order that has a view."""
        return self.views[0]

    @cached_property
    def status(self) -> OrderStatus | None:
        """Where it stands; nothing where there is no view, or one with a word that the shop does not know."""
        known = [status for status in OrderStatus if self.views and status == self.view.order_status]
        return known[0] if known else None

    @cached_property
    def timeline(self) -> list[str]:
        """The types of its events, by version."""
        return [event.type for event in self.events]

    @cached_property
    def skipped_undos(self) -> frozenset[str]:
        """The undos that an operator decided to do without."""
        skips = (event for event in self.events if event.type == EventType.COMPENSATION_SKIPPED)
        return frozenset(event.detail["undo"] for event in skips if "undo" in event.detail)

    @property
    def waived(self) -> bool:
        """Whether an operator let it go on without its coupon."""
        return EventType.COUPON_WAIVED in self.timeline

    @property
    def charged(self) -> int:
        return sum(entry.charged for entry in self.ledger)

    @property
    def refunded(self) -> int:
        return sum(entry.refunded for entry in self.ledger)

    @property
    def sold(self) -> int:
        """How many pieces left the warehouse for it and did not come back."""
        return -sum(movement.qty for movement in self.movements)

    @cached_property
    def stands(self) -> Mapping[str, str]:
        """The steps whose effect is there now, and what it is."""
        coupons = [coupon.coupon_id for coupon in self.coupons if coupon.issued_at and not coupon.revoked_at]
        deliveries = [delivery.state for delivery in self.deliveries if delivery.state != DeliveryState.CANCELED]
        left = self.charged - self.refunded
        effects = {
            PAY_ORDER.do: f"{left} of {self.charged} charged" if left else "",
            ISSUE_COUPON.do: _listed(coupons),
            START_DELIVERY.do: _listed(deliveries),
            ADJUST_STOCK.do: f"{self.sold} pieces sold" if self.sold else "",
        }
        return {step: effect for step, effect in effects.items() if effect}

    @cached_property
    def happened(self) -> frozenset[str]:
        """The steps that ever took effect, whether or not they were undone since."""
        ever = {
            PAY_ORDER.do: self.charged > 0,
            ISSUE_COUPON.do: any(coupon.issued_at for coupon in self.coupons),
            START_DELIVERY.do: any(delivery.started_at for delivery in self.deliveries),
            ADJUST_STOCK.do: any(movement.kind == MovementKind.SALE and movement.qty for movement in self.movements),
        }
        return frozenset(step for step, did in ever.items() if did)

    @property
    def accepted(self) -> list[OrderAccepted]:
        """How often, and as what, clients were told that it is accepted."""
        return [note for note in self.told if isinstance(note, OrderAccepted)]

    @property
    def shown(self) -> list[Shown]:
        """Where clients were shown it, in turn."""
        return [note for note in self.told if isinstance(note, Shown)]

    @property
    def position(self) -> tuple[object, ...]:
        """What changes when it moves."""
        runs = [(run.status, run.order_status, run.needs_attention) for run in self.workflows]
        return tuple(view.version for view in self.views), *runs


def _listed(found: Iterable[str]) -> str:
    return ", ".join(found)
