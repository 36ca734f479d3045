"""The shop's promises as small named checks over its books. Each finds what is wrong with one thing at a time."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from services.delivery.deliveries import DeliveryState
from services.delivery.stock import MovementKind
from services.order.payments import PaymentState
from services.order.statuses import DeliveryStatus, EventType, OrderStatus, PayStatus
from tests.audit.acknowledgements import Canceled, Declined, Delivered, OrderAccepted, Paid
from tests.audit.books import Books, Product
from tests.audit.case import Case
from tests.audit.findings import Breach, Finding, Invariant, find, promise
from tests.audit.meaning import MEANING, UNDO, Meaning
from tests.audit.timeline import impossible, status_after
from workflows.steps import ADJUST_STOCK, ISSUE_COUPON, PAY_ORDER, SAGA, START_DELIVERY

_COMPLETED, _RUNNING = "COMPLETED", "RUNNING"


def _all(books: Books) -> Iterable[Case]:
    return books.cases.values()


def _accepted(books: Books) -> Iterable[Case]:
    return books.accepted


def _with_status(books: Books) -> Iterable[tuple[Case, Meaning]]:
    """Accepted orders that stand somewhere. That they do is a promise of its own."""
    return ((case, MEANING[case.status]) for case in books.accepted if case.status)


def _told(books: Books) -> Iterable[Case]:
    return (case for case in books.cases.values() if case.told)


# What was accepted is there.


@promise(lambda books: (case for case in _all(books) if case.accepted))
def what_a_client_was_promised_is_on_the_books(case: Case) -> Iterator[Breach]:
    """An order that was acknowledged exists, with the acknowledged customer, product, pieces and amount."""
    if not case.orders:
        statuses = sorted({note.status for note in case.accepted})
        yield _of(case, f"acknowledged with {statuses}, and not on the books")
        return
    order = case.order
    for note in dict.fromkeys((n.user, n.product_id, n.qty, n.amount) for n in case.accepted):
        if note != (order.user_id, order.product_id, order.qty, order.amount):
            kept = (order.user_id, order.product_id, order.qty, order.amount)
            yield _of(case, f"acknowledged as {note}, kept as {kept}")


def _keys(books: Books) -> Iterable[tuple[str, str, set[str]]]:
    orders: dict[tuple[str, str], set[str]] = {}
    for key in books.keys:
        orders.setdefault((key.user_id, key.idempotency_key), set()).add(key.order_id)
    for note in books.acknowledgements:
        if isinstance(note, OrderAccepted):
            orders.setdefault((note.user, note.key), set()).add(note.order_id)
    return [(*key, order_ids) for key, order_ids in orders.items()]


@promise(_keys)
def a_key_brings_one_order(key: tuple[str, str, set[str]]) -> Iterator[Breach]:
    """However often a caller sent a request with one idempotency key: it is one order."""
    user, name, order_ids = key
    if len(order_ids) > 1:
        first, *others = sorted(order_ids)
        yield Breach(subject=first, wrong=f"the key {name!r} of {user} brought {', '.join(others)}, too")


@promise(_accepted)
def an_accepted_order_has_its_rows(case: Case) -> Iterator[Breach]:
    """An accepted order has one row, one view and a timeline."""
    rows = {"orders": len(case.orders), "views": len(case.views)}
    wrong = [f"{count} {name}" for name, count in rows.items() if count != 1]
    if not case.events:
        wrong.append("no timeline")
    if wrong:
        yield _of(case, ", ".join(wrong))


@promise(_all)
def nothing_is_made_up(case: Case) -> Iterator[Breach]:
    """No view, event, key, payment, charge, coupon, delivery, sale or workflow is of an order that nobody placed."""
    if case.orders:
        return
    found = {
        "view": case.views,
        "event": case.events,
        "idempotency key": case.keys,
        "payment": case.payments,
        "charged order in the ledger": case.ledger,
        "coupon": case.coupons,
        "delivery": case.deliveries,
        "stock movement": case.movements,
        "workflow": case.workflows,
    }
    made_up = [f"{len(rows)} × {name}" for name, rows in found.items() if rows]
    if made_up:
        yield _of(case, f"{', '.join(made_up)} and no such order")


# Where it stands, and what its workflow does.


@promise(_accepted)
def an_order_has_ended_or_waits_for_something(case: Case) -> Iterator[Breach]:
    """Every order has ended or is in a waiting state; in a shop at rest, in one that waits for a person."""
    if case.status is None:
        yield _of(case, f"its status is {[view.order_status for view in case.views]}, which is none of the shop's")
        return
    meaning = MEANING[case.status]
    stuck = case.status is OrderStatus.ORDER_CANCELING and case.view.needs_attention
    if case.settled and meaning.waits_for and not meaning.rests and not stuck:
        yield _of(case, f"still {case.status}, waiting for {meaning.waits_for}, while nothing is under way")


@promise(_with_status)
def an_order_has_one_workflow(order: tuple[Case, Meaning]) -> Iterator[Breach]:
    """Every order has one workflow: running while the order waits, or a person is waited for; else completed."""
    case, meaning = order
    runs = [run.status for run in case.workflows]
    waits = meaning.waits_for or case.view.needs_attention
    allowed = [[_RUNNING if waits else _COMPLETED]]
    if case.forgotten and not waits:
        allowed.append([])
    if not case.settled and case.status is OrderStatus.DELIVERED:
        allowed.append([_RUNNING])  # until the delivery team has noted the arrival, and marketing a waiver
    if not case.settled and case.order.started_at is None:
        allowed.append([])  # the dispatcher will see to it
    if runs not in allowed:
        yield _of(case, f"{case.status}, and its workflows are {runs or 'none'} instead of {allowed[0]}")


@promise(_with_status)
def the_engine_reads_as_the_view_does(order: tuple[Case, Meaning]) -> Iterator[Breach]:
    """Operators find each order under the status, and the need for attention, that its customer is shown."""
    case, _ = order
    shown = (case.view.order_status, case.view.needs_attention)
    for run in case.workflows:
        if (run.order_status, run.needs_attention) != shown:
            listed = (run.order_status, run.needs_attention)
            yield _of(case, f"the engine has (OrderStatus, NeedsAttention) = {listed}, the view {shown}")


# What stands of it.


def _what_stands(status: OrderStatus) -> Invariant:
    meaning = MEANING[status]

    def breaches(case: Case) -> Iterator[Breach]:
        without = {ISSUE_COUPON.do} if case.waived else set[str]()
        may = frozenset(UNDO) if case.waived and status is OrderStatus.ORDER_PLACED else meaning.may
        for step, effect in case.stands.items():
            if step not in may or (step in without and case.settled):
                yield _of(case, f"{status}, and {step} stands: {effect}", UNDO[step])
        for step in sorted(meaning.must - case.stands.keys() - without):
            yield _of(case, f"{status}, and nothing stands of {step}")

    must, may = _in_turn(meaning.must), _in_turn(meaning.may - meaning.must)
    return Invariant(
        name=f"what stands of {status}",
        promise=f"Of each such order stands {must or 'nothing'}" + (f", and may stand {may}." if may else "."),
        look=lambda books: (breaches(case) for case in books.accepted if case.status is status),
    )


def _in_turn(steps: frozenset[str]) -> str:
    return ", ".join(step.do for step in SAGA if step.do in steps)


@promise(_all)
def a_step_follows_the_step_before_it(case: Case) -> Iterator[Breach]:
    """No coupon before the charge, no delivery without an issued coupon, no sale without a started delivery."""
    for before, step in pairwise(SAGA):
        instead = case.waived and before is ISSUE_COUPON
        if step.do in case.happened and before.do not in case.happened and not instead:
            yield _of(case, f"{step.do} took effect and {before.do} never did")


@promise(_all)
def everything_happens_once(case: Case) -> Iterator[Breach]:
    """An order has at most one payment, coupon, delivery, sale and restore."""
    kinds = Counter(movement.kind for movement in case.movements)
    counts = {
        "payments": len(case.payments),
        "coupons": len(case.coupons),
        "deliveries": len(case.deliveries),
        **{f"movements of kind {kind}": count for kind, count in kinds.items()},
    }
    for name, count in counts.items():
        if count > 1:
            yield _of(case, f"{count} {name}")


@promise(_accepted)
def what_was_done_is_what_was_ordered(case: Case) -> Iterator[Breach]:
    """Payment, coupon, delivery and sale are of the order's amount, customer, product and pieces."""
    order = case.order
    goods = (order.product_id, order.qty)
    # A sale of nothing is the tombstone of one that never happened.
    sales = {(m.product_id, -m.qty) for m in case.movements if m.kind == MovementKind.SALE and m.qty}
    backs = {(m.product_id, m.qty) for m in case.movements if m.kind == MovementKind.RESTORE}
    done = {
        "view": ({view.user_id for view in case.views}, order.user_id),
        "payment": ({(p.amount, p.currency) for p in case.payments}, (order.amount, order.currency)),
        "coupon": ({coupon.user_id for coupon in case.coupons}, order.user_id),
        "delivery": ({(d.product_id, d.qty) for d in case.deliveries}, goods),
        "sale": (sales, goods),
        "restore": (backs, goods),
    }
    for name, (found, ordered) in done.items():
        for other in found - {ordered}:
            yield _of(case, f"its {name} is of {other}, the order of {ordered}")


