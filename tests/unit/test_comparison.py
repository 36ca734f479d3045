"""Each check finds what it is for, names it, and says nothing of an order that is sound."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.order.comparison import (
    Case,
    Code,
    Remedy,
    Source,
    cases,
    charge_differences,
    order_differences,
    remedy_of,
    stock_differences,
)
from services.order.statuses import OrderStatus
from services.shared.summaries import (
    ChargeSummary,
    CouponSummary,
    DeliverySummary,
    OrderSummary,
    RunSummary,
    StockSummary,
)

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
NOW = AT + timedelta(hours=1)
AMOUNT, QTY, INTENT = 2000, 2, "pi_1"


@dataclass(frozen=True)
class Sound:
    """What everybody says of an order in one state."""

    case: Case
    charge: ChargeSummary | None

    @property
    def order(self) -> OrderSummary:
        assert self.case.order is not None
        return self.case.order


def sound(
    status: OrderStatus,
    *,
    payment: str | None,
    charged: int = 0,
    refunded: int = 0,
    coupon: bool | None = None,
    delivery: str | None = None,
    sold: int = 0,
) -> Sound:
    order = OrderSummary(
        order_id="o1",
        product_id="tea",
        qty=QTY,
        amount=AMOUNT,
        currency="KRW",
        order_status=status,
        needs_attention=False,
        coupon_id="coupon_1" if coupon else None,
        version=5,
        updated_at=AT,
        started=True,
        payment_state=payment,
        intent_id=INTENT if payment else None,
    )
    case = Case(
        order_id="o1",
        order=order,
        run=RunSummary("o1", "COMPLETED" if status.final else "RUNNING", status, False),
        delivery=DeliverySummary("o1", delivery, "tea", QTY, sold) if delivery else None,
        coupon=None if coupon is None else CouponSummary("o1", "coupon_1", coupon),
    )
    if not charged and payment is None:
        return Sound(case, None)
    state = "succeeded" if charged else "canceled"
    return Sound(case, ChargeSummary(INTENT, "o1", state, charged, refunded, "KRW", order))


STATES = {
    "received": sound(OrderStatus.ORDER_RECEIVED, payment=None),
    "being paid": sound(OrderStatus.ORDER_RECEIVED, payment="Pending"),
    "just charged": sound(OrderStatus.ORDER_RECEIVED, payment="Pending", charged=AMOUNT),
    "placed": sound(OrderStatus.ORDER_PLACED, payment="Paid", charged=AMOUNT),
    "coupon on its way": sound(OrderStatus.ORDER_PLACED, payment="Paid", charged=AMOUNT, coupon=True),
    "with coupon": sound(OrderStatus.COUPON_ISSUED, payment="Paid", charged=AMOUNT, coupon=True),
    "being sent": sound(
        OrderStatus.COUPON_ISSUED, payment="Paid", charged=AMOUNT, coupon=True, delivery="Started", sold=QTY
    ),
    "sent": sound(
        OrderStatus.DELIVERY_STARTED, payment="Paid", charged=AMOUNT, coupon=True, delivery="Started", sold=QTY
    ),
    "delivered": sound(
        OrderStatus.DELIVERED, payment="Paid", charged=AMOUNT, coupon=True, delivery="Delivered", sold=QTY
    ),
    "declined": sound(OrderStatus.PAYMENT_DECLINED, payment="Declined"),
    "canceling": sound(
        OrderStatus.ORDER_CANCELING, payment="Voiding", charged=AMOUNT, coupon=False, delivery="Started", sold=QTY
    ),
    "canceled": sound(
        OrderStatus.ORDER_CANCELED, payment="Refunded", charged=AMOUNT, refunded=AMOUNT, coupon=False,
        delivery="Canceled",
    ),
    "canceled early": sound(OrderStatus.ORDER_CANCELED, payment="Voided", coupon=False, delivery="Canceled"),
    "canceled and declined": sound(OrderStatus.ORDER_CANCELED, payment="Declined"),
}  # fmt: skip


def found(one: Sound, *, before: datetime = NOW, away: tuple[Source, ...] = ()) -> set[str]:
    """What is said of an order and of its charge."""
    differences = order_differences(one.case, before=before, away=away)
    if one.charge is not None and Source.PROVIDER not in away:
        differences += charge_differences(one.charge._replace(order=one.case.order), before=before)
    return {difference.code for difference in differences}


Spoil = Callable[[Sound], Sound]


def of_order(**changes: object) -> Spoil:
    return lambda one: replace(one, case=replace(one.case, order=one.order._replace(**changes)))


def of_case(**changes: object) -> Spoil:
    return lambda one: replace(one, case=replace(one.case, **changes))


def of_run(**changes: object) -> Spoil:
    def spoil(one: Sound) -> Sound:
        assert one.case.run is not None
        return replace(one, case=replace(one.case, run=one.case.run._replace(**changes)))

    return spoil


def of_delivery(**changes: object) -> Spoil:
    def spoil(one: Sound) -> Sound:
        known = one.case.delivery or DeliverySummary("o1", None, None, 0, 0)
        return replace(one, case=replace(one.case, delivery=known._replace(**changes)))

    return spoil


def of_charge(**changes: object) -> Spoil:
    def spoil(one: Sound) -> Sound:
        assert one.charge is not None
        return replace(one, charge=one.charge._replace(**changes))

    return spoil


COUPON = CouponSummary("o1", "coupon_1", stands=True)
PLANTS: list[tuple[str, Spoil, Code]] = [
    ("placed", of_case(run=None), Code.WORKFLOW_MISSING),
    ("received", of_case(run=None), Code.WORKFLOW_MISSING),
    ("canceling", of_case(run=None), Code.WORKFLOW_MISSING),
    ("sent", of_run(status="TERMINATED"), Code.WORKFLOW_STOPPED),
    ("sent", of_run(status="FAILED"), Code.WORKFLOW_STOPPED),
    ("canceling", of_run(status="TIMED_OUT"), Code.WORKFLOW_STOPPED),
    ("received", of_run(status="CANCELED"), Code.WORKFLOW_STOPPED),
    ("placed", of_run(order_status="DeliveryStarted"), Code.VIEW_BEHIND),
    ("sent", of_run(order_status="Delivered", status="COMPLETED"), Code.VIEW_BEHIND),
    ("sent", of_run(order_status=None, status="COMPLETED"), Code.VIEW_BEHIND),
    ("canceling", of_run(needs_attention=True), Code.VIEW_BEHIND),
    ("sent", of_order(order_id="o1", needs_attention=True), Code.VIEW_BEHIND),
    ("placed", of_order(payment_state="Pending"), Code.PAYMENT_MISSING),
    ("delivered", of_order(payment_state="Voided"), Code.PAYMENT_MISSING),
    ("canceled", of_case(coupon=COUPON), Code.COUPON_THOUGH_CANCELED),
    ("declined", of_case(coupon=COUPON), Code.COUPON_THOUGH_CANCELED),
    ("with coupon", of_case(coupon=COUPON._replace(stands=False)), Code.COUPON_MISSING),
    ("sent", of_case(coupon=None), Code.COUPON_MISSING),
    ("delivered", of_case(coupon=None), Code.COUPON_MISSING),
    ("canceled", of_delivery(state="Started"), Code.DELIVERY_THOUGH_CANCELED),
    ("canceled", of_delivery(state="Delivered"), Code.DELIVERY_THOUGH_CANCELED),
    ("sent", of_delivery(state=None), Code.DELIVERY_MISSING),
    ("delivered", of_delivery(state="Canceled"), Code.DELIVERY_MISSING),
    ("sent", of_delivery(qty=3), Code.DELIVERY_DIFFERS),
    ("sent", of_delivery(product_id="coffee"), Code.DELIVERY_DIFFERS),
    ("delivered", of_delivery(state="Started"), Code.ARRIVAL_NOT_NOTED),
    ("sent", of_delivery(sold=0), Code.STOCK_NOT_SOLD),
    ("delivered", of_delivery(sold=1), Code.STOCK_SOLD_WRONGLY),
    ("canceled", of_delivery(sold=QTY), Code.STOCK_NOT_RESTORED),
    ("declined", of_delivery(sold=QTY), Code.STOCK_NOT_RESTORED),
    ("canceled", of_charge(refunded=0), Code.CHARGED_THOUGH_CANCELED),
    ("canceled", of_charge(refunded=1), Code.CHARGED_THOUGH_CANCELED),
    ("declined", of_charge(received=AMOUNT), Code.CHARGED_THOUGH_CANCELED),
    ("sent", of_charge(received=AMOUNT + 1), Code.CHARGED_ANOTHER_AMOUNT),
    ("sent", of_charge(currency="USD"), Code.CHARGED_ANOTHER_AMOUNT),
    ("sent", of_charge(intent_id="pi_2"), Code.CHARGED_TWICE),
    ("canceling", of_charge(intent_id="pi_2"), Code.CHARGED_TWICE),
    ("received", lambda one: replace(one, charge=STATES["sent"].charge), Code.CHARGE_NOT_NOTED),
    ("sent", of_charge(refunded=AMOUNT), Code.REFUNDED_THOUGH_STANDING),
    ("sent", of_charge(refunded=1), Code.REFUNDED_THOUGH_STANDING),
    ("placed", of_charge(received=0, status="canceled"), Code.REFUNDED_THOUGH_STANDING),
    ("canceled", of_order(payment_state="Voided"), Code.PAYMENT_DISAGREES),
    ("canceled early", of_order(payment_state="Refunded"), Code.PAYMENT_DISAGREES),
    ("canceled", of_order(payment_state="Paid"), Code.PAYMENT_DISAGREES),
]


@pytest.mark.parametrize("name", STATES)
def test_a_sound_order_is_left_alone(name: str) -> None:
    assert found(STATES[name]) == set()


@pytest.mark.parametrize(("name", "spoil", "code"), PLANTS, ids=lambda given: given if isinstance(given, str) else "")
def test_a_difference_is_named(name: str, spoil: Spoil, code: Code) -> None:
    assert found(spoil(STATES[name])) == {code}


@pytest.mark.parametrize(("name", "spoil", "code"), PLANTS, ids=lambda given: given if isinstance(given, str) else "")
def test_what_has_just_changed_is_left_to_the_next_run(name: str, spoil: Spoil, code: Code) -> None:
    spoilt = of_order(updated_at=NOW)(spoil(STATES[name]))
    assert found(spoilt, before=NOW - timedelta(seconds=60)) == set()


@pytest.mark.parametrize(
    ("name", "spoil", "away"),
    [
        ("placed", of_case(run=None), Source.ENGINE),
        ("sent", of_case(coupon=None), Source.MARKETING),
        ("sent", of_case(delivery=None), Source.DELIVERY),
        ("sent", of_charge(refunded=AMOUNT), Source.PROVIDER),
    ],
)
def test_a_store_that_is_away_is_not_compared(name: str, spoil: Spoil, away: Source) -> None:
    spoilt = spoil(STATES[name])
    assert found(spoilt) != set()
    assert found(spoilt, away=(away,)) == set()


def test_an_order_that_nobody_started_is_the_inboxs() -> None:
    assert found(of_order(started=False)(of_case(run=None)(STATES["received"]))) == set()


def test_what_the_engine_has_forgotten_has_ended() -> None:
    for name in ("delivered", "canceled", "declined"):
        assert found(of_case(run=None)(STATES[name])) == set()


@pytest.mark.parametrize("name", ["delivered", "canceled", "declined"])
@pytest.mark.parametrize(
    ("spoil", "code"),
    [(of_case(run=None), Code.WORKFLOW_MISSING), (of_run(status="TERMINATED"), Code.WORKFLOW_STOPPED)],
)
def test_one_that_has_ended_and_waits_for_a_person_has_a_workflow(name: str, spoil: Spoil, code: Code) -> None:
    """Nobody could clear it without."""
    flagged = of_order(needs_attention=True)(of_run(status="RUNNING", needs_attention=True)(STATES[name]))
    assert found(flagged) == set()
    assert found(spoil(flagged)) == {code}
    assert found(of_run(status="TERMINATED")(STATES[name])) == set(), "one that waits for nobody"


def test_an_arrival_that_is_just_being_noted_is_no_difference() -> None:
    spoilt = of_run(status="RUNNING")(of_delivery(state="Started")(STATES["delivered"]))
    assert found(spoilt) == set()


@pytest.mark.parametrize(
    ("name", "spoil", "excuse"),
    [
        ("canceled", of_case(coupon=COUPON), "revoke_coupon"),
        ("canceled", of_delivery(state="Started"), "cancel_delivery"),
        ("canceled", of_delivery(sold=QTY), "restore_stock"),
        ("canceled", of_charge(refunded=0), "refund_payment"),
        ("sent", of_case(coupon=None), "issue_coupon"),
    ],
)
def test_what_an_operator_decided_to_do_without_is_excused(name: str, spoil: Spoil, excuse: str) -> None:
    spoilt = spoil(STATES[name])
    others = {"revoke_coupon", "cancel_delivery", "restore_stock", "refund_payment", "issue_coupon"} - {excuse}
    assert found(of_order(excused=(*others,))(spoilt)) != set()
    assert found(of_order(excused=(excuse,), payment_state=spoilt.order.payment_state)(spoilt)) == set()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (of_case(run=RunSummary("o1", "RUNNING", "OrderPlaced", False)), {Code.WORKFLOW_WITHOUT_ORDER}),
        (of_case(run=RunSummary("o1", "COMPLETED", "Delivered", False)), set[Code]()),
        (of_case(coupon=COUPON), {Code.EFFECTS_WITHOUT_ORDER}),
        (of_delivery(state="Started"), {Code.EFFECTS_WITHOUT_ORDER}),
        (of_delivery(sold=1), {Code.EFFECTS_WITHOUT_ORDER}),
        (of_delivery(state="Canceled"), set[Code]()),
    ],
)
def test_what_belongs_to_no_order_is_named(spoil: Spoil, code: set[Code]) -> None:
    nothing = Sound(Case(order_id="o1"), None)
    case = replace(spoil(nothing).case, order=None)
    assert {one.code for one in order_differences(case, before=NOW)} == code


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, [Code.CHARGE_WITHOUT_ORDER]),
        ({"refunded": AMOUNT}, []),
        ({"order_id": ""}, []),  # not the shop's
        ({"received": 0}, []),
    ],
)
def test_a_charge_for_no_order_is_named(changes: dict[str, object], codes: list[Code]) -> None:
    charge = STATES["sent"].charge
    assert charge is not None
    orderless = charge._replace(**{"order": None, **changes})
    assert [one.code for one in charge_differences(orderless, before=NOW)] == codes


def test_stock_is_compared_with_its_movements() -> None:
    assert stock_differences(StockSummary("tea", 5, 5)) == []
    [difference] = stock_differences(StockSummary("tea", 5, 6))
    assert (difference.code, difference.subject) == (Code.STOCK_NOT_THE_SUM, "tea")


def test_every_code_is_planted_here_or_made_by_a_repair() -> None:
    planted = {code for _, _, code in PLANTS}
    elsewhere = {
        *(Code.WORKFLOW_WITHOUT_ORDER, Code.EFFECTS_WITHOUT_ORDER, Code.CHARGE_WITHOUT_ORDER),
        *(Code.STOCK_NOT_THE_SUM, Code.VIEW_AHEAD),
    }
    assert planted | elsewhere == set(Code)


def test_what_needs_a_judgement_is_not_repaired() -> None:
    repaired = {code for code in Code if remedy_of(code) not in (Remedy.FLAG, Remedy.NONE)}
    assert repaired == {Code.VIEW_BEHIND, Code.WORKFLOW_MISSING, Code.WORKFLOW_STOPPED}


def test_details_fit_the_report_and_name_nobody() -> None:
    for name, spoil, _ in PLANTS:
        for one in order_differences(spoil(STATES[name]).case, before=NOW):
            assert 0 < len(one.detail) <= 200


@given(
    orders=st.sets(st.sampled_from("abcdef")),
    runs=st.sets(st.sampled_from("abcdef")),
    deliveries=st.sets(st.sampled_from("abcdef")),
    coupons=st.sets(st.sampled_from("abcdef")),
)
def test_every_id_that_anybody_names_becomes_one_case(
    orders: set[str], runs: set[str], deliveries: set[str], coupons: set[str]
) -> None:
    made = cases(
        [STATES["sent"].order._replace(order_id=one) for one in orders],
        [RunSummary(one, "RUNNING", None, None) for one in runs],
        [DeliverySummary(one, None, None, 0, 0) for one in deliveries],
        [CouponSummary(one, "c", stands=True) for one in coupons],
    )
    assert [case.order_id for case in made] == sorted(orders | runs | deliveries | coupons)
    for case in made:
        sides = (case.order, case.run, case.delivery, case.coupon)
        assert [side is not None for side in sides] == [
            case.order_id in known for known in (orders, runs, deliveries, coupons)
        ]
        assert {side.order_id for side in sides if side} == {case.order_id}
