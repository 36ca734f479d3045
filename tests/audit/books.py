"""Everything that can be read from a shop: three databases, the provider's ledger, the engine, the clients' log.

They cannot be read at one moment, so they are read in an order in which nothing that is under way looks wrong for
long: first what clients were told, then the engine, then the teams from the last step of the saga to the first. Each
database is read in one transaction.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx2
from sqlalchemy import ColumnElement, inspect, make_url, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from services.delivery.stock import MovementKind
from services.delivery.tables import Delivery, Stock, StockMovement
from services.marketing.tables import Coupon
from services.order.tables import IdempotencyKey, Order, OrderEvent, OrderView, Payment
from services.shared.clock import utc_now
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import PoolSettings, Team
from tests.audit.acknowledgements import Acknowledgement, NotALog, read
from tests.audit.case import Case, LedgerEntry, Workflow
from workflows.journal import NEEDS_ATTENTION, ORDER_STATUS

Row = TypeVar("Row", bound=SQLModel)
_READ_SECONDS = 120.0
_LEDGER_SECONDS = 30.0
_PAGE = 1000
_OF_ORDERS = (MovementKind.SALE, MovementKind.RESTORE)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where a shop's books are. `settled` says that nothing is under way: who still waits then waits for a person."""

    databases: Mapping[Team, str]
    """The SQLAlchemy URL of each team's database."""
    ledger_url: str
    """Where the payment simulator answers."""
    temporal_address: str
    acknowledgements: Path | None = None
    """What a load client noted, if one did."""
    settled: bool = True