# Money.


@promise(lambda books: (case for case in _all(books) if case.ledger))
def nobody_is_charged_twice(case: Case) -> Iterator[Breach]:
    """The provider made at most one charge and one refund for an order."""
    for what in ("charges", "refunds"):
        count = sum(getattr(entry, what) for entry in case.ledger)
        if count > 1:
            yield _of(case, f"{count} {what}: {case.charged} charged, {case.refunded} refunded")


@promise(lambda books: (case for case in _accepted(books) if case.ledger))
def a_charge_is_the_orders_amount(case: Case) -> Iterator[Breach]:
    """What was charged is the order's amount, and what was refunded is all of it or nothing."""
    order = case.order
    for entry in case.ledger:
        if (entry.charged, entry.currency) != (order.amount, order.currency):
            yield _of(case, f"charged {entry.charged} {entry.currency} for {order.amount} {order.currency}")
        if entry.refunded not in (0, entry.charged):
            yield _of(case, f"refunded {entry.refunded} of {entry.charged} {entry.currency}")


@promise(lambda books: (case for case in _accepted(books) if case.status is OrderStatus.PAYMENT_DECLINED))
def what_is_declined_was_never_charged(case: Case) -> Iterator[Breach]:
    """The provider never charged an order whose customer was told that the payment was declined, not for a moment."""
    if case.charged:
        yield _of(case, f"declined, and {case.charged} was charged ({case.refunded} refunded)")


