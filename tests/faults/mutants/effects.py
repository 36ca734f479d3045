"""What the teams' services see to: each effect once, none after its undo, none that is not covered."""

from tests.faults.mutants.mutant import Edit, Mutant, Tests
from tests.faults.mutants.runs import SHORT

_PAYMENTS = "services/order/payments.py"
_STRAGGLER = "saga/test_stragglers.py::test_what_was_given_up_leaves_no_order_in_between"
_LATE = "commits after its undo and is refused"

EFFECTS = (
    Mutant(
        name="the provider's idempotency key",
        guards="what was asked and not answered is asked again, not anew",
        edits=(
            Edit(
                file="services/order/provider.py",
                old='return await ask({"idempotency_key": key})',
                new="return await ask({})",
            ),
        ),
        proofs=(Tests.of("unit/test_stripe_provider.py", "database/test_payments.py"),),
    ),
    Mutant(
        name="the intent that was noted",
        guards="only one intent of an order is ever charged",
        edits=(
            Edit(
                file="services/order/repository.py",
                old='where(col(Payment.order_id) == bindparam("noted"), col(Payment.intent_id).is_(None))',
                new='where(col(Payment.order_id) == bindparam("noted"))',
            ),
        ),
        proofs=(Tests.of("database/test_payments.py::test_only_the_intent_that_was_noted_is_confirmed"),),
    ),
    Mutant(
        name="the key and the noted intent",
        guards="nobody is charged twice",
        edits=(
            Edit(
                file="services/order/provider.py",
                old='return await ask({"idempotency_key": key})',
                new="return await ask({})",
            ),
            Edit(
                file=_PAYMENTS,
                old="        if payment.intent_id is not None:\n            return payment\n",
                new="",
            ),
            Edit(
                file="services/order/repository.py",
                old='where(col(Payment.order_id) == bindparam("noted"), col(Payment.intent_id).is_(None))',
                new='where(col(Payment.order_id) == bindparam("noted"))',
            ),
        ),
        proofs=(SHORT,),
    ),
    Mutant(
        name="a decline waits for its void intent",
        guards="nobody is charged for an order that reads as declined",
        edits=(
            Edit(
                file=_PAYMENTS,
                old="            if intent.status is IntentStatus.CANCELED:\n                raise\n",
                new="            if intent is not None:\n                raise\n",
            ),
        ),
        proofs=(
            Tests.of("database/test_payments.py::test_a_decline_gives_way_to_the_charge_of_an_attempt_that_overlapped"),
        ),
    ),
    Mutant(
        name="the refund voids the intent",
        guards="a refund outruns a charge in flight",
        edits=(
            Edit(
                file=_PAYMENTS,
                old="intent = await self._provider.cancel_intent(order_id=order_id, intent_id=_intent_of(payment))",
                new="intent = await self._provider.find_intent(_intent_of(payment))",
            ),
            Edit(
                file=_PAYMENTS,
                old="        if intent.status is IntentStatus.CANCELED:\n            await",
                new="        if intent.status is not IntentStatus.SUCCEEDED:\n            await",
            ),
        ),
        proofs=(Tests.of("database/test_payments.py::test_a_refund_that_comes_between_leaves_nobody_charged"),),
    ),
    Mutant(
        name="the tombstone of refund_payment",
        guards="an order that was called off is not charged later",
        edits=(
            Edit(
                file=_PAYMENTS,
                old="if await insert_if_new(session, tombstone):",
                new="if await repository.payment_of_order(session, order_id) is None:",
            ),
        ),
        proofs=(
            Tests.of("database/test_payments.py::test_a_refund_before_any_charge_leaves_a_tombstone"),
            Tests.of(f"{_STRAGGLER}[real-pay_order: {_LATE}]"),
        ),
    ),
    Mutant(
        name="the tombstone of revoke_coupon",
        guards="an order that was called off gets no coupon later",
        edits=(
            Edit(
                file="services/marketing/coupons.py",
                old="if await insert_if_new(session, tombstone):",
                new="if await repository.coupon_of_order(session, order_id) is None:",
            ),
        ),
        proofs=(Tests.of(f"{_STRAGGLER}[real-issue_coupon: {_LATE}]"),),
    ),
    Mutant(
        name="the tombstone of cancel_delivery",
        guards="an order that was called off is not delivered later",
        edits=(
            Edit(
                file="services/delivery/deliveries.py",
                old="if await insert_if_new(session, tombstone):",
                new="if await repository.delivery_of_order(session, order_id) is None:",
            ),
        ),
        proofs=(Tests.of(f"{_STRAGGLER}[real-start_delivery: {_LATE}]"),),
    ),
    Mutant(
        name="the tombstone of restore_stock",
        guards="pieces of an order that was called off are not taken later",
        edits=(
            Edit(
                file="services/delivery/stock.py",
                old="if await insert_if_new(session, tombstone):",
                new="if await repository.movement(session, order_id, MovementKind.SALE) is None:",
            ),
        ),
        proofs=(Tests.of(f"{_STRAGGLER}[real-adjust_stock: {_LATE}]"),),
    ),
    Mutant(
        name="stock is taken where there is enough",
        guards="stock never goes below zero",
        edits=(
            Edit(
                file="services/delivery/repository.py",
                old="col(Stock.product_id) == product_id, col(Stock.on_hand) >= qty",
                new="col(Stock.product_id) == product_id",
            ),
        ),
        proofs=(Tests.of("database/test_stock.py::test_a_hundred_buyers_for_the_last_five"),),
    ),
    Mutant(
        name="the check of the stock",
        guards="stock never goes below zero, whoever changes it",
        edits=(
            Edit(
                file="services/delivery/migrations/versions/0001_the_first_schema.py",
                old='        sa.CheckConstraint("on_hand >= 0", name=op.f("ck_stock_on_hand_not_negative")),\n',
                new="",
            ),
        ),
        proofs=(Tests.of("database/test_stock.py::test_the_database_itself_refuses_a_negative_stock"),),
    ),
)
