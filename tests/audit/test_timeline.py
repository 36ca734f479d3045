"""Which timelines the saga writes, and what each of them comes to."""

import pytest

from services.order.statuses import OrderStatus
from tests.audit.shelf import AT_REST, GOODS_BACK, SENT, STUCK, UNDER_WAY
from tests.audit.timeline import impossible, status_after

RETRIED = (*STUCK, "CompensationRetried", "PaymentRefunded", "OrderCanceled")
WAIVED = (*SENT[:2], "CouponWaived")
WITHOUT_COUPON = (*WAIVED, "DeliveryStarted", "StockAdjusted", "Delivered")
FLAGGED = (*SENT, "AttentionRaised", "Delivered", "AttentionRaised")
POSSIBLE = {
    **UNDER_WAY,
    **AT_REST,
    "retried": RETRIED,
    "flagged before and after it arrived": FLAGGED,
    "canceled flagged, cleared": (*AT_REST["canceled"], "AttentionRaised", "AttentionCleared"),
    "delivered without a coupon": WITHOUT_COUPON,
    "waived while it was being issued": (*WAIVED, "CouponIssued", "DeliveryStarted", "CouponRevoked", "StockAdjusted"),
    "revoked after it arrived": (*WAIVED, "CouponIssued", *WITHOUT_COUPON[3:], "CouponRevoked"),
    "its revocation settled": (*WITHOUT_COUPON, "AttentionRaised", "CompensationRetried"),
    "canceled without a coupon": (
        *WITHOUT_COUPON[:-1],
        *("OrderCanceling", "DeliveryCanceled", "StockRestored", "PaymentRefunded", "OrderCanceled"),
    ),
    "a step that took effect and was never told of": ("OrderReceived", "OrderCanceling", "PaymentRefunded"),
}


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_the_saga_writes_is_possible(name: str) -> None:
    skipped = frozenset({"refund_payment"}) if name == "skipped" else frozenset[str]()
    assert impossible(POSSIBLE[name], skipped) is None


@pytest.mark.parametrize(
    ("types", "why"),
    [
        (SENT[1:], "OrderReceived is the first event"),
        ((*SENT[:2], "OrderReceived"), "OrderReceived is the first event"),
        ((*SENT[:2], "DeliveryStarted"), "the steps done before it are"),
        ((*SENT[:2], "OrderPlaced"), "the steps done before it are"),
        ((*SENT[:1], "OrderCanceling", "OrderPlaced", "CouponIssued"), "no further step begins"),
        ((*SENT, "CouponRevoked"), "an undo comes after OrderCanceling"),
        ((*SENT, "OrderCanceling", "CouponRevoked", "CouponRevoked"), "and once"),
        ((*SENT[:2], "OrderCanceling", "StockRestored"), "its step had not begun"),
        ((*SENT, "OrderCanceling", "OrderCanceling"), "already"),
        ((*SENT, "OrderCanceling", "CompensationSkipped"), "needed attention"),
        ((*SENT, "AttentionRaised", "CompensationRetried"), "needed attention"),
        ((*SENT[:4], "Delivered"), "only what was sent"),
        ((*SENT, "OrderCanceling", "Delivered"), "only what was sent"),
        ((*SENT[:2], "PaymentDeclined"), "the payment had succeeded"),
        ((*SENT, "OrderCanceled"), "it was not being cancelled"),
        ((*SENT, *GOODS_BACK, "OrderCanceled"), "never undone are OrderPlaced"),
        ((*SENT, "Delivered", "OrderCanceling"), "nothing happens after Delivered"),
        ((*AT_REST["canceled"], "CouponRevoked"), "an undo comes after OrderCanceling"),
        ((*SENT, "Delivered", "CouponRevoked"), "an undo comes after OrderCanceling"),
        ((*SENT, "AttentionCleared"), "nothing to clear"),
        ((*SENT[:3], "CouponWaived"), "only an order that waits for its coupon"),
        ((*WAIVED, "StockAdjusted"), "the steps done before it are"),
        ((*WAIVED, "DeliveryStarted", "CouponIssued"), "the steps done before it are"),
        ((*WAIVED, "CouponWaived"), "only an order that waits for its coupon"),
        ((*WAIVED, "PaymentRefunded"), "an undo comes after OrderCanceling"),
        ((*SENT, "Lost"), "no such event"),
    ],
)
def test_what_the_saga_never_writes_is_told(types: tuple[str, ...], why: str) -> None:
    wrong = impossible(types)
    assert wrong is not None
    assert why in wrong


def test_only_the_undo_that_was_skipped_is_missing_with_reason() -> None:
    types = (*STUCK, "CompensationSkipped", "OrderCanceled")
    assert impossible(types, frozenset({"refund_payment"})) is None
    assert impossible(types, frozenset({"restore_stock"})) is not None


@pytest.mark.parametrize(
    ("types", "status"),
    [
        (SENT[:1], OrderStatus.ORDER_RECEIVED),
        (SENT[:4], OrderStatus.COUPON_ISSUED),  # the delivery has begun, and its goods are still to be had
        (SENT, OrderStatus.DELIVERY_STARTED),
        (STUCK, OrderStatus.ORDER_CANCELING),
        (RETRIED, OrderStatus.ORDER_CANCELED),
        (FLAGGED, OrderStatus.DELIVERED),
        (WAIVED, OrderStatus.ORDER_PLACED),
        ((*WAIVED, "CouponIssued"), OrderStatus.ORDER_PLACED),
        ((*SENT[:2], "OrderCanceling", "CouponIssued"), OrderStatus.ORDER_CANCELING),
        (AT_REST["declined-late"], OrderStatus.PAYMENT_DECLINED),
    ],
)
def test_a_timeline_comes_to_a_status(types: tuple[str, ...], status: OrderStatus) -> None:
    assert status_after(types) is status
