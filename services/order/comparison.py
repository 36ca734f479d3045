"""When two stores disagree about an order: small named checks, as pure functions of what the stores say.

A check is a suspicion only. Stores are read one after the other while orders go on, so whoever calls this looks at each
suspicion again, some time later, and believes what is found again of an order that has not moved.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from services.order.statuses import OrderStatus
from services.shared.summaries import (
    ChargeSummary,
    CouponSummary,
    DeliverySummary,
    OrderSummary,
    RunSummary,
    StockSummary,
)


class Code(StrEnum):
    """What is wrong. What each means and what to do about it: `docs/operations.md`."""

    WORKFLOW_MISSING = "workflow-missing"
    WORKFLOW_STOPPED = "workflow-stopped"
    WORKFLOW_WITHOUT_ORDER = "workflow-without-order"
    VIEW_BEHIND = "view-behind"
    VIEW_AHEAD = "view-ahead"
    EFFECTS_WITHOUT_ORDER = "effects-without-order"
    PAYMENT_MISSING = "payment-missing"
    PAYMENT_DISAGREES = "payment-disagrees"
    CHARGED_THOUGH_CANCELED = "charged-though-canceled"
    CHARGED_ANOTHER_AMOUNT = "charged-another-amount"
    CHARGED_TWICE = "charged-twice"
    CHARGE_NOT_NOTED = "charge-not-noted"
    CHARGE_WITHOUT_ORDER = "charge-without-order"
    REFUNDED_THOUGH_STANDING = "refunded-though-standing"
    COUPON_THOUGH_CANCELED = "coupon-though-canceled"
    COUPON_MISSING = "coupon-missing"
    DELIVERY_THOUGH_CANCELED = "delivery-though-canceled"
    DELIVERY_MISSING = "delivery-missing"
    DELIVERY_DIFFERS = "delivery-differs"
    ARRIVAL_NOT_NOTED = "arrival-not-noted"
    STOCK_NOT_SOLD = "stock-not-sold"
    STOCK_NOT_RESTORED = "stock-not-restored"
    STOCK_SOLD_WRONGLY = "stock-sold-wrongly"
    STOCK_NOT_THE_SUM = "stock-not-the-sum"


class Source(StrEnum):
    """Whose books are compared with the order team's."""

    ENGINE = "engine"
    PROVIDER = "provider"
    DELIVERY = "delivery"
    MARKETING = "marketing"


class Remedy(StrEnum):
    """What is done about a difference without asking anybody."""

    RECORD = "record"
    """Bring the view to what the workflow knows."""
    GO_ON = "go-on"
    """Start the workflow anew, from where the timeline stands."""
    UNDO = "undo"
    """Start the workflow anew, to undo what was done."""
    FLAG = "flag"
    """Call a person: the order needs attention."""
    NONE = "none"
    """There is no order to do anything with: a person reads the report."""


_REMEDIES = {
    Code.VIEW_BEHIND: Remedy.RECORD,
    Code.WORKFLOW_MISSING: Remedy.GO_ON,
    Code.WORKFLOW_STOPPED: Remedy.UNDO,
    Code.WORKFLOW_WITHOUT_ORDER: Remedy.NONE,
    Code.VIEW_AHEAD: Remedy.NONE,
    Code.EFFECTS_WITHOUT_ORDER: Remedy.NONE,
    Code.CHARGE_WITHOUT_ORDER: Remedy.NONE,
    Code.STOCK_NOT_THE_SUM: Remedy.NONE,
}


def remedy_of(code: Code) -> Remedy:
    """What is done about it."""
    return _REMEDIES.get(code, Remedy.FLAG)


class Difference(NamedTuple):
    """Something that is wrong with an order, or a product. `version` is the order's when it was seen, 0 of no order."""

    code: Code
    subject: str
    """The order's id, or the product's."""
    detail: str
    version: int = 0


class Outcome(StrEnum):
    """What became of a difference."""

    REPAIRED = "repaired"
    FLAGGED = "flagged"
    """A person was called: the order needs attention."""
    KNOWN = "known"
    """A person had been called about just this before."""
    REPORTED = "reported"
    """It stands in the report alone."""