# What was charged and refunded while a payment is in a state, as parts of its amount: (charged, refunded).
_NOTHING, _CHARGED, _BACK = (0, 0), (1, 0), (1, 1)
_BOOKED: Mapping[str, Sequence[tuple[int, int]]] = {
    PaymentState.PENDING: (_NOTHING, _CHARGED),  # charged, and not noted yet
    PaymentState.PAID: (_CHARGED,),
    PaymentState.DECLINED: (_NOTHING,),
    PaymentState.VOIDING: (_NOTHING, _CHARGED, _BACK),
    PaymentState.VOIDED: (_NOTHING,),
    PaymentState.REFUNDED: (_BACK,),
}
_AT_END = {
    OrderStatus.DELIVERY_STARTED: (PaymentState.PAID,),
    OrderStatus.DELIVERED: (PaymentState.PAID,),
    OrderStatus.PAYMENT_DECLINED: (PaymentState.DECLINED,),
    # Declined: a cancel came before the workflow was told of it, and there was nothing to void.
    OrderStatus.ORDER_CANCELED: (PaymentState.VOIDED, PaymentState.REFUNDED, PaymentState.DECLINED),
}


@promise(lambda books: (case for case in _accepted(books) if case.payments or case.ledger))
def the_payment_agrees_with_the_ledger(case: Case) -> Iterator[Breach]:
    """A payment's state says what the provider's ledger says, and has ended as its order has."""
    if not case.payments:
        yield _of(case, f"{case.charged} charged, and no payment on the books")
    for payment in case.payments:
        booked = (case.charged, case.refunded)
        allowed = [(payment.amount * c, payment.amount * r) for c, r in _BOOKED.get(payment.state, ())]
        if booked not in allowed:
            yield _of(case, f"the payment is {payment.state}, and (charged, refunded) is {booked}", PAY_ORDER.undo)
        ends = _AT_END.get(case.status) if case.status else None
        if ends and payment.state not in ends:
            yield _of(case, f"{case.status}, and its payment is {payment.state}", PAY_ORDER.undo)


@promise(lambda books: [books])
def the_money_adds_up(books: Books) -> Iterator[Breach]:
    """All charges − all refunds = the amount of all orders that stand. Orders whose money is in flight are left out."""
    left, whose = Counter[str](), list[str]()
    for case in books.cases.values():
        meaning = MEANING[case.status] if case.status else None
        undecided = case.orders and not (meaning and meaning.decided)
        if undecided or PAY_ORDER.undo in case.skipped_undos:
            continue
        balance = Counter[str]()
        for entry in case.ledger:
            balance[entry.currency] += entry.charged - entry.refunded
        if case.orders and meaning and meaning.stands:
            balance[case.order.currency] -= case.order.amount
        whose += [f"{case.order_id} {amount:+d} {currency}" for currency, amount in balance.items() if amount]
        left.update(balance)
    for currency, amount in left.items():
        if amount:
            yield Breach(subject="the shop", wrong=f"{amount:+d} {currency} beside what stands: {', '.join(whose)}")


