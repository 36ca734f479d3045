"""What the routes need, built once by the composition root."""

from dataclasses import dataclass
from typing import Literal, Protocol

from fastapi import Request

from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.gateway.tokens import Tokens
from services.marketing.coupons import Coupons
from services.order.acceptance import Acceptance
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.catalogue import Catalogue
from services.order.dispatch import Dispatcher
from services.order.reconciliation_reports import ReconciliationReports
from services.order.tables import Order
from services.shared.database import Database


class Engine(Protocol):
    """What the routes ask of the workflow engine (`workflows/client.py`)."""

    async def payment_known(self, order: Order, timeout: float) -> None: ...
    async def cancel(
        self,
        order_id: str,
        *,
        by: Literal["customer", "operator"],
        actor: str,
        if_version: int | None = None,
        note: str = "",
    ) -> None: ...
    async def delivered(self, order_id: str) -> None: ...
    async def settle(
        self, order_id: str, *, step: str, action: Literal["retry", "skip"], actor: str, reason: str
    ) -> None: ...
    async def waive_coupon(self, order_id: str, *, actor: str, reason: str) -> None: ...
    async def clear_attention(self, order_id: str, *, actor: str, reason: str, about: str = "") -> None: ...


class Reconciliations(Protocol):
    """What the routes ask of the reconciliation's schedule (`workflows/reconciling.py`)."""

    async def trigger(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The services behind the API."""

    order_database: Database
    catalogue: Catalogue
    admission: Admission
    acceptance: Acceptance
    book: OrderBook
    dispatcher: Dispatcher
    deliveries: Deliveries
    warehouse: Warehouse
    coupons: Coupons
    engine: Engine
    reconciliations: Reconciliations
    reports: ReconciliationReports
    tokens: Tokens


async def parts(request: Request) -> Parts:
    """A route's dependency on the app's parts."""
    return request.app.state.parts