class Handled(NamedTuple):
    """A difference, and what became of it. Nothing became of one that was none after all."""

    difference: Difference
    outcome: Outcome | None
    done: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What all stores say of one order."""

    order_id: str
    order: OrderSummary | None = None
    run: RunSummary | None = None
    delivery: DeliverySummary | None = None
    coupon: CouponSummary | None = None

    @property
    def sold(self) -> int:
        return self.delivery.sold if self.delivery else 0

    @property
    def delivery_state(self) -> str | None:
        return self.delivery.state if self.delivery else None

    @property
    def has_coupon(self) -> bool:
        return self.coupon is not None and self.coupon.stands


_RUNNING, _COMPLETED = "RUNNING", "COMPLETED"
_STARTED, _ARRIVED, _CALLED_OFF = "Started", "Delivered", "Canceled"
_FINAL = frozenset(status for status in OrderStatus if status.final)
_GIVEN_UP = frozenset({OrderStatus.ORDER_CANCELED, OrderStatus.PAYMENT_DECLINED})
_SENT = frozenset({OrderStatus.DELIVERY_STARTED, OrderStatus.DELIVERED})
_WITH_COUPON = frozenset({OrderStatus.COUPON_ISSUED, *_SENT})
_PAID_FOR = frozenset({OrderStatus.ORDER_PLACED, *_WITH_COUPON})
# A payment in one of these states holds, or may still hold, the customer's money.
_NOTED_AS_PAID, _NOTED_AS_CHARGELESS = "Paid", frozenset({"Voided", "Declined"})
_UNDER_WAY = frozenset({"Pending", "Voiding"})
_NOTED_AS_REFUNDED = "Refunded"
# The saga's undos and its optional step, as the timeline names what was done without.
COUPON_WAIVED, REVOKE, CALL_OFF, RESTORE, REFUND = (
    *("issue_coupon", "revoke_coupon"),
    *("cancel_delivery", "restore_stock", "refund_payment"),
)

Found = Iterator[tuple[Code, str]]


def _of_run(order: OrderSummary, case: Case) -> Found:
    """The order's workflow against its view. What it finds puts all else in doubt."""
    run, open_ = case.run, order.order_status not in _FINAL
    awaited = open_ or order.needs_attention  # without a workflow, nobody could clear it
    if run is None:
        if awaited and order.started:  # what has ended, the engine forgets in time; what is not started, the inbox has
            yield Code.WORKFLOW_MISSING, f"{order.order_status}, and the engine knows no workflow"
    elif run.status not in (_RUNNING, _COMPLETED):
        if awaited:
            yield Code.WORKFLOW_STOPPED, f"{order.order_status}, and its workflow is {run.status}"
    elif (run.order_status or order.order_status) != order.order_status or (
        run.status == _COMPLETED and open_
    ):  # not the other way round: a workflow that has come to its end tells of it before it ends
        yield Code.VIEW_BEHIND, f"reads {order.order_status}, its workflow {run.order_status}, {run.status}"
    elif run.needs_attention is not None and run.needs_attention != order.needs_attention:
        yield Code.VIEW_BEHIND, f"reads needsAttention {order.needs_attention}, its workflow {run.needs_attention}"


def _of_payment(order: OrderSummary, _: Case) -> Found:
    if order.order_status in _PAID_FOR and order.payment_state != _NOTED_AS_PAID:
        yield Code.PAYMENT_MISSING, f"{order.order_status}, and its payment is {order.payment_state or 'not there'}"


def _of_coupon(order: OrderSummary, case: Case) -> Found:
    if order.order_status in _GIVEN_UP and case.has_coupon and REVOKE not in order.excused:
        yield Code.COUPON_THOUGH_CANCELED, f"{order.order_status}, and its coupon stands"
    if order.order_status in _WITH_COUPON and not case.has_coupon and COUPON_WAIVED not in order.excused:
        yield Code.COUPON_MISSING, f"{order.order_status}, and it has no coupon"


def _of_delivery(order: OrderSummary, case: Case) -> Found:
    state, status, active = case.delivery_state, order.order_status, (_STARTED, _ARRIVED)
    if status in _GIVEN_UP and state in active and CALL_OFF not in order.excused:
        yield Code.DELIVERY_THOUGH_CANCELED, f"{status}, and its delivery is {state}"
    if status in _SENT:
        if state not in active:
            yield Code.DELIVERY_MISSING, f"{status}, and its delivery is {state or 'not there'}"
        elif case.delivery and (case.delivery.product_id, case.delivery.qty) != (order.product_id, order.qty):
            goods = f"{case.delivery.qty} × {case.delivery.product_id}"
            yield Code.DELIVERY_DIFFERS, f"delivered are {goods}, ordered {order.qty} × {order.product_id}"
    if status == OrderStatus.DELIVERED and state == _STARTED and not (case.run and case.run.status == _RUNNING):
        yield Code.ARRIVAL_NOT_NOTED, "Delivered, its workflow has ended, and its delivery is Started"


def _of_stock(order: OrderSummary, case: Case) -> Found:
    status, sold = order.order_status, case.sold
    if status in _GIVEN_UP and sold and RESTORE not in order.excused:
        yield Code.STOCK_NOT_RESTORED, f"{status}, and {sold} pieces are sold"
    if status in _SENT and not sold:
        yield Code.STOCK_NOT_SOLD, f"{status}, and nothing is sold"
    elif status in _SENT and sold != order.qty:
        yield Code.STOCK_SOLD_WRONGLY, f"sold are {sold} pieces, ordered {order.qty}"