# Stock.


def _products(books: Books) -> Iterable[Product]:
    return books.products


@promise(_products)
def stock_is_the_sum_of_its_movements(product: Product) -> Iterator[Breach]:
    """What is on hand = what was moved in and out since the product's opening, restocks and restores included."""
    on_hand = sum(stock.on_hand for stock in product.stocks)
    moved = sum(movement.qty for movement in product.movements)
    if len(product.stocks) > 1 or on_hand != moved:
        yield Breach(subject=product.product_id, wrong=f"{on_hand} on hand, {moved} by its movements")


@promise(_products)
def stock_is_never_negative(product: Product) -> Iterator[Breach]:
    """No more was taken out than there was."""
    for stock in product.stocks:
        if stock.on_hand < 0:
            yield Breach(subject=product.product_id, wrong=f"{stock.on_hand} on hand")


@promise(_products)
def what_is_sold_is_what_stands(product: Product) -> Iterator[Breach]:
    """Sold pieces = the pieces of all orders that stand. Orders that are on their way there or back are left out."""
    sold = Counter[str]()
    for movement in product.movements:
        if movement.kind in (MovementKind.SALE, MovementKind.RESTORE):
            sold[movement.reference] -= movement.qty
    wrong: list[str] = []
    for case in product.cases:
        meaning = MEANING[case.status] if case.status else None
        pieces = sold.pop(case.order_id, 0)
        open_ = meaning is None or (ADJUST_STOCK.do in meaning.may) != (ADJUST_STOCK.do in meaning.must)
        if open_ or ADJUST_STOCK.undo in case.skipped_undos:
            continue
        stands = case.order.qty if meaning and ADJUST_STOCK.do in meaning.must else 0
        if pieces != stands:
            wrong.append(f"{case.order_id} {pieces} for {stands}")
    wrong += [f"{reference} {pieces} for nothing" for reference, pieces in sold.items() if pieces]
    if wrong:
        yield Breach(subject=product.product_id, wrong=f"sold otherwise than ordered: {', '.join(wrong)}")


# What people are shown.


@promise(_with_status)
def the_goods_are_where_the_order_says(order: tuple[Case, Meaning]) -> Iterator[Breach]:
    """A delivery reads Delivered when its order does, and at no other time."""
    case, _ = order
    states = {delivery.state for delivery in case.deliveries}
    arrived = DeliveryState.DELIVERED in states
    noted = not case.settled and _RUNNING in [run.status for run in case.workflows]  # is just being noted
    if case.status is OrderStatus.DELIVERED and not arrived and not noted:
        yield _of(case, f"Delivered, and its delivery is {sorted(states) or 'none'}")
    if arrived and case.status is not OrderStatus.DELIVERED:
        yield _of(case, f"its delivery is Delivered, the order {case.status}")


@promise(_with_status)
def the_view_agrees_with_the_teams(order: tuple[Case, Meaning]) -> Iterator[Breach]:
    """An order that stands or has ended shows where the money and the goods are, and which coupon it earned."""
    case, meaning = order
    view, pay, delivery = case.view, meaning.pay_status, meaning.delivery_status
    if case.status is OrderStatus.ORDER_CANCELED:
        pay = PayStatus.REFUNDED if case.refunded else PayStatus.NOT_PAID
        started = START_DELIVERY.do in case.happened
        delivery = DeliveryStatus.CANCELED if started else DeliveryStatus.NONE
    if pay and view.pay_status != pay:
        yield _of(case, f"{case.status} shows payStatus {view.pay_status} for {pay}", PAY_ORDER.undo)
    if delivery and view.delivery_status != delivery:
        yield _of(
            case, f"{case.status} shows deliveryStatus {view.delivery_status} for {delivery}", START_DELIVERY.undo
        )
    coupons = {coupon.coupon_id for coupon in case.coupons if coupon.issued_at}
    if (view.coupon_id is None and meaning.stands > 1 and not case.waived) or (
        view.coupon_id and view.coupon_id not in coupons
    ):
        yield _of(case, f"{case.status} shows coupon {view.coupon_id} for {sorted(coupons) or 'none'}")


@promise(_accepted)
def versions_have_no_gap(case: Case) -> Iterator[Breach]:
    """A timeline counts 1, 2, 3, …, and the view is at its last version."""
    versions = [event.version for event in case.events]
    if versions != list(range(1, len(versions) + 1)):
        yield _of(case, f"its versions are {versions}")
    for at in {view.version for view in case.views} - {versions[-1] if versions else 0}:
        yield _of(case, f"the view is at version {at}, the timeline at {versions[-1:]}")


