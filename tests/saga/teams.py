"""The three teams' real activities over real databases, and what their books say of an order."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from activities.delivery import DeliveryActivities
from activities.marketing import MarketingActivities
from activities.order import OrderActivities
from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.delivery.tables import Delivery, StockMovement
from services.marketing.coupons import Coupons
from services.marketing.tables import Coupon
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.circuit import AdmissionRules
from services.order.payments import Payments
from services.order.provider import StripeProvider
from services.shared.database import Database
from services.shared.migrations import upgrade
from services.shared.settings import PaymentSettings, PoolSettings, Team
from tests.payments import ledger_of, running_simulator
from tests.saga.world import Real

ON_HAND = 1000


@dataclass
class Teams:
    """The teams, each with its database, and the payment provider."""

    activities: Real
    orders: Database
    marketing: Database
    delivery: Database
    simulator: str
    product_id: str

    async def standing(self, order_id: str) -> set[str]:
        """The steps of an order whose effect stands, by the provider's and the teams' books."""

        async def coupons(session: AsyncSession) -> int:
            issued = (col(Coupon.issued_at).is_not(None), col(Coupon.revoked_at).is_(None))
            return (await session.exec(select(func.count()).where(Coupon.order_id == order_id, *issued))).one()

        async def delivery(session: AsyncSession) -> tuple[int, int]:
            state = Delivery.state != "Canceled"
            deliveries = (await session.exec(select(func.count()).where(Delivery.order_id == order_id, state))).one()
            moved = select(func.coalesce(func.sum(StockMovement.qty), 0)).where(StockMovement.reference == order_id)
            return deliveries, (await session.exec(moved)).one()

        paid = sum(row["charged"] - row["refunded"] for row in await self._ledger(order_id))
        deliveries, taken = await self.delivery.read(delivery)
        found = {
            "pay_order": paid,
            "issue_coupon": await self.marketing.read(coupons),
            "start_delivery": deliveries,
            "adjust_stock": taken,
        }
        return {do for do, much in found.items() if much}

    async def charges(self, order_id: str) -> int:
        """How often the provider ever charged an order."""
        return sum(row["charges"] for row in await self._ledger(order_id))

    async def sold(self) -> int:
        """How many pieces are missing in the warehouse."""
        return ON_HAND - await Warehouse(self.delivery).on_hand(self.product_id)

    async def moved(self) -> int:
        """How many pieces have left the warehouse, movement by movement."""

        async def pieces(session: AsyncSession) -> int:
            moved = select(func.coalesce(func.sum(StockMovement.qty), 0)).where(StockMovement.kind != "opening")
            return -(await session.exec(moved)).one()

        return await self.delivery.read(pieces)

    async def _ledger(self, order_id: str) -> list[dict[str, Any]]:
        return [row for row in await ledger_of(self.simulator) if row["orderId"] == order_id]


@asynccontextmanager
async def real_teams(directory: Path, product_id: str) -> AsyncGenerator[Teams]:
    """Teams with empty books in that directory, and a warehouse that holds `ON_HAND` pieces of a product."""
    async with AsyncExitStack() as stack:

        async def database(team: Team) -> Database:
            url = f"sqlite+aiosqlite:///{directory / team}.db"
            await asyncio.to_thread(upgrade, url, team)
            made = Database(url, PoolSettings(transaction_seconds=30))  # patient: the machine may be busy
            stack.push_async_callback(made.close)
            return made

        orders, marketing, delivery = [await database(team) for team in ("order", "marketing", "delivery")]
        simulator = await stack.enter_async_context(running_simulator(directory / "ledger.db"))
        provider = StripeProvider(PaymentSettings(url=simulator, key=SecretStr("sk_test_street12")))
        stack.push_async_callback(provider.close)
        await Warehouse(delivery).open_if_new(product_id, ON_HAND)
        paying = OrderActivities(Payments(orders, provider, Admission(AdmissionRules())), OrderBook(orders))
        giving = MarketingActivities(Coupons(marketing))
        moving = DeliveryActivities(Deliveries(delivery), Warehouse(delivery))
        activities = {
            "pay_order": paying.pay_order,
            "refund_payment": paying.refund_payment,
            "issue_coupon": giving.issue_coupon,
            "revoke_coupon": giving.revoke_coupon,
            "start_delivery": moving.start_delivery,
            "cancel_delivery": moving.cancel_delivery,
            "adjust_stock": moving.adjust_stock,
            "restore_stock": moving.restore_stock,
            "complete_delivery": moving.complete_delivery,
        }
        yield Teams(activities, orders, marketing, delivery, simulator, product_id)
