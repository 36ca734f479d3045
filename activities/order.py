"""What a workflow may ask of the order team."""

from temporalio import activity

from activities.contract import PayOrder, RecordStatus, Undone
from activities.failures import shop_errors
from activities.heartbeat import heartbeating
from services.order.book import OrderBook
from services.order.payments import Payments


class OrderActivities:
    """Commands of the saga, turned into calls on the order team's services."""

    def __init__(self, payments: Payments, book: OrderBook) -> None:
        self._payments = payments
        self._book = book

    @activity.defn
    @heartbeating
    @shop_errors
    async def pay_order(self, command: PayOrder) -> None:
        """Charge the order, once. Fails for good with the provider's decline."""
        await self._payments.pay(
            order_id=command.order_id,
            amount=command.amount,
            currency=command.currency,
            payment_method=command.payment_method,
        )

    @activity.defn
    @heartbeating
    @shop_errors
    async def refund_payment(self, command: PayOrder) -> Undone:
        """Give the money back if it was taken, and see to it that it is not taken later."""
        changed = await self._payments.refund(
            order_id=command.order_id, amount=command.amount, currency=command.currency
        )
        return Undone(changed=changed)

    @activity.defn
    async def record_status(self, command: RecordStatus) -> None:
        """Write the status view and the timeline. Every failure is retried: a status write must not kill an order."""
        await self._book.record(order_id=command.order_id, state=command.state, timeline=command.timeline)

    @activity.defn
    async def take_turn(self) -> None:
        """Nothing at all. A workflow that waits for it in its own worker goes on in the same task, after all else."""
