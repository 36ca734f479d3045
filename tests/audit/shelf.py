"""Books of a sound shop, made by hand: an order in each state, as it would stand everywhere. To be spoilt by tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from services.delivery.deliveries import DeliveryState
from services.delivery.stock import MovementKind
from services.delivery.tables import Delivery, Stock, StockMovement
from services.marketing.tables import Coupon
from services.order.payments import PaymentState
from services.order.statuses import DeliveryStatus, OrderStatus, PayStatus
from services.order.tables import IdempotencyKey, Order, OrderEvent, OrderView, Payment
from tests.audit.acknowledgements import Acknowledgement, Canceled, Declined, Delivered, OrderAccepted, Paid, Shown
from tests.audit.books import Books
from tests.audit.case import LedgerEntry, Workflow
from tests.audit.timeline import status_after
from tests.orders import an_order

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
USER, PRODUCT, QTY, AMOUNT, OPENING = "goodman", "tea", 2, 2000, 100

SENT = ("OrderReceived", "OrderPlaced", "CouponIssued", "DeliveryStarted", "StockAdjusted")
GOODS_BACK = ("OrderCanceling", "CouponRevoked", "DeliveryCanceled", "StockRestored")
WITHOUT_GOODS_BACK = ("CouponRevoked", "PaymentRefunded", "OrderCanceled")
STUCK = (*SENT, *GOODS_BACK, "AttentionRaised")
UNDER_WAY = {
    "received": SENT[:1],
    "placed": SENT[:2],
    "with-coupon": SENT[:3],
    "delivery-begun": SENT[:4],
    "canceling": (*SENT[:2], "OrderCanceling"),
}
AT_REST = {
    "sent": SENT,
    "delivered": (*SENT, "Delivered"),
    "declined": ("OrderReceived", "PaymentDeclined"),
    "declined-late": ("OrderReceived", "OrderCanceling", "PaymentDeclined"),
    "canceled": (*SENT, *GOODS_BACK, "PaymentRefunded", "OrderCanceled"),
    "canceled-early": ("OrderReceived", "OrderCanceling", "OrderCanceled"),
    "canceled-in-a-step": (*SENT[:2], "OrderCanceling", "CouponIssued", *WITHOUT_GOODS_BACK),
    "flagged": (*SENT, *GOODS_BACK, "PaymentRefunded", "OrderCanceled", "AttentionRaised"),
    "without-coupon": (*SENT[:2], "CouponWaived", *SENT[3:], "Delivered"),
    "stuck": STUCK,
    "skipped": (*STUCK, "CompensationSkipped", "OrderCanceled"),
}


@dataclass
class Shelf:
    """The rows of a shop's books."""

    orders: list[Order] = field(default_factory=list[Order])
    views: list[OrderView] = field(default_factory=list[OrderView])
    events: list[OrderEvent] = field(default_factory=list[OrderEvent])
    keys: list[IdempotencyKey] = field(default_factory=list[IdempotencyKey])
    payments: list[Payment] = field(default_factory=list[Payment])
    coupons: list[Coupon] = field(default_factory=list[Coupon])
    deliveries: list[Delivery] = field(default_factory=list[Delivery])
    stocks: list[Stock] = field(default_factory=list[Stock])
    movements: list[StockMovement] = field(default_factory=list[StockMovement])
    ledger: list[LedgerEntry] = field(default_factory=list[LedgerEntry])
    workflows: list[Workflow] = field(default_factory=list[Workflow])
    acknowledgements: list[Acknowledgement] = field(default_factory=list[Acknowledgement])
    forgotten_before: datetime | None = None

    def books(self, *, settled: bool = True) -> Books:
        """What an audit reads."""
        return Books(**vars(self), settled=settled)

    def add(self, name: str, timeline: tuple[str, ...]) -> None:
        """An order with this timeline, and all that it leaves in everybody's books."""
        happened, status = set(timeline), status_after(timeline)
        flagged = _latest(timeline, "", _FLAG) == "flagged"
        given_up = status is OrderStatus.ORDER_CANCELED
        without_coupon = given_up or "CouponWaived" in happened
        coupon_id = f"coupon_{name}" if "CouponIssued" in happened else None
        changes = {"qty": QTY, "amount": AMOUNT, "user_id": USER, "product_id": PRODUCT, "started_at": AT}
        self.orders.append(an_order(name, AT, **changes))
        self.views.append(
            OrderView(
                order_id=name,
                user_id=USER,
                order_status=status,
                pay_status=_latest(timeline, PayStatus.NOT_PAID, _PAY),
                delivery_status=_latest(timeline, DeliveryStatus.NONE, _GOODS),
                needs_attention=flagged,
                coupon_id=coupon_id,
                version=len(timeline),
                updated_at=AT,
            )
        )
        for version, type in enumerate(timeline, start=1):
            detail = {"undo": "refund_payment"} if type == "CompensationSkipped" else {}
            self.events.append(OrderEvent(order_id=name, version=version, type=type, at=AT, detail=detail))
        self.keys.append(
            IdempotencyKey(user_id=USER, idempotency_key=name, fingerprint="", order_id=name, created_at=AT)
        )
        if state := _payment_state(timeline, given_up=given_up):
            self.payments.append(
                Payment(order_id=name, state=state, amount=AMOUNT, currency="KRW", intent_id="pi", updated_at=AT)
            )
        if "OrderPlaced" in happened:
            refunds = int("PaymentRefunded" in happened)
            self.ledger.append(
                LedgerEntry(
                    order_id=name,
                    charged=AMOUNT,
                    refunded=AMOUNT * refunds,
                    currency="KRW",
                    charges=1,
                    refunds=refunds,
                )
            )
        if coupon_id or without_coupon:  # given up before it was issued: a tombstone
            self.coupons.append(
                Coupon(
                    order_id=name,
                    coupon_id=coupon_id or f"tombstone_{name}",
                    user_id=USER,
                    coupon_kind="Bronze",
                    issued_at=AT if coupon_id else None,
                    revoked_at=AT if without_coupon or "CouponRevoked" in happened else None,
                )
            )
        if "DeliveryStarted" in happened or given_up:
            self.deliveries.append(
                Delivery(
                    order_id=name,
                    product_id=PRODUCT,
                    qty=QTY,
                    state=_latest(timeline, DeliveryState.CANCELED, _GOODS),
                    started_at=AT if "DeliveryStarted" in happened else None,
                    updated_at=AT,
                )
            )
        if "StockAdjusted" in happened:
            self.move(name, MovementKind.SALE, -QTY)
        elif given_up:
            self.move(name, MovementKind.SALE, 0)
        if "StockRestored" in happened:
            self.move(name, MovementKind.RESTORE, QTY)
        ended = status.final
        self.workflows.append(
            Workflow(
                order_id=name,
                status="COMPLETED" if ended and not flagged else "RUNNING",
                order_status=status,
                needs_attention=flagged,
            )
        )
        self._tell(name, timeline)

    def move(self, reference: str, kind: MovementKind, qty: int) -> None:
        """Move stock, and the stock with it."""
        self.movements.append(
            StockMovement(
                movement_id=len(self.movements),
                reference=reference,
                kind=kind,
                product_id=PRODUCT,
                qty=qty,
                reason="",
                at=AT,
            )
        )
        if not self.stocks:
            self.stocks.append(Stock(product_id=PRODUCT, on_hand=0, updated_at=AT))
        self.stocks[0].on_hand += qty

    def view(self, name: str) -> OrderView:
        return next(view for view in self.views if view.order_id == name)

    def payment(self, name: str) -> Payment:
        return next(payment for payment in self.payments if payment.order_id == name)

    def coupon(self, name: str) -> Coupon:
        return next(coupon for coupon in self.coupons if coupon.order_id == name)

    def delivery(self, name: str) -> Delivery:
        return next(delivery for delivery in self.deliveries if delivery.order_id == name)

    def event(self, name: str, version: int) -> OrderEvent:
        return next(event for event in self.events if (event.order_id, event.version) == (name, version))

    def change_entry(self, name: str, **changes: Any) -> None:
        """Let the ledger say something else of an order."""
        [known] = [entry for entry in self.ledger if entry.order_id == name]
        self.ledger[self.ledger.index(known)] = replace(known, **changes)

    def change_run(self, name: str, **changes: Any) -> None:
        """Let the engine say something else of an order."""
        [known] = [run for run in self.workflows if run.order_id == name]
        self.workflows[self.workflows.index(known)] = replace(known, **changes)

    def _tell(self, name: str, timeline: tuple[str, ...]) -> None:
        """What a client was told of it, and was shown after each event."""
        for replayed in (False, True):
            self.acknowledgements.append(
                OrderAccepted(
                    order_id=name,
                    user=USER,
                    product_id=PRODUCT,
                    qty=QTY,
                    amount=AMOUNT,
                    key=name,
                    status=202,
                    replayed=replayed,
                )
            )
        for version in range(1, len(timeline) + 1):
            self.acknowledgements.append(Shown(order_id=name, version=version, status=status_after(timeline[:version])))
        for event, kind in _TOLD.items():
            if event in timeline:
                self.acknowledgements.append(kind(order_id=name))