_CHECKS: tuple[tuple[Source | None, Callable[[OrderSummary, Case], Found]], ...] = (
    (None, _of_payment),
    (Source.MARKETING, _of_coupon),
    (Source.DELIVERY, _of_delivery),
    (Source.DELIVERY, _of_stock),
)


def order_differences(case: Case, *, before: datetime, away: Collection[str] = ()) -> list[Difference]:
    """What is wrong with an order, the stores that are `away` aside. What changed since `before` is left in peace."""
    order = case.order
    if order is None:
        return [Difference(code, case.order_id, detail) for code, detail in _without_order(case)]
    if order.updated_at > before:
        return []
    # A view that is not up to date would be compared with what came after it, and a workflow that is to start anew will
    # do or undo whatever is missing: so nothing else is said of those.
    found = [] if Source.ENGINE in away else [*_of_run(order, case)]
    if not found:
        found = [one for source, check in _CHECKS if source not in away for one in check(order, case)]
    return [Difference(code, order.order_id, detail, order.version) for code, detail in found]


def _without_order(case: Case) -> Found:
    if case.run and case.run.status == _RUNNING:
        yield Code.WORKFLOW_WITHOUT_ORDER, "its workflow is open"
    effects = {
        f"a delivery ({case.delivery_state})": case.delivery_state in (_STARTED, _ARRIVED),
        f"{case.sold} pieces sold": case.sold != 0,
        "a coupon": case.has_coupon,
    }
    if any(effects.values()):
        yield Code.EFFECTS_WITHOUT_ORDER, ", ".join(effect for effect, there in effects.items() if there)


def charge_differences(charge: ChargeSummary, *, before: datetime) -> list[Difference]:
    """What is wrong with a payment intent, at most one thing: the one that says most."""
    order = charge.order
    if order is not None and order.updated_at > before:
        return []
    found = next(_of_charge(charge), None)
    return [Difference(found[0], charge.order_id, found[1], order.version if order else 0)] if found else []


def _of_charge(charge: ChargeSummary) -> Found:
    order, kept = charge.order, charge.received - charge.refunded
    money = f"{charge.intent_id}: {charge.received} {charge.currency} charged, {charge.refunded} refunded"
    if order is None:
        if kept and charge.order_id:  # without one it is nothing of the shop's
            yield Code.CHARGE_WITHOUT_ORDER, money
        return
    status, state = order.order_status, order.payment_state
    if charge.intent_id != order.intent_id:
        if kept:
            code = Code.CHARGED_TWICE if order.intent_id else Code.CHARGE_NOT_NOTED
            yield code, f"{money}, and the payment on the books is {order.intent_id or 'none'}"
        return
    if charge.received and (charge.received, charge.currency) != (order.amount, order.currency):
        yield Code.CHARGED_ANOTHER_AMOUNT, f"{money}, ordered for {order.amount} {order.currency}"
    if status in _GIVEN_UP and kept and REFUND not in order.excused:
        yield Code.CHARGED_THOUGH_CANCELED, f"{money}, and the order is {status}"
    if status in _PAID_FOR and state == _NOTED_AS_PAID and kept < order.amount:
        yield Code.REFUNDED_THOUGH_STANDING, f"{money}, the intent is {charge.status}, and the order is {status}"
    unpaid = status in _PAID_FOR and state != _NOTED_AS_PAID  # which is `PAYMENT_MISSING`
    if not _agrees(state, charge, kept) and not unpaid and REFUND not in order.excused:
        yield Code.PAYMENT_DISAGREES, f"{money}, and the payment on the books is {state}"


def _agrees(state: str | None, charge: ChargeSummary, kept: int) -> bool:
    if state in _UNDER_WAY:
        return True
    if state == _NOTED_AS_PAID:
        return kept > 0
    if state == _NOTED_AS_REFUNDED:
        return charge.received > 0 and not kept
    return state in _NOTED_AS_CHARGELESS and not charge.received


def stock_differences(stock: StockSummary) -> list[Difference]:
    """What is wrong with a product's stock."""
    if stock.on_hand == stock.moved:
        return []
    detail = f"{stock.on_hand} on hand, {stock.moved} by its movements"
    return [Difference(Code.STOCK_NOT_THE_SUM, stock.product_id, detail)]


def cases(
    orders: Iterable[OrderSummary],
    runs: Iterable[RunSummary],
    deliveries: Iterable[DeliverySummary],
    coupons: Iterable[CouponSummary],
) -> list[Case]:
    """What the stores say, order by order."""
    order_of = {one.order_id: one for one in orders}
    run_of = {one.order_id: one for one in runs}
    delivery_of = {one.order_id: one for one in deliveries}
    coupon_of = {one.order_id: one for one in coupons}
    return [
        Case(
            order_id=order_id,
            order=order_of.get(order_id),
            run=run_of.get(order_id),
            delivery=delivery_of.get(order_id),
            coupon=coupon_of.get(order_id),
        )
        for order_id in sorted(order_of.keys() | run_of.keys() | delivery_of.keys() | coupon_of.keys())
    ]
