"""The words in which an order's state is told. Pure data: the workflow, which writes it, imports it too."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class OrderStatus(StrEnum):
    """Where an order stands, in the shop's words."""

    ORDER_RECEIVED = "OrderReceived"
    ORDER_PLACED = "OrderPlaced"
    COUPON_ISSUED = "CouponIssued"
    DELIVERY_STARTED = "DeliveryStarted"
    DELIVERED = "Delivered"
    PAYMENT_DECLINED = "PaymentDeclined"
    ORDER_CANCELING = "OrderCanceling"
    ORDER_CANCELED = "OrderCanceled"

    @property
    def final(self) -> bool:
        """Whether nothing can happen to the order any more."""
        return self in _FINAL


_FINAL = frozenset({OrderStatus.DELIVERED, OrderStatus.PAYMENT_DECLINED, OrderStatus.ORDER_CANCELED})


class PayStatus(StrEnum):
    """Where the customer's money is."""

    NOT_PAID = "NotPaid"
    PAID = "Paid"
    DECLINED = "Declined"
    REFUNDED = "Refunded"


class DeliveryStatus(StrEnum):
    """Where the goods are, as the order's reader sees it."""

    NONE = "None"
    STARTED = "Started"
    DELIVERED = "Delivered"
    CANCELED = "Canceled"


class CancelReason(StrEnum):
    """Why an order was cancelled."""

    CUSTOMER = "customer"
    OPERATOR = "operator"
    OUT_OF_STOCK = "outOfStock"
    UNKNOWN_PRODUCT = "unknownProduct"
    PAYMENT_UNKNOWN = "paymentUnknown"
    STEP_FAILED = "stepFailed"


class EventType(StrEnum):
    """What can stand on an order's timeline, in the past tense."""

    ORDER_RECEIVED = "OrderReceived"
    ORDER_PLACED = "OrderPlaced"
    COUPON_ISSUED = "CouponIssued"
    COUPON_WAIVED = "CouponWaived"
    DELIVERY_STARTED = "DeliveryStarted"
    STOCK_ADJUSTED = "StockAdjusted"
    DELIVERED = "Delivered"
    PAYMENT_DECLINED = "PaymentDeclined"
    ORDER_CANCELING = "OrderCanceling"
    COUPON_REVOKED = "CouponRevoked"
    DELIVERY_CANCELED = "DeliveryCanceled"
    STOCK_RESTORED = "StockRestored"
    PAYMENT_REFUNDED = "PaymentRefunded"
    ORDER_CANCELED = "OrderCanceled"
    ATTENTION_RAISED = "AttentionRaised"
    ATTENTION_CLEARED = "AttentionCleared"
    COMPENSATION_RETRIED = "CompensationRetried"
    COMPENSATION_SKIPPED = "CompensationSkipped"


@dataclass(frozen=True, kw_only=True)
class TimelineEntry:
    """One thing that happened to an order. `version` grows by one with each, without gaps, from 1."""

    version: int
    type: EventType
    at: datetime
    detail: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class OrderState:
    """What changes about an order while its saga runs. Everything else was settled when it was accepted."""

    order_status: OrderStatus = OrderStatus.ORDER_RECEIVED
    pay_status: PayStatus = PayStatus.NOT_PAID
    delivery_status: DeliveryStatus = DeliveryStatus.NONE
    cancel_reason: CancelReason | None = None
    needs_attention: bool = False
    coupon_id: str | None = None
    coupon_kind: str | None = None
    coupon_use_yn: str | None = None