_PAY = {"OrderPlaced": PayStatus.PAID, "PaymentDeclined": PayStatus.DECLINED, "PaymentRefunded": PayStatus.REFUNDED}
_GOODS = {
    "DeliveryStarted": DeliveryStatus.STARTED,
    "Delivered": DeliveryStatus.DELIVERED,
    "DeliveryCanceled": DeliveryStatus.CANCELED,
}
_FLAG = {"AttentionRaised": "flagged", "AttentionCleared": "", "CompensationSkipped": "", "CompensationRetried": ""}
_TOLD = {
    "OrderPlaced": Paid,
    "PaymentDeclined": Declined,
    "OrderCanceling": Canceled,
    "Delivered": Delivered,
}


def _latest(timeline: tuple[str, ...], first: str, changes: Mapping[str, str]) -> str:
    changed = [changes[type] for type in timeline if type in changes]
    return changed[-1] if changed else first


def _payment_state(timeline: tuple[str, ...], *, given_up: bool) -> PaymentState | None:
    happened = set(timeline)
    if "PaymentDeclined" in happened:
        return PaymentState.DECLINED
    if "PaymentRefunded" in happened:
        return PaymentState.REFUNDED
    if "AttentionRaised" in happened:
        return PaymentState.VOIDING  # its refund is refused
    if "OrderPlaced" in happened:
        return PaymentState.PAID
    return PaymentState.VOIDED if given_up else None


