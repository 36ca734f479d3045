"""What a workflow may ask of the delivery team."""

from temporalio import activity

from activities.contract import AdjustStock, StartDelivery, Summarise, SummariseStock, Undone
from activities.failures import shop_errors
from activities.heartbeat import heartbeating
from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.shared.summaries import DeliverySummary, Part, StockSummary


class DeliveryActivities:
    """Commands of the saga, turned into calls on the delivery team's services."""

    def __init__(self, deliveries: Deliveries, warehouse: Warehouse) -> None:
        self._deliveries = deliveries
        self._warehouse = warehouse

    @activity.defn
    @shop_errors
    async def start_delivery(self, command: StartDelivery) -> None:
        """Start the order's delivery, once. Fails for good when out of stock or the product is unknown."""
        await self._deliveries.start(order_id=command.order_id, product_id=command.product_id, qty=command.qty)

    @activity.defn
    @shop_errors
    async def cancel_delivery(self, command: StartDelivery) -> Undone:
        """Call the order's delivery off if it started, and see to it that it does not start later."""
        changed = await self._deliveries.cancel(
            order_id=command.order_id, product_id=command.product_id, qty=command.qty
        )
        return Undone(changed=changed)

    @activity.defn
    @shop_errors
    async def adjust_stock(self, command: AdjustStock) -> None:
        """Take the order's pieces out of stock, once. Fails for good when stock ran out meanwhile."""
        await self._warehouse.sell(order_id=command.order_id, product_id=command.product_id, qty=command.qty)

    @activity.defn
    @shop_errors
    async def restore_stock(self, command: AdjustStock) -> Undone:
        """Put the order's pieces back if they were taken, and see to it that they are not taken later."""
        changed = await self._warehouse.restore(order_id=command.order_id, product_id=command.product_id)
        return Undone(changed=changed)

    @activity.defn
    @shop_errors
    async def complete_delivery(self, command: StartDelivery) -> None:
        """Note that the goods are with the customer."""
        await self._deliveries.complete(order_id=command.order_id)

    @activity.defn
    @heartbeating
    @shop_errors
    async def summarise_deliveries(self, command: Summarise) -> Part[DeliverySummary]:
        """The goods of orders, for the reconciliation."""
        if command.order_ids is not None:
            return Part([*await self._deliveries.summaries_of(command.order_ids)], "")
        return await self._deliveries.summaries(after=command.after, until=command.until, limit=command.limit)

    @activity.defn
    @heartbeating
    @shop_errors
    async def summarise_stock(self, command: SummariseStock) -> list[StockSummary]:
        """Stock and movements of products, for the reconciliation."""
        product_ids = command.product_ids
        if product_ids is None:
            product_ids = await self._warehouse.products(after=command.after, limit=command.limit)
        return await self._warehouse.summaries_of(product_ids)
