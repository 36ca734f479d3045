"""A breach for each invariant, planted in the books of a sound shop."""

from collections.abc import Callable
from dataclasses import dataclass

from services.delivery.deliveries import DeliveryState
from services.delivery.stock import MovementKind
from services.delivery.tables import Delivery
from services.marketing.tables import Coupon
from services.order.payments import PaymentState
from services.order.statuses import OrderStatus, PayStatus
from services.order.tables import IdempotencyKey, OrderEvent, Payment
from tests.audit import invariants as of
from tests.audit.acknowledgements import Canceled, Declined, Delivered, OrderAccepted, Paid, Shown
from tests.audit.case import LedgerEntry, Workflow
from tests.audit.findings import Invariant
from tests.audit.shelf import AMOUNT, AT, PRODUCT, QTY, SENT, USER, Shelf

Spoil = Callable[[Shelf], None]


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A breach: what it breaks, whom the check must name, and which other promises are broken by it as well."""

    breaks: str
    names: str
    also: frozenset[str]
    settled: bool
    spoil: Spoil

    def __str__(self) -> str:
        return self.spoil.__name__


PLANTS: list[Plant] = []


def breaks(
    invariant: Invariant | OrderStatus, names: str, *also: Invariant | OrderStatus, settled: bool = True
) -> Callable[[Spoil], Spoil]:
    """Note what a breach breaks; a status stands for the promise of what stands of it.

    With `settled=False` the books are of a shop that has orders on their way, too.
    """

    def note(spoil: Spoil) -> Spoil:
        others = frozenset(map(_name, also))
        PLANTS.append(Plant(breaks=_name(invariant), names=names, also=others, settled=settled, spoil=spoil))
        return spoil

    return note


def _name(invariant: Invariant | OrderStatus) -> str:
    return invariant.name if isinstance(invariant, Invariant) else f"what stands of {invariant}"


def _acknowledged(order_id: str, *, key: str, amount: int = AMOUNT) -> OrderAccepted:
    return OrderAccepted(
        order_id=order_id, user=USER, product_id=PRODUCT, qty=QTY, amount=amount, key=key, status=202, replayed=False
    )


def _coupon(order_id: str, *, revoked: bool) -> Coupon:
    return Coupon(
        order_id=order_id,
        coupon_id="coupon_another",
        user_id=USER,
        coupon_kind="Bronze",
        issued_at=AT,
        revoked_at=AT if revoked else None,
    )


def _payment(order_id: str, state: PaymentState) -> Payment:
    return Payment(order_id=order_id, state=state, amount=AMOUNT, currency="KRW", intent_id="pi", updated_at=AT)


def _charge(order_id: str) -> LedgerEntry:
    return LedgerEntry(order_id=order_id, charged=AMOUNT, refunded=0, currency="KRW", charges=1, refunds=0)


def _happens(shelf: Shelf, order_id: str, type: str) -> None:
    view = shelf.view(order_id)
    view.version += 1
    shelf.events.append(OrderEvent(order_id=order_id, version=view.version, type=type, at=AT))


# What was accepted is there.


@breaks(of.what_a_client_was_promised_is_on_the_books, "order_lost")
def an_acknowledged_order_is_lost(shelf: Shelf) -> None:
    shelf.acknowledgements.append(_acknowledged("order_lost", key="lost"))


@breaks(of.what_a_client_was_promised_is_on_the_books, "sent")
def another_amount_was_acknowledged(shelf: Shelf) -> None:
    shelf.acknowledgements.append(_acknowledged("sent", key="sent", amount=AMOUNT + 1))


@breaks(of.a_key_brings_one_order, "sent")
def a_key_was_answered_with_two_orders(shelf: Shelf) -> None:
    shelf.acknowledgements.append(_acknowledged("sent", key="delivered"))


@breaks(of.a_key_brings_one_order, "sent")
def a_key_stands_for_two_orders(shelf: Shelf) -> None:
    key = IdempotencyKey(user_id=USER, idempotency_key="delivered", fingerprint="", order_id="sent", created_at=AT)
    shelf.keys.append(key)


@breaks(of.an_accepted_order_has_its_rows, "sent")
def an_order_has_two_views(shelf: Shelf) -> None:
    shelf.views.append(shelf.view("sent"))


@breaks(
    of.an_accepted_order_has_its_rows,
    "received",
    of.an_order_has_ended_or_waits_for_something,
    of.nobody_was_shown_an_order_going_back,
    settled=False,
)
def an_order_has_no_view_and_no_timeline(shelf: Shelf) -> None:
    shelf.views.remove(shelf.view("received"))
    shelf.events.remove(shelf.event("received", 1))


@breaks(of.nothing_is_made_up, "order_nobodys")
def a_workflow_of_no_order(shelf: Shelf) -> None:
    run = Workflow(order_id="order_nobodys", status="RUNNING", order_status="OrderPlaced", needs_attention=False)
    shelf.workflows.append(run)


@breaks(of.nothing_is_made_up, "order_nobodys")
def a_coupon_of_no_order(shelf: Shelf) -> None:
    shelf.coupon("canceled-early").order_id = "order_nobodys"


@breaks(of.nothing_is_made_up, "order_nobodys", of.the_money_adds_up)
def a_charge_for_no_order(shelf: Shelf) -> None:
    shelf.ledger.append(_charge("order_nobodys"))


@breaks(of.nothing_is_made_up, "order_nobodys")
def a_key_of_no_order(shelf: Shelf) -> None:
    key = IdempotencyKey(user_id=USER, idempotency_key="k", fingerprint="", order_id="order_nobodys", created_at=AT)
    shelf.keys.append(key)


# Where it stands, and what its workflow does.


@breaks(of.an_order_has_ended_or_waits_for_something, "waiting")
def an_order_waits_for_a_team_that_is_there(shelf: Shelf) -> None:
    shelf.add("waiting", SENT[:2])


@breaks(of.an_order_has_ended_or_waits_for_something, "stuck")
def an_undo_is_stuck_and_nobody_is_called(shelf: Shelf) -> None:
    shelf.view("stuck").needs_attention = False
    shelf.change_run("stuck", needs_attention=False)


@breaks(of.an_order_has_ended_or_waits_for_something, "canceling", of.a_cancels_answer_holds, settled=False)
def a_status_that_there_is_not(shelf: Shelf) -> None:
    shelf.view("canceling").order_status = "Lost"
    shelf.change_run("canceling", order_status="Lost")


@breaks(of.an_order_has_one_workflow, "sent")
def a_workflow_was_terminated(shelf: Shelf) -> None:
    shelf.change_run("sent", status="TERMINATED")


@breaks(of.an_order_has_one_workflow, "delivered")
def a_workflow_runs_on_after_the_end(shelf: Shelf) -> None:
    shelf.change_run("delivered", status="RUNNING")


@breaks(of.an_order_has_one_workflow, "sent")
def an_order_has_two_workflows(shelf: Shelf) -> None:
    shelf.workflows += [run for run in shelf.workflows if run.order_id == "sent"]


@breaks(of.an_order_has_one_workflow, "placed", settled=False)
def a_started_order_has_no_workflow(shelf: Shelf) -> None:
    shelf.workflows = [run for run in shelf.workflows if run.order_id != "placed"]


@breaks(of.the_engine_reads_as_the_view_does, "sent")
def the_engine_lists_another_status(shelf: Shelf) -> None:
    shelf.change_run("sent", order_status="CouponIssued")


@breaks(of.the_engine_reads_as_the_view_does, "stuck")
def operators_do_not_see_what_needs_them(shelf: Shelf) -> None:
    shelf.change_run("stuck", needs_attention=False)


# What stands of it.


@breaks(OrderStatus.ORDER_RECEIVED, "received", settled=False)
def a_coupon_before_the_order_is_paid(shelf: Shelf) -> None:
    shelf.payments.append(_payment("received", PaymentState.PENDING))
    shelf.ledger.append(_charge("received"))
    shelf.coupons.append(_coupon("received", revoked=False))


@breaks(OrderStatus.ORDER_PLACED, "placed", settled=False)
def a_delivery_of_an_order_that_reads_as_paid_only(shelf: Shelf) -> None:
    shelf.coupons.append(_coupon("placed", revoked=False))
    started = shelf.delivery("sent").model_dump() | {"order_id": "placed"}
    shelf.deliveries.append(Delivery.model_validate(started))


@breaks(OrderStatus.DELIVERED, "without-coupon")
def a_waived_coupon_stands(shelf: Shelf) -> None:
    shelf.coupon("without-coupon").issued_at = AT
    shelf.coupon("without-coupon").revoked_at = None


@breaks(of.an_order_has_one_workflow, "flagged")
def nobody_can_clear_a_flag(shelf: Shelf) -> None:
    shelf.change_run("flagged", status="COMPLETED")


@breaks(OrderStatus.COUPON_ISSUED, "with-coupon", settled=False)
def a_coupon_revoked_while_its_order_goes_on(shelf: Shelf) -> None:
    shelf.coupon("with-coupon").revoked_at = AT


@breaks(OrderStatus.DELIVERY_STARTED, "sent")
def a_coupon_revoked_while_its_goods_are_sent(shelf: Shelf) -> None:
    shelf.coupon("sent").revoked_at = AT


@breaks(OrderStatus.DELIVERY_STARTED, "sent", of.what_is_sold_is_what_stands)
def goods_that_are_sent_were_never_sold(shelf: Shelf) -> None:
    [sale] = [movement for movement in shelf.movements if movement.reference == "sent"]
    shelf.movements.remove(sale)
    shelf.stocks[0].on_hand += QTY


@breaks(OrderStatus.DELIVERED, "delivered")
def a_delivered_orders_coupon_is_revoked(shelf: Shelf) -> None:
    shelf.coupon("delivered").revoked_at = AT


@breaks(OrderStatus.PAYMENT_DECLINED, "declined", of.a_step_follows_the_step_before_it)
def a_coupon_for_nothing(shelf: Shelf) -> None:
    shelf.coupons.append(_coupon("declined", revoked=False))


@breaks(OrderStatus.ORDER_CANCELED, "canceled")
def a_canceled_orders_coupon_stands(shelf: Shelf) -> None:
    shelf.coupon("canceled").revoked_at = None


@breaks(OrderStatus.ORDER_CANCELED, "canceled")
def a_canceled_order_is_under_way(shelf: Shelf) -> None:
    shelf.delivery("canceled").state = DeliveryState.STARTED


@breaks(OrderStatus.ORDER_CANCELED, "canceled", of.what_is_sold_is_what_stands)
def a_canceled_orders_pieces_never_came_back(shelf: Shelf) -> None:
    [back] = [m for m in shelf.movements if (m.reference, m.kind) == ("canceled", MovementKind.RESTORE)]
    shelf.movements.remove(back)
    shelf.stocks[0].on_hand -= QTY


@breaks(
    OrderStatus.ORDER_CANCELED,
    "canceled",
    of.the_payment_agrees_with_the_ledger,
    of.the_money_adds_up,
    of.the_view_agrees_with_the_teams,
)
def a_canceled_orders_money_was_kept(shelf: Shelf) -> None:
    shelf.change_entry("canceled", refunded=0, refunds=0)


@breaks(
    OrderStatus.ORDER_CANCELED,
    "skipped",
    settled=False,
)
def an_operator_skipped_the_refund_and_not_the_coupon(shelf: Shelf) -> None:
    shelf.coupon("skipped").revoked_at = None


@breaks(of.a_step_follows_the_step_before_it, "canceled")
def a_delivery_began_without_a_coupon(shelf: Shelf) -> None:
    shelf.coupon("canceled").issued_at = None
    shelf.view("canceled").coupon_id = None


@breaks(of.everything_happens_once, "canceled")
def an_order_earned_two_coupons(shelf: Shelf) -> None:
    shelf.coupons.append(_coupon("canceled", revoked=True))


@breaks(of.everything_happens_once, "sent")
def a_sale_was_noted_twice(shelf: Shelf) -> None:
    shelf.move("sent", MovementKind.SALE, 0)


@breaks(of.everything_happens_once, "delivered")
def an_order_has_two_payments(shelf: Shelf) -> None:
    shelf.payments.append(_payment("delivered", PaymentState.PAID))


@breaks(of.what_was_done_is_what_was_ordered, "sent")
def somebody_else_has_the_coupon(shelf: Shelf) -> None:
    shelf.coupon("sent").user_id = "somebody-else"


@breaks(of.what_was_done_is_what_was_ordered, "delivered")
def more_was_delivered_than_ordered(shelf: Shelf) -> None:
    shelf.delivery("delivered").qty = QTY + 1


# Money.


@breaks(
    of.nobody_is_charged_twice,
    "sent",
    of.a_charge_is_the_orders_amount,
    of.the_payment_agrees_with_the_ledger,
    of.the_money_adds_up,
)
def an_order_was_charged_twice(shelf: Shelf) -> None:
    shelf.change_entry("sent", charged=2 * AMOUNT, charges=2)


@breaks(of.nobody_is_charged_twice, "canceled")
def a_refund_came_in_two_parts(shelf: Shelf) -> None:
    shelf.change_entry("canceled", refunds=2)


@breaks(of.a_charge_is_the_orders_amount, "delivered", of.the_payment_agrees_with_the_ledger, of.the_money_adds_up)
def too_much_was_charged(shelf: Shelf) -> None:
    shelf.change_entry("delivered", charged=AMOUNT + 1)


@breaks(of.a_charge_is_the_orders_amount, "stuck", of.the_payment_agrees_with_the_ledger)
def a_part_was_refunded(shelf: Shelf) -> None:
    shelf.change_entry("stuck", refunded=AMOUNT // 2, refunds=1)


@breaks(of.what_is_declined_was_never_charged, "declined", of.the_payment_agrees_with_the_ledger)
def a_declined_order_was_charged_for_a_while(shelf: Shelf) -> None:
    shelf.ledger.append(_charge("declined"))
    shelf.change_entry("declined", refunded=AMOUNT, refunds=1)


@breaks(of.the_payment_agrees_with_the_ledger, "delivered")
def a_payment_was_never_noted(shelf: Shelf) -> None:
    shelf.payment("delivered").state = PaymentState.PENDING


@breaks(of.the_payment_agrees_with_the_ledger, "canceled")
def a_refund_was_never_noted(shelf: Shelf) -> None:
    shelf.payment("canceled").state = PaymentState.VOIDING


@breaks(of.the_payment_agrees_with_the_ledger, "sent")
def a_charge_is_on_nobodys_books(shelf: Shelf) -> None:
    shelf.payments.remove(shelf.payment("sent"))


@breaks(
    of.the_money_adds_up,
    "delivered",
    OrderStatus.DELIVERED,
    of.the_payment_agrees_with_the_ledger,
    of.a_step_follows_the_step_before_it,
)
def an_order_was_given_away(shelf: Shelf) -> None:
    shelf.ledger = [entry for entry in shelf.ledger if entry.order_id != "delivered"]


# Stock.


@breaks(of.stock_is_the_sum_of_its_movements, PRODUCT)
def a_piece_appeared(shelf: Shelf) -> None:
    shelf.stocks[0].on_hand += 1


@breaks(of.stock_is_the_sum_of_its_movements, PRODUCT)
def a_restock_was_forgotten(shelf: Shelf) -> None:
    shelf.movements = [movement for movement in shelf.movements if movement.kind != MovementKind.RESTOCK]


@breaks(of.stock_is_never_negative, PRODUCT)
def more_was_taken_out_than_there_was(shelf: Shelf) -> None:
    shelf.move("a-loss-of-tea", MovementKind.RESTOCK, -shelf.stocks[0].on_hand - 1)


@breaks(of.what_is_sold_is_what_stands, "sent", of.what_was_done_is_what_was_ordered)
def a_piece_less_was_sold(shelf: Shelf) -> None:
    [sale] = [movement for movement in shelf.movements if movement.reference == "sent"]
    sale.qty += 1
    shelf.stocks[0].on_hand += 1


@breaks(of.what_is_sold_is_what_stands, "order_nobodys", of.nothing_is_made_up, of.a_step_follows_the_step_before_it)
def a_sale_to_nobody(shelf: Shelf) -> None:
    shelf.move("order_nobodys", MovementKind.SALE, -1)


# What people are shown.


@breaks(of.the_goods_are_where_the_order_says, "delivered")
def the_arrival_was_never_noted(shelf: Shelf) -> None:
    shelf.delivery("delivered").state = DeliveryState.STARTED


@breaks(of.the_goods_are_where_the_order_says, "sent")
def the_goods_arrived_and_the_order_waits(shelf: Shelf) -> None:
    shelf.delivery("sent").state = DeliveryState.DELIVERED


@breaks(of.the_view_agrees_with_the_teams, "delivered")
def a_paid_order_reads_as_not_paid(shelf: Shelf) -> None:
    shelf.view("delivered").pay_status = PayStatus.NOT_PAID


@breaks(of.the_view_agrees_with_the_teams, "sent")
def an_order_shows_a_coupon_that_there_is_not(shelf: Shelf) -> None:
    shelf.view("sent").coupon_id = "coupon_another"


@breaks(of.the_view_agrees_with_the_teams, "canceled-early")
def what_was_never_sent_reads_as_called_back(shelf: Shelf) -> None:
    shelf.view("canceled-early").delivery_status = "Canceled"


@breaks(of.versions_have_no_gap, "sent")
def an_event_is_missing(shelf: Shelf) -> None:
    shelf.event("sent", len(SENT)).version += 1
    shelf.view("sent").version += 1


@breaks(of.versions_have_no_gap, "delivered")
def the_view_stopped_before_its_timeline(shelf: Shelf) -> None:
    shelf.view("delivered").version -= 1


@breaks(of.a_timeline_is_one_that_the_saga_writes, "delivered")
def a_delivery_is_called_off_after_it_arrived(shelf: Shelf) -> None:
    _happens(shelf, "delivered", "DeliveryCanceled")


@breaks(of.the_status_is_what_the_timeline_comes_to, "sent", settled=False)
def the_view_shows_an_earlier_status(shelf: Shelf) -> None:
    shelf.view("sent").order_status = OrderStatus.COUPON_ISSUED
    shelf.change_run("sent", order_status="CouponIssued")


# What people were told.


@breaks(of.nobody_was_shown_an_order_going_back, "delivered")
def a_customer_saw_their_order_go_back(shelf: Shelf) -> None:
    shelf.acknowledgements.append(Shown(order_id="delivered", version=2, status=OrderStatus.ORDER_PLACED))


@breaks(of.nobody_was_shown_an_order_going_back, "sent")
def a_customer_saw_what_never_was(shelf: Shelf) -> None:
    shelf.acknowledgements.append(Shown(order_id="sent", version=len(SENT), status=OrderStatus.DELIVERED))


@breaks(of.nobody_was_shown_an_order_going_back, "sent")
def a_customer_saw_a_version_that_was_lost(shelf: Shelf) -> None:
    shelf.acknowledgements.append(Shown(order_id="sent", version=len(SENT) + 1, status=OrderStatus.DELIVERED))


@breaks(of.a_payments_answer_holds, "declined")
def a_declined_payment_was_answered_as_paid(shelf: Shelf) -> None:
    shelf.acknowledgements.append(Paid(order_id="declined"))


@breaks(of.a_payments_answer_holds, "delivered")
def a_payment_was_answered_as_declined(shelf: Shelf) -> None:
    shelf.acknowledgements.append(Declined(order_id="delivered"))


@breaks(of.a_cancels_answer_holds, "sent")
def a_cancel_was_answered_and_forgotten(shelf: Shelf) -> None:
    shelf.acknowledgements.append(Canceled(order_id="sent"))


@breaks(of.a_carriers_answer_holds, "sent")
def an_arrival_was_answered_and_forgotten(shelf: Shelf) -> None:
    shelf.acknowledgements.append(Delivered(order_id="sent"))