def a_shop_at_rest() -> Shelf:
    """Every way in which an order can end or wait for a person."""
    shelf = Shelf()
    shelf.move(PRODUCT, MovementKind.OPENING, OPENING)
    shelf.move("a-delivery-of-tea", MovementKind.RESTOCK, 10)
    for name, timeline in AT_REST.items():
        shelf.add(name, timeline)
    return shelf


def a_shop_in_motion() -> Shelf:
    """The same, and orders on their way: one that was not even started, and one that just arrived."""
    shelf = a_shop_at_rest()
    for name, timeline in UNDER_WAY.items():
        shelf.add(name, timeline)
    shelf.add("unstarted", SENT[:1])
    shelf.orders[-1].started_at = None
    shelf.workflows.pop()
    shelf.add("arriving", (*SENT, "Delivered"))
    shelf.delivery("arriving").state = DeliveryState.STARTED
    shelf.workflows.append(replace(shelf.workflows.pop(), status="RUNNING"))
    return shelf


def a_shop_of_last_week() -> Shelf:
    """One whose engine has forgotten the workflows of what has ended."""
    shelf = a_shop_at_rest()
    shelf.forgotten_before = AT + timedelta(days=7)
    shelf.workflows = [run for run in shelf.workflows if run.status == "RUNNING"]
    return shelf