class SourceSilent(Exception):
    """A source cannot be read; the message says which, why, and what to do about it."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """What there is about one product."""

    product_id: str
    stocks: Sequence[Stock]
    movements: Sequence[StockMovement]
    cases: Sequence[Case]
    """The accepted orders for it."""


@dataclass(frozen=True, kw_only=True)
class Books:
    """What was read. `forgotten_before` is when a workflow must have ended for the engine to have deleted it."""

    orders: Sequence[Order] = ()
    views: Sequence[OrderView] = ()
    events: Sequence[OrderEvent] = ()
    keys: Sequence[IdempotencyKey] = ()
    payments: Sequence[Payment] = ()
    coupons: Sequence[Coupon] = ()
    deliveries: Sequence[Delivery] = ()
    stocks: Sequence[Stock] = ()
    movements: Sequence[StockMovement] = ()
    ledger: Sequence[LedgerEntry] = ()
    workflows: Sequence[Workflow] = ()
    acknowledgements: Sequence[Acknowledgement] = ()
    forgotten_before: datetime | None = None
    settled: bool = True

    @cached_property
    def cases(self) -> Mapping[str, Case]:
        """Everything about each order id that occurs anywhere."""
        cases: dict[str, Case] = {}

        def of(order_id: str) -> Case:
            if (case := cases.get(order_id)) is None:
                case = cases[order_id] = Case(order_id=order_id, settled=self.settled)
            return case

        for order in self.orders:
            of(order.order_id).orders.append(order)
        for view in self.views:
            of(view.order_id).views.append(view)
        for event in sorted(self.events, key=lambda event: event.version):
            of(event.order_id).events.append(event)
        for key in self.keys:
            of(key.order_id).keys.append(key)
        for payment in self.payments:
            of(payment.order_id).payments.append(payment)
        for coupon in self.coupons:
            of(coupon.order_id).coupons.append(coupon)
        for delivery in self.deliveries:
            of(delivery.order_id).deliveries.append(delivery)
        for movement in self.movements:
            if movement.kind in _OF_ORDERS:
                of(movement.reference).movements.append(movement)
        for entry in self.ledger:
            of(entry.order_id).ledger.append(entry)
        for workflow in self.workflows:
            of(workflow.order_id).workflows.append(workflow)
        for note in self.acknowledgements:
            of(note.order_id).told.append(note)
        for case in cases.values():
            if self.forgotten_before is not None and case.views:
                case.forgotten = case.view.updated_at < self.forgotten_before
        return cases

    @cached_property
    def accepted(self) -> Sequence[Case]:
        """The orders that were accepted."""
        return [case for case in self.cases.values() if case.orders]

    @cached_property
    def products(self) -> Sequence[Product]:
        """Every product that is stocked, was moved or was ordered."""
        stocks = _grouped((stock.product_id, stock) for stock in self.stocks)
        movements = _grouped((movement.product_id, movement) for movement in self.movements)
        cases = _grouped((case.order.product_id, case) for case in self.accepted)
        return [
            Product(
                product_id=product_id,
                stocks=stocks.get(product_id, []),
                movements=movements.get(product_id, []),
                cases=cases.get(product_id, []),
            )
            for product_id in sorted(stocks.keys() | movements.keys() | cases.keys())
        ]


async def read_books(sources: Sources) -> Books:
    """Read everything once. Raises `SourceSilent`."""
    acknowledgements = _read_log(sources.acknowledgements) if sources.acknowledgements else []
    workflows, forgotten_before = await _read_engine(sources.temporal_address)
    deliveries, stocks, movements = await _read_tables(sources, "delivery", Delivery, Stock, StockMovement)
    [coupons] = await _read_tables(sources, "marketing", Coupon)
    ledger = await _read_ledger(sources.ledger_url)
    orders, views, events, keys, payments = await _read_tables(
        sources, "order", Order, OrderView, OrderEvent, IdempotencyKey, Payment
    )
    return Books(
        orders=cast("list[Order]", orders),
        views=cast("list[OrderView]", views),
        events=cast("list[OrderEvent]", events),
        keys=cast("list[IdempotencyKey]", keys),
        payments=cast("list[Payment]", payments),
        coupons=cast("list[Coupon]", coupons),
        deliveries=cast("list[Delivery]", deliveries),
        stocks=cast("list[Stock]", stocks),
        movements=cast("list[StockMovement]", movements),
        ledger=ledger,
        workflows=workflows,
        acknowledgements=acknowledgements,
        forgotten_before=forgotten_before,
        settled=sources.settled,
    )


def _read_log(path: Path) -> list[Acknowledgement]:
    try:
        return read(path)
    except NotALog as error:
        raise SourceSilent(f"{error}: name the log that a load client wrote.") from error
    except OSError as error:
        raise SourceSilent(f"The log {path} cannot be read ({error.strerror}): name one that can.") from error


async def _read_tables(sources: Sources, team: Team, *tables: type[SQLModel]) -> list[list[Any]]:
    """The rows of some tables of a team, as they stood at one moment."""
    where = _where(team, sources.databases[team])
    pool = PoolSettings(size=1, overflow=0, transaction_seconds=_READ_SECONDS)
    database = Database(sources.databases[team], pool)

    async def work(session: AsyncSession) -> list[list[Any]]:
        connection = await session.connection()
        if connection.dialect.name == "mysql":  # of this transaction: every statement sees what the first one saw
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        # Rows, not objects: of rows with the same key, which are looked for here, the session would make one object.
        return [list(await connection.execute(select(*_columns(table)))) for table in tables]

    try:
        return await database.read(work)
    except (DatabaseUnavailable, SQLAlchemyError) as error:
        why = str(error.orig if isinstance(error, DBAPIError) else error).splitlines()[0]
        raise SourceSilent(f"{where} cannot be read ({why}): does it run, and is it the shop's?") from error
    finally:
        await database.close()


def _where(team: Team, url: str) -> str:
    address = make_url(url)
    where = f"The {team} team's database ({address.render_as_string(hide_password=True)})"
    if address.get_backend_name() == "sqlite" and not Path(address.database or "").exists():  # it would be made
        raise SourceSilent(f"{where} is not there: set STREET12_{team.upper()}_DATABASE_URL as the shop has it.")
    return where


def _columns(table: type[SQLModel]) -> Iterable[ColumnElement[Any]]:
    return inspect(table).local_table.columns


async def _read_ledger(url: str) -> list[LedgerEntry]:
    try:
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=_LEDGER_SECONDS) as http:
            rows = (await http.get("/ledger")).raise_for_status().json()["items"]
    except (httpx2.HTTPError, ValueError, KeyError) as error:
        raise SourceSilent(f"The payment simulator's ledger at {url}/ledger does not answer ({error!r}).") from error
    return [
        LedgerEntry(
            order_id=row["orderId"],
            charged=row["charged"],
            refunded=row["refunded"],
            currency=row["currency"],
            charges=row["charges"],
            refunds=row["refunds"],
        )
        for row in rows
    ]


async def _read_engine(address: str) -> tuple[list[Workflow], datetime]:
    """Every order's workflow that the engine still knows, and when one must have ended for it not to be among them."""
    try:
        async with asyncio.timeout(_READ_SECONDS):
            client = await Client.connect(address)
            request = DescribeNamespaceRequest(namespace=client.namespace)
            retention = (await client.workflow_service.describe_namespace(request)).config
            forgotten_before = utc_now() - retention.workflow_execution_retention_ttl.ToTimedelta()
            runs = [run async for run in client.list_workflows("WorkflowType = 'OrderWorkflow'", page_size=_PAGE)]
            # One that was taken up again, because it had been terminated or to be flagged, is what its last run is.
            last = {run.id: run for run in sorted(runs, key=lambda run: run.start_time)}
            workflows = [
                Workflow(
                    order_id=run.id,
                    status=run.status.name if run.status else "UNKNOWN",
                    order_status=run.typed_search_attributes.get(ORDER_STATUS),
                    needs_attention=run.typed_search_attributes.get(NEEDS_ATTENTION),
                )
                for run in last.values()
            ]
    except (RPCError, RuntimeError, TimeoutError) as error:
        raise SourceSilent(f"The Temporal server at {address} does not answer ({error}).") from error
    return workflows, forgotten_before


def _grouped(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for key, one in pairs:
        groups.setdefault(key, []).append(one)
    return groups