@promise(_accepted)
def a_timeline_is_one_that_the_saga_writes(case: Case) -> Iterator[Breach]:
    """Events come in an order that the saga allows, and each undone step is told of."""
    if case.events and (wrong := impossible(case.timeline, case.skipped_undos)):
        yield _of(case, wrong)


@promise(_with_status)
def the_status_is_what_the_timeline_comes_to(order: tuple[Case, Meaning]) -> Iterator[Breach]:
    """The view's status is the one that the timeline's events come to."""
    case, _ = order
    if case.events and status_after(case.timeline) is not case.status:
        yield _of(case, f"shows {case.status} after {case.timeline[-1]}")


# What people were told.


@promise(lambda books: (case for case in _told(books) if case.shown))
def nobody_was_shown_an_order_going_back(case: Case) -> Iterator[Breach]:
    """What was shown of an order never went back, and is what its timeline says of that version."""
    for before, after in pairwise(case.shown):
        if after.version < before.version:
            yield _of(case, f"shown {before.status} at {before.version}, then {after.status} at {after.version}")
    for note in dict.fromkeys(case.shown):
        if note.version > len(case.events):
            yield _of(case, f"shown at version {note.version}, its timeline ends at {len(case.events)}")
        elif (status := status_after(case.timeline[: note.version])) is not note.status:
            yield _of(case, f"shown {note.status} at version {note.version}, which is {status}")


@promise(lambda books: (case for case in _told(books) if _was_told(case, Paid) or _was_told(case, Declined)))
def a_payments_answer_holds(case: Case) -> Iterator[Breach]:
    """Who was told that they paid has paid; who was told of a decline has an order that reads so."""
    if _was_told(case, Paid) and EventType.ORDER_PLACED not in case.timeline:
        yield _of(case, f"told that it is paid, and its timeline is {case.timeline}")
    if _was_told(case, Declined) and case.status is not OrderStatus.PAYMENT_DECLINED:
        yield _of(case, f"told that its payment was declined, and it is {case.status}")


@promise(lambda books: (case for case in _told(books) if _was_told(case, Canceled)))
def a_cancels_answer_holds(case: Case) -> Iterator[Breach]:
    """What was acknowledged as cancelled is undone or being undone, or its payment was declined anyway."""
    allowed = (OrderStatus.ORDER_CANCELING, OrderStatus.ORDER_CANCELED, OrderStatus.PAYMENT_DECLINED)
    if case.status not in allowed:
        yield _of(case, f"its cancel was acknowledged, and it is {case.status}")


@promise(lambda books: (case for case in _told(books) if _was_told(case, Delivered)))
def a_carriers_answer_holds(case: Case) -> Iterator[Breach]:
    """What was acknowledged as delivered is Delivered."""
    if case.status is not OrderStatus.DELIVERED:
        yield _of(case, f"its delivery was acknowledged, and it is {case.status}")


def _was_told(case: Case, kind: type[Paid | Declined | Canceled | Delivered]) -> bool:
    return any(isinstance(note, kind) for note in case.told)


def _of(case: Case, wrong: str, skipped_undo: str | None = None) -> Breach:
    return Breach(subject=case.order_id, wrong=wrong, skipped_undo=skipped_undo)


INVARIANTS: Sequence[Invariant] = (
    what_a_client_was_promised_is_on_the_books,
    a_key_brings_one_order,
    an_accepted_order_has_its_rows,
    nothing_is_made_up,
    an_order_has_ended_or_waits_for_something,
    an_order_has_one_workflow,
    the_engine_reads_as_the_view_does,
    *(_what_stands(status) for status, meaning in MEANING.items() if meaning.says_something),
    a_step_follows_the_step_before_it,
    everything_happens_once,
    what_was_done_is_what_was_ordered,
    nobody_is_charged_twice,
    a_charge_is_the_orders_amount,
    what_is_declined_was_never_charged,
    the_payment_agrees_with_the_ledger,
    the_money_adds_up,
    stock_is_the_sum_of_its_movements,
    stock_is_never_negative,
    what_is_sold_is_what_stands,
    the_goods_are_where_the_order_says,
    the_view_agrees_with_the_teams,
    versions_have_no_gap,
    a_timeline_is_one_that_the_saga_writes,
    the_status_is_what_the_timeline_comes_to,
    nobody_was_shown_an_order_going_back,
    a_payments_answer_holds,
    a_cancels_answer_holds,
    a_carriers_answer_holds,
)


def audit(books: Books) -> list[Finding]:
    """What every invariant's check finds."""
    return [find(invariant, books) for invariant in INVARIANTS]
