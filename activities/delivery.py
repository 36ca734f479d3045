"""What a workflow may ask of the delivery team."""

from temporalio import activity

from activities.contract import AdjustStock, StartDelivery, Undone
from activities.failures import shop_errors
from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse


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
