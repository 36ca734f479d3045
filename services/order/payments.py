"""The rules of payments: one charge an order at most, and none that stays after it was called off.

The row says what may be done, and is committed before the provider is asked to do it. The intent that the row names
is the only one that is ever confirmed, so a charge that is called off needs no other one to be looked for. A decline
stands in the row only once that intent is void: so nobody is charged for an order that reads as declined.
"""

from enum import StrEnum

from services.order import repository
from services.order.admission import Admission
from services.order.errors import AmountMismatch
from services.order.metrics import OrderMetrics
from services.order.provider import (
    InsufficientFunds,
    Intent,
    IntentStatus,
    PaymentDeclined,
    PaymentProvider,
    PaymentVoided,
    ProviderRejected,
)
from services.order.tables import Payment
from services.shared.clock import Clock, utc_now
from services.shared.database import Database, insert_if_new


class PaymentState(StrEnum):
    """Where a payment stands. `VOIDING` is on its way to `VOIDED` or `REFUNDED`; those and `DECLINED` are for ever."""

    PENDING = "Pending"
    PAID = "Paid"
    DECLINED = "Declined"
    VOIDING = "Voiding"
    VOIDED = "Voided"
    REFUNDED = "Refunded"


class Payments:
    """Charges orders and gives the money back. Tells the admission of each outcome, and how long it took to know it."""

    def __init__(
        self,
        database: Database,
        provider: PaymentProvider,
        admission: Admission,
        clock: Clock = utc_now,
        *,
        metrics: OrderMetrics | None = None,
    ) -> None:
        self._database = database
        self._provider = provider
        self._admission = admission
        self._metrics = metrics or OrderMetrics()
        self._clock = clock

    async def pay(self, *, order_id: str, amount: int, currency: str, payment_method: str) -> None:
        """Charge an order, once.

        Raises `PaymentDeclined`, `InsufficientFunds`, `PaymentVoided`, `AmountMismatch`, `ProviderUnavailable`.
        """
        payment = await self._begin(order_id, amount, currency)
        if not _is_pending(payment):
            return
        payment = await self._with_intent(payment, amount, currency)
        if not _is_pending(payment):
            return
        try:
            intent = await self._charge(payment, payment_method)
        except PaymentDeclined as decline:
            await self._settle(payment, PaymentState.DECLINED, decline_code=decline.code)
            raise
        if (intent.amount_received, intent.currency) != (amount, currency):
            raise AmountMismatch(f"{order_id}: {intent.amount_received} {intent.currency} for {amount} {currency}")
        await self._settle(payment, PaymentState.PAID)  # or the undo, which was faster, sees to the money

    async def refund(self, *, order_id: str, amount: int, currency: str) -> bool:
        """Give an order's money back if it was charged, and see to it that it is not charged later.

        Says whether money went back. Raises `RefundRefused`, `ProviderUnavailable`.
        """
        payment = await self._call_off(order_id, amount, currency)
        if payment.state != PaymentState.VOIDING:
            return payment.state == PaymentState.REFUNDED
        # An attempt to pay may just be creating the intent; by its key we learn the same one.
        try:
            payment = await self._with_intent(payment, amount, currency)
        except ProviderRejected:  # it has none and gives none, and one that was not noted is never confirmed
            await self._end(order_id, PaymentState.VOIDED)
            return False
        intent = await self._provider.cancel_intent(order_id=order_id, intent_id=_intent_of(payment))
        if intent.status is IntentStatus.CANCELED:
            await self._end(order_id, PaymentState.VOIDED)
            return False
        await self._provider.refund(order_id=order_id, intent_id=intent.intent_id, amount=intent.amount_received)
        await self._end(order_id, PaymentState.REFUNDED)
        return True

    async def _begin(self, order_id: str, amount: int, currency: str) -> Payment:
        """The order's payment, pending if it is new."""
        pending = self._payment(order_id, PaymentState.PENDING, amount, currency)

        async def work(session: repository.AsyncSession) -> Payment:
            if await insert_if_new(session, pending):
                return pending
            return await _known(session, order_id)

        return await self._database.write(work)

    async def _call_off(self, order_id: str, amount: int, currency: str) -> Payment:
        """The order's payment, from now on closed to every attempt to pay."""
        tombstone = self._payment(order_id, PaymentState.VOIDED, amount, currency)

        async def work(session: repository.AsyncSession) -> Payment:
            # The change comes before the tombstone: a refused INSERT shares a lock on the row, and of many that then
            # all want to change it, MySQL lets one go on.
            if not await void(session):
                if await insert_if_new(session, tombstone):
                    return tombstone
                await void(session)  # it may have begun between the two statements
            return await _known(session, order_id)

        async def void(session: repository.AsyncSession) -> bool:
            return await repository.move_payment(
                session,
                order_id,
                sources=(PaymentState.PENDING, PaymentState.PAID),
                target=PaymentState.VOIDING,
                at=tombstone.updated_at,
            )

        return await self._database.write(work)

    async def _with_intent(self, payment: Payment, amount: int, currency: str) -> Payment:
        """The payment as it is once it has its intent, which is the first that was noted."""
        if payment.intent_id is not None:
            return payment
        order_id = payment.order_id
        intent = await self._provider.create_intent(order_id=order_id, amount=amount, currency=currency)

        async def work(session: repository.AsyncSession) -> Payment:
            if await repository.set_intent(session, order_id, state=payment.state, intent_id=intent.intent_id):
                return payment.model_copy(update={"intent_id": intent.intent_id})
            await repository.set_intent(session, order_id, intent_id=intent.intent_id)  # it is called off by now
            return await _known(session, order_id)

        return await self._database.write(work)

    async def _charge(self, payment: Payment, payment_method: str) -> Intent:
        """The charged intent. Raises `PaymentDeclined`, and only when nothing can be charged on the intent any more."""
        order_id, intent_id = payment.order_id, _intent_of(payment)
        try:
            return await self._provider.confirm(order_id=order_id, intent_id=intent_id, payment_method=payment_method)
        except PaymentVoided as void:
            # Whoever calls an order off has changed its row before. Where the row has not changed, an attempt that was
            # declined made the intent void, and has not noted it.
            raise PaymentDeclined(f"{order_id}: the intent was void already") from void
        except PaymentDeclined:
            intent = await self._provider.cancel_intent(order_id=order_id, intent_id=intent_id)
            if intent.status is IntentStatus.CANCELED:
                raise
            return intent  # an attempt that overlapped this one was not declined

    async def _settle(self, payment: Payment, outcome: PaymentState, *, decline_code: str | None = None) -> None:
        """Note what became of a pending payment and tell the admission, once for all who learn it.

        Where another outcome was noted before, that one stands, and is raised.
        """
        order_id, now = payment.order_id, self._clock()

        async def work(session: repository.AsyncSession) -> Payment | None:
            pending = (PaymentState.PENDING,)
            if not await repository.move_payment(
                session, order_id, sources=pending, target=outcome, at=now, decline_code=decline_code
            ):
                return await _known(session, order_id)
            # Last, because all payments share what this locks.
            await self._admission.settled(session, order_id, took=now - payment.updated_at)
            return None

        noted_before = await self._database.write(work)
        if noted_before is not None:
            _raise_unless_standing(noted_before)
            return
        self._metrics.payments.labels(outcome.value).observe((now - payment.updated_at).total_seconds())

    async def _end(self, order_id: str, end: PaymentState) -> None:
        """Note how a payment that was called off has ended."""
        now = self._clock()

        async def work(session: repository.AsyncSession) -> None:
            await repository.move_payment(session, order_id, sources=(PaymentState.VOIDING,), target=end, at=now)

        await self._database.write(work)

    def _payment(self, order_id: str, state: PaymentState, amount: int, currency: str) -> Payment:
        return Payment(order_id=order_id, state=state, amount=amount, currency=currency, updated_at=self._clock())


async def _known(session: repository.AsyncSession, order_id: str) -> Payment:
    payment = await repository.payment_of_order(session, order_id)
    if payment is None:
        raise PaymentVoided(order_id)  # rows are never deleted; without one, nothing may be charged
    return payment


def _is_pending(payment: Payment) -> bool:
    """Whether the charge is still to be made; not so when it was. Raises what else became of the payment."""
    _raise_unless_standing(payment)
    return payment.state == PaymentState.PENDING


def _raise_unless_standing(payment: Payment) -> None:
    """Raises what became of a payment that is neither pending nor paid."""
    if payment.state == PaymentState.DECLINED:
        kind = InsufficientFunds if payment.decline_code == InsufficientFunds.code else PaymentDeclined
        raise kind(payment.order_id)
    if payment.state not in (PaymentState.PENDING, PaymentState.PAID):
        raise PaymentVoided(payment.order_id)


def _intent_of(payment: Payment) -> str:
    if payment.intent_id is None:
        raise PaymentVoided(payment.order_id)
    return payment.intent_id
