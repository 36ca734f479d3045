"""The rules of deliveries: one an order, none after it was called off, none called off after it arrived."""

from collections.abc import Collection
from enum import StrEnum

from services.delivery import repository
from services.delivery.errors import DeliveryCanceled, DeliveryCompleted, OutOfStock, UnknownProduct
from services.delivery.tables import Delivery
from services.shared.clock import Clock, utc_now
from services.shared.database import Database, insert_if_new
from services.shared.errors import NotFound


class DeliveryState(StrEnum):
    """Where the goods are."""

    STARTED = "Started"
    DELIVERED = "Delivered"
    CANCELED = "Canceled"


class Deliveries:
    """Starts, completes and calls off deliveries."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def start(self, *, order_id: str, product_id: str, qty: int) -> None:
        """Start an order's delivery, once, if the warehouse holds enough.

        Raises `OutOfStock`, `UnknownProduct`, `DeliveryCanceled`.
        """
        now = self._clock()
        delivery = Delivery(
            order_id=order_id,
            product_id=product_id,
            qty=qty,
            state=DeliveryState.STARTED,
            started_at=now,
            updated_at=now,
        )

        async def work(session: repository.AsyncSession) -> None:
            if not await insert_if_new(session, delivery):
                known = await repository.delivery_of_order(session, order_id)
                if known is None or known.state == DeliveryState.CANCELED:
                    raise DeliveryCanceled(order_id)
                return
            stock = await repository.stock_of(session, product_id)
            if stock is None:
                raise UnknownProduct(product_id)
            if stock.on_hand < qty:
                raise OutOfStock(product_id)

        await self._database.write(work)

    async def cancel(self, *, order_id: str, product_id: str, qty: int) -> bool:
        """Call an order's delivery off if it started, and see to it that it does not start later.

        Says whether it had started. Raises `DeliveryCompleted`.
        """
        now = self._clock()
        tombstone = Delivery(
            order_id=order_id, product_id=product_id, qty=qty, state=DeliveryState.CANCELED, updated_at=now
        )

        async def work(session: repository.AsyncSession) -> bool:
            # The change comes before the tombstone: a refused INSERT shares a lock on the row, and of many that then
            # all want to change it, MySQL lets one go on.
            if await call_off(session):
                return True
            if await insert_if_new(session, tombstone):
                return False
            known = await repository.delivery_of_order(session, order_id)
            if known is not None and known.state == DeliveryState.DELIVERED:
                raise DeliveryCompleted(order_id)
            if known is not None and known.state == DeliveryState.STARTED:  # it started between the two statements
                return await call_off(session)
            return known is not None and known.started_at is not None

        async def call_off(session: repository.AsyncSession) -> bool:
            return await repository.move_delivery(
                session, order_id, source=DeliveryState.STARTED, target=DeliveryState.CANCELED, at=now
            )

        return await self._database.write(work)

    async def complete(self, *, order_id: str) -> None:
        """Note that the goods arrived. Repeating it changes nothing. Raises `DeliveryCanceled`."""
        now = self._clock()

        async def work(session: repository.AsyncSession) -> None:
            if await repository.move_delivery(
                session, order_id, source=DeliveryState.STARTED, target=DeliveryState.DELIVERED, at=now
            ):
                return
            known = await repository.delivery_of_order(session, order_id)
            if known is None or known.state != DeliveryState.DELIVERED:
                raise DeliveryCanceled(order_id)

        await self._database.write(work)

    async def of_order(self, order_id: str) -> Delivery:
        """An order's delivery. Raises `NotFound` while none was started."""
        delivery = await self._database.read(lambda session: repository.delivery_of_order(session, order_id))
        if delivery is None or delivery.started_at is None:
            raise NotFound(order_id)
        return delivery

    async def of_orders(self, order_ids: Collection[str]) -> dict[str, Delivery]:
        """The deliveries of these orders by their ids, of those whose delivery was started."""
        found = await self._database.read(lambda session: repository.started_deliveries(session, order_ids))
        return {delivery.order_id: delivery for delivery in found}
