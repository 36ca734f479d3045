"""The saga's table: each step beside its undo, who does it, how long it may take and how it is retried.

The one place for retries and timeouts. Retries are bounded by a budget (`schedule_to_close_timeout`), not by a number
of attempts, and nothing bounds the time until a worker picks a task up: a team may be away.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from temporalio.common import RetryPolicy

from activities.contract import (
    DELIVERY_QUEUE,
    MARKETING_QUEUE,
    ORDER_QUEUE,
    AdjustStock,
    Coupon,
    IssueCoupon,
    PayOrder,
    StartDelivery,
)
from services.order.statuses import CancelReason, DeliveryStatus, EventType, OrderStatus, PayStatus
from services.shared.money import format_amount
from workflows.messages import PlaceOrder

Changes = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step and its undo. Both take the same command, and both are activities of one team."""

    do: str
    undo: str
    queue: str
    command: Callable[[PlaceOrder], Any]
    summary: Callable[[PlaceOrder], str]
    done: EventType
    undone: EventType
    achieved: Callable[[Any], Changes]
    """What the step's result changes about the order's state."""
    reverted: Changes
    """What its undo changes, where there was something to undo."""
    result: type | None = None
    attempt: timedelta
    """The longest that one attempt may take."""
    budget: Callable[[PlaceOrder], timedelta]
    """How long it is tried in all, waiting for its team included."""
    retry: RetryPolicy
    heartbeat: timedelta | None = None
    """An attempt of the step or of its undo that gives no sign of life for so long is given up: its worker is gone."""
    refusals: Mapping[str, CancelReason] = field(default_factory=dict[str, CancelReason])
    """The failures that are a business answer, and the reason for cancelling that each stands for."""
    unsettled: CancelReason = CancelReason.STEP_FAILED
    """The reason for cancelling when it failed in any other way; a person is told then."""


def _retry(initial: float, longest: float) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=timedelta(seconds=initial),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=longest),
    )


PAY_ORDER = Step(
    do="pay_order",
    undo="refund_payment",
    queue=ORDER_QUEUE,
    command=lambda order: PayOrder(
        order_id=order.order_id,
        amount=order.amount,
        currency=order.currency,
        payment_method=order.payment_method,
    ),
    summary=lambda order: f"charge {format_amount(order.amount, order.currency)}",
    done=EventType.ORDER_PLACED,
    undone=EventType.PAYMENT_REFUNDED,
    achieved=lambda _: {"order_status": OrderStatus.ORDER_PLACED, "pay_status": PayStatus.PAID},
    reverted={"pay_status": PayStatus.REFUNDED},
    attempt=timedelta(seconds=30),  # three calls to the provider, each within its own 8 s
    heartbeat=timedelta(seconds=10),  # nobody else may order while payments hang, so not half a minute
    budget=lambda order: order.pay_within,
    retry=_retry(0.5, 30),
    unsettled=CancelReason.PAYMENT_UNKNOWN,
)
ISSUE_COUPON = Step(
    do="issue_coupon",
    undo="revoke_coupon",
    queue=MARKETING_QUEUE,
    command=lambda order: IssueCoupon(
        order_id=order.order_id, user_id=order.user_id, amount=order.amount, currency=order.currency
    ),
    summary=lambda order: f"coupon for {order.user_id}",
    done=EventType.COUPON_ISSUED,
    undone=EventType.COUPON_REVOKED,
    achieved=lambda coupon: _coupon_issued(coupon),
    reverted={},
    result=Coupon,
    attempt=timedelta(seconds=15),
    budget=lambda _: timedelta(days=30),  # marketing may be away for long; the order waits
    retry=_retry(0.5, 60),
)
START_DELIVERY = Step(
    do="start_delivery",
    undo="cancel_delivery",
    queue=DELIVERY_QUEUE,
    command=lambda order: StartDelivery(order_id=order.order_id, product_id=order.product_id, qty=order.qty),
    summary=lambda order: f"deliver {order.product_name} × {order.qty}",
    done=EventType.DELIVERY_STARTED,
    undone=EventType.DELIVERY_CANCELED,
    achieved=lambda _: {"delivery_status": DeliveryStatus.STARTED},
    reverted={"delivery_status": DeliveryStatus.CANCELED},
    attempt=timedelta(seconds=15),
    budget=lambda _: timedelta(days=30),
    retry=_retry(0.5, 60),
    refusals={"out-of-stock": CancelReason.OUT_OF_STOCK, "unknown-product": CancelReason.UNKNOWN_PRODUCT},
)
ADJUST_STOCK = Step(
    do="adjust_stock",
    undo="restore_stock",
    queue=DELIVERY_QUEUE,
    command=lambda order: AdjustStock(order_id=order.order_id, product_id=order.product_id, qty=order.qty),
    summary=lambda order: f"{order.product_name} −{order.qty}",
    done=EventType.STOCK_ADJUSTED,
    undone=EventType.STOCK_RESTORED,
    achieved=lambda _: {"order_status": OrderStatus.DELIVERY_STARTED},
    reverted={},
    attempt=timedelta(seconds=15),
    budget=lambda _: timedelta(days=30),
    retry=_retry(0.5, 60),
    refusals={"out-of-stock": CancelReason.OUT_OF_STOCK, "unknown-product": CancelReason.UNKNOWN_PRODUCT},
)

SAGA = (PAY_ORDER, ISSUE_COUPON, START_DELIVERY, ADJUST_STOCK)
COMPENSATION_ORDER = (ISSUE_COUPON, START_DELIVERY, ADJUST_STOCK, PAY_ORDER)

# Failures of `pay_order` that are the provider's answer: nothing was charged, and there is nothing to undo.
DECLINES = frozenset({"payment-declined", "insufficient-funds"})

UNDO_ATTEMPT = timedelta(seconds=30)
UNDO_BUDGET = timedelta(days=7)
UNDO_RETRY = _retry(0.5, 120)
# An undo that has not answered by then goes on by itself while the next ones run: one team's absence must not keep
# the customer from their money.
UNDO_PATIENCE = timedelta(seconds=3)

# An order that was paid does not rest until its delivery has started: what it passes on the way is published together,
# unless it takes longer than this. Longer than a busy shop takes for it: else each order would cost more just then.
PUBLISH_WITHIN = timedelta(seconds=5)

# A status write is first tried beside the next step, in the worker itself. Where the database is away for longer, the
# server repeats it, so that waiting costs no history.
STATUS_LOCAL_BUDGET = timedelta(seconds=3)
STATUS_LOCAL_RETRY = replace(_retry(0.1, 1), maximum_attempts=5)  # the budget bounds one attempt only, not the retries
STATUS_ATTEMPT = timedelta(seconds=15)
STATUS_RETRY = _retry(1, 30)
STATUS_PAUSE = timedelta(minutes=1)  # where even that failed for good

COMPLETION_ATTEMPT = timedelta(seconds=15)
COMPLETION_RETRY = _retry(1, 120)


def _coupon_issued(coupon: Coupon) -> Changes:
    return {
        "order_status": OrderStatus.COUPON_ISSUED,
        "coupon_id": coupon.coupon_id,
        "coupon_kind": coupon.coupon_kind,
        "coupon_use_yn": "N",
    }
