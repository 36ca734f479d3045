"""Where every order stands, seen past all wires, and what is still under way."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.client import Client
from temporalio.service import RPCError

from deploy.local import Shop
from services.order.statuses import OrderStatus
from services.order.tables import Order, OrderView
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import PoolSettings
from tests.faults.premises import database_urls

_QUICKLY = PoolSettings(transaction_seconds=2)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where an order stands."""

    order_id: str
    pay: str
    """How it is paid for."""
    status: OrderStatus
    needs_attention: bool

    @property
    def settled(self) -> bool:
        """Whether nothing happens to it any more unless somebody does something."""
        return self.status.final or self.status is OrderStatus.DELIVERY_STARTED


class Window:
    """Looks in."""

    def __init__(self, shop: Shop) -> None:
        self._orders = Database(database_urls(shop)["order"], _QUICKLY)
        self._engine = shop.urls.temporal

    async def standings(self) -> Sequence[Standing] | None:
        """Every order there is; nothing while the database does not answer."""

        async def work(session: AsyncSession) -> Sequence[tuple[str, str, str, bool]]:
            columns = (Order.order_id, Order.payment_method, OrderView.order_status, OrderView.needs_attention)
            statement = select(*columns).join(OrderView, col(OrderView.order_id) == col(Order.order_id))
            return (await session.exec(statement)).all()

        try:
            rows = await self._orders.read(work)
        except DatabaseUnavailable:
            return None
        return [
            Standing(order_id=order_id, pay=pay, status=OrderStatus(status), needs_attention=needs_attention)
            for order_id, pay, status, needs_attention in rows
        ]

    async def running(self) -> set[str] | None:
        """The orders whose workflow has not ended; nothing while the engine does not answer."""
        try:
            client = await Client.connect(self._engine)
            return {found.id async for found in client.list_workflows('ExecutionStatus = "Running"')}
        except (RPCError, RuntimeError):
            return None

    async def close(self) -> None:
        await self._orders.close()
