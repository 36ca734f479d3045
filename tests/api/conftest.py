"""The app around real services on fresh SQLite databases, with a hand-written engine behind it."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from fastapi import FastAPI

from api import create_app
from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.gateway.parts import Parts
from services.marketing.coupons import Coupons
from services.order.acceptance import Acceptance
from services.order.book import OrderBook
from services.order.catalogue import Catalogue
from services.order.dispatch import Dispatcher, Inbox
from services.order.statuses import EventType, OrderState, OrderStatus, PayStatus, TimelineEntry
from services.order.tables import Order
from services.shared.clock import utc_now
from services.shared.database import Database
from services.shared.migrations import upgrade
from services.shared.settings import TEAMS
from workflows.client import EngineUnavailable, NotDeliverable, NotStuck, TooLate

LEASE = timedelta(seconds=10)
MAC = {
    "productId": "1001",
    "qty": 2,
    "username": "김철수",
    "address": "서울시 중구 세종대로 1",
    "phoneNo": "010-1234-5678",
    "paymentMethod": "pm_card_visa",
}
KIM = {"X-User-Id": "kim"}
LEE = {"X-User-Id": "lee"}
OPERATOR = {"X-User-Id": "boss", "X-Role": "operator"}
CARRIER = {"X-User-Id": "truck", "X-Role": "carrier"}


@dataclass
class FakeEngine:
    """Notes what it is told. `paid` is what a payment comes to; `away` lets every call fail."""

    book: OrderBook
    away: bool = False
    refuses: bool = False
    paid: PayStatus | None = PayStatus.PAID
    decline: str = "payment-declined"
    started: asyncio.Queue[str] = field(default_factory=asyncio.Queue[str])
    told: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])

    async def start(self, order: Order) -> None:
        self._answer()
        self.started.put_nowait(order.order_id)

    async def payment_known(self, order: Order, timeout: float) -> None:
        self.told.append(("payment_known", order.order_id, timeout))
        if self.away or self.paid is None:
            return
        if self.paid is PayStatus.PAID:
            await happen(self.book, order.order_id, 2, EventType.ORDER_PLACED, OrderStatus.ORDER_PLACED, PayStatus.PAID)
        else:
            await happen(
                *(self.book, order.order_id, 2, EventType.PAYMENT_DECLINED),
                *(OrderStatus.PAYMENT_DECLINED, PayStatus.DECLINED),
                code=self.decline,
            )

    async def cancel(self, order_id: str, *, by: Literal["customer", "operator"], actor: str) -> None:
        self._answer(TooLate)
        self.told.append(("cancel", order_id, by, actor))

    async def delivered(self, order_id: str) -> None:
        self._answer(NotDeliverable)
        self.told.append(("delivered", order_id))

    async def settle(
        self, order_id: str, *, step: str, action: Literal["retry", "skip"], actor: str, reason: str
    ) -> None:
        self._answer(NotStuck)
        self.told.append(("settle", order_id, step, action, actor, reason))

    def _answer(self, refusal: type[Exception] = NotStuck) -> None:
        if self.away:
            raise EngineUnavailable("away")
        if self.refuses:
            raise refusal("no")


async def happen(
    book: OrderBook,
    order_id: str,
    version: int,
    event: EventType,
    status: OrderStatus,
    pay: PayStatus = PayStatus.PAID,
    *,
    needs_attention: bool = False,
    **detail: str,
) -> None:
    """Write an order's next event and state, as its workflow does."""
    await book.record(
        order_id=order_id,
        state=OrderState(order_status=status, pay_status=pay, needs_attention=needs_attention),
        timeline=[TimelineEntry(version=version, type=event, at=utc_now(), detail=detail)],
    )


@dataclass
class World:
    """A shop to call, and what stands behind it."""

    app: FastAPI
    http: httpx2.AsyncClient
    engine: FakeEngine
    parts: Parts

    async def order(self, who: dict[str, str] = KIM, key: str = "first", **changes: Any) -> dict[str, Any]:
        """Place an order, and answer it as it was read."""
        answer = await self.http.post("/orders", json=MAC | changes, headers=who | {"Idempotency-Key": key})
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def happen(self, order_id: str, version: int, event: EventType, status: OrderStatus, **more: Any) -> None:
        await happen(self.parts.book, order_id, version, event, status, **more)


@pytest.fixture(scope="session")
async def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One empty database a team, to be copied for each test."""
    directory = tmp_path_factory.mktemp("migrated")
    for team in TEAMS:
        await asyncio.to_thread(upgrade, f"sqlite+aiosqlite:///{directory / team}.db", team)
    return directory


@pytest.fixture
async def world(tmp_path: Path, migrated: Path) -> AsyncIterator[World]:
    for team in TEAMS:
        shutil.copy(migrated / f"{team}.db", tmp_path)
    order, delivery, marketing = (Database(f"sqlite+aiosqlite:///{tmp_path / team}.db") for team in TEAMS)
    book = OrderBook(order)
    engine = FakeEngine(book)
    parts = Parts(
        order_database=order,
        catalogue=Catalogue(order),
        acceptance=Acceptance(order, lease=LEASE),
        book=book,
        dispatcher=Dispatcher(Inbox(order, lease=LEASE), engine.start),
        deliveries=Deliveries(delivery),
        warehouse=Warehouse(delivery),
        coupons=Coupons(marketing),
        engine=engine,
    )
    await parts.catalogue.put(product_id="1001", product_name="Mac", product_price=3_000_000)
    await parts.warehouse.open_if_new("1001", 10)
    app = create_app(parts)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop") as http,
    ):
        yield World(app, http, engine, parts)
    for database in (order, delivery, marketing):
        await database.close()
