"""The API around real services on SQLite, with an engine that does what a test tells it to."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Literal

import httpx2
from fastapi import FastAPI

from services.gateway.caller import Role
from services.gateway.parts import Parts
from services.order.book import OrderBook
from services.order.statuses import DeliveryStatus, EventType, OrderState, OrderStatus, PayStatus, TimelineEntry
from services.order.tables import Order
from tests.issuer import bearer
from workflows.client import (
    EngineUnavailable,
    NotDeliverable,
    NotFlagged,
    NotStuck,
    NotWaiting,
    PreconditionFailed,
    TooLate,
)

LEASE = timedelta(seconds=10)
MINJI = bearer("minji")
HANEUL = bearer("haneul")
OPERATOR = bearer("ops-1", Role.OPERATOR)
CARRIER = bearer("cj", Role.CARRIER)
ORDER: dict[str, Any] = {
    "productId": "tea",
    "qty": 2,
    "username": "김민지",
    "address": "서울시 중구 12번가 1",
    "phoneNo": "010-1234-5678",
    "paymentMethod": "pm_card_visa",
}
RECEIVED = OrderState()
PLACED = OrderState(order_status=OrderStatus.ORDER_PLACED, pay_status=PayStatus.PAID)
DECLINED = OrderState(order_status=OrderStatus.PAYMENT_DECLINED, pay_status=PayStatus.DECLINED)
CANCELING = replace(PLACED, order_status=OrderStatus.ORDER_CANCELING)
CANCELED = OrderState(order_status=OrderStatus.ORDER_CANCELED, pay_status=PayStatus.REFUNDED)
DELIVERED = OrderState(
    order_status=OrderStatus.DELIVERED, pay_status=PayStatus.PAID, delivery_status=DeliveryStatus.DELIVERED
)
_keys = count(1)


@dataclass
class FakeEngine:
    """Stands where the workflows are: writes the view as they would, or is away."""

    book: OrderBook
    away: bool = False
    error: Exception | None = None
    on_payment: Callable[[str], Awaitable[None]] | None = None
    stuck: set[str] = field(default_factory=set[str])
    waits: list[float] = field(default_factory=list[float])
    told: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    started: asyncio.Queue[str] = field(default_factory=asyncio.Queue[str])

    async def start(self, order: Order) -> None:
        self._be_there()
        self.started.put_nowait(order.order_id)

    async def payment_known(self, order: Order, timeout: float) -> None:
        self.waits.append(timeout)
        if self.on_payment is not None and not self.away:
            await self.on_payment(order.order_id)

    async def cancel(
        self,
        order_id: str,
        *,
        by: Literal["customer", "operator"],
        actor: str,
        if_version: int | None = None,
        note: str = "",
    ) -> None:
        self._be_there()
        now = (await self.book.get(order_id)).view
        if if_version not in (None, now.version):
            raise PreconditionFailed(order_id)
        if now.order_status in (OrderStatus.DELIVERED, OrderStatus.PAYMENT_DECLINED):
            raise TooLate(order_id)
        self.told.append(("cancel", order_id, by, actor, *([note] if note else [])))
        await record(self.book, order_id, CANCELING, EventType.ORDER_CANCELING)

    async def delivered(self, order_id: str) -> None:
        self._be_there()
        if await self._status(order_id) != OrderStatus.DELIVERY_STARTED:
            raise NotDeliverable(order_id)
        self.told.append(("delivered", order_id))
        await record(self.book, order_id, DELIVERED, EventType.DELIVERED)

    async def settle(
        self, order_id: str, *, step: str, action: Literal["retry", "skip"], actor: str, reason: str
    ) -> None:
        self._be_there()
        if step not in self.stuck:
            raise NotStuck(step)
        self.told.append(("settle", order_id, step, action, actor, reason))

    async def waive_coupon(self, order_id: str, *, actor: str, reason: str) -> None:
        self._be_there()
        if await self._status(order_id) != OrderStatus.ORDER_PLACED:
            raise NotWaiting(order_id)
        self.told.append(("waive_coupon", order_id, actor, reason))

    async def clear_attention(self, order_id: str, *, actor: str, reason: str, about: str = "") -> None:
        self._be_there()
        if not (await self.book.get(order_id)).view.needs_attention:
            raise NotFlagged(order_id)
        self.told.append(("clear_attention", order_id, actor, reason, *([about] if about else [])))

    def _be_there(self) -> None:
        if self.error is not None:
            raise self.error
        if self.away:
            raise EngineUnavailable("away")

    async def _status(self, order_id: str) -> str:
        return (await self.book.get(order_id)).view.order_status


@dataclass
class FakeSchedule:
    """The reconciliation's schedule: whether a run is under way, or its engine away."""

    running: bool = False
    away: bool = False

    async def trigger(self) -> bool:
        if self.away:
            raise EngineUnavailable("away")
        began, self.running = not self.running, True
        return began


async def record(
    book: OrderBook, order_id: str, state: OrderState, *events: EventType, detail: dict[str, str] | None = None
) -> None:
    """Add to an order's timeline, and bring its view to a state, as its workflow would."""
    version = (await book.get(order_id)).view.version
    entries = [
        TimelineEntry(version=version + 1 + place, type=event, at=datetime.now(UTC), detail=detail or {})
        for place, event in enumerate(events)
    ]
    await book.record(order_id=order_id, state=state, timeline=entries)


@dataclass
class Shop:
    """The API, a client of it, and what lies behind it."""

    app: FastAPI
    client: httpx2.AsyncClient
    parts: Parts
    engine: FakeEngine

    def exchange(self, **parts: Any) -> None:
        """Put something else in the place of some parts."""
        self.parts = self.app.state.parts = replace(self.parts, **parts)

    async def order(self, who: dict[str, str] = MINJI, **changes: Any) -> httpx2.Response:
        """Place an order under a key of its own."""
        headers = {"Idempotency-Key": f"key-{next(_keys)}", **who}
        return await self.client.post("/orders", json={**ORDER, **changes}, headers=headers)

    async def ordered(self, who: dict[str, str] = MINJI) -> str:
        """The id of a new order."""
        answer = await self.order(who)
        assert answer.status_code == 202, answer.text
        return answer.json()["orderId"]

    async def record(
        self, order_id: str, state: OrderState, *events: EventType, detail: dict[str, str] | None = None
    ) -> None:
        await record(self.parts.book, order_id, state, *events, detail=detail)

    async def count(self) -> int:
        """How many orders there are."""
        return len(await self.parts.book.list(limit=1000))


class Racing(FakeEngine):
    """An engine whose workflow ended a moment ago: another message won, and it refuses the rest."""

    final: OrderState = CANCELED
    event: EventType = EventType.ORDER_CANCELED

    async def cancel(
        self,
        order_id: str,
        *,
        by: Literal["customer", "operator"],
        actor: str,
        if_version: int | None = None,
        note: str = "",
    ) -> None:
        await record(self.book, order_id, self.final, self.event)
        raise TooLate(order_id)

    async def delivered(self, order_id: str) -> None:
        await record(self.book, order_id, self.final, self.event)
        raise NotDeliverable(order_id)


def is_problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document that an answer is; everything that all of them have in common is checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-language"] in ("ko", "en")
    assert "accept-language" in answer.headers["vary"].lower()
    assert answer.headers["cache-control"] == "no-store"
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    body: dict[str, Any] = answer.json()
    assert body.keys() - {"errors"} == {"type", "title", "status", "detail", "code", "requestId"}
    assert (body["code"], body["status"], body["type"]) == (code, status, f"/problems/{code}")
    assert body["requestId"] == answer.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    return body
