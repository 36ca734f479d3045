"""A shop in one process: the real engine, the teams' real services over real databases, and the payment simulator."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.contract import DELIVERY_QUEUE, MARKETING_QUEUE, ORDER_QUEUE
from activities.delivery import DeliveryActivities
from activities.marketing import MarketingActivities
from activities.order import OrderActivities
from activities.reconciliation import ReconciliationActivities
from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.marketing.coupons import Coupons
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.circuit import AdmissionRules
from services.order.payments import Payments
from services.order.provider import StripeProvider
from services.order.reconciliation import Reconciler
from services.order.reconciliation_reports import ReconciliationReports
from services.order.statuses import OrderStatus
from services.order.tables import Order, OrderEvent, OrderView, Reconciliation, ReconciliationDifference
from services.shared.clock import utc_now
from services.shared.database import Database, insert_if_new
from services.shared.ids import new_order_id
from services.shared.settings import PaymentSettings
from tests.orders import an_order
from tests.saga.teams import Teams, real_teams
from workflows.client import OrderEngine
from workflows.order import OrderWorkflow
from workflows.reconciliation import Reconcile, ReconciliationWorkflow
from workflows.reconciling import EngineBooks

PRODUCT, QTY, AMOUNT = "tea", 2, 2000
REST = timedelta(seconds=1)
_PATIENCE = 60.0
_runs = count(1)


@dataclass
class Shop:
    """What a test does to a shop, and what it reads of it."""

    client: Client
    engine: OrderEngine
    teams: Teams
    book: OrderBook
    provider: StripeProvider
    reports: ReconciliationReports
    ledger: Path

    async def order(self, status: OrderStatus, method: str = "pm_card_visa") -> str:
        """An order that stands there."""
        order = an_order(
            new_order_id(), qty=QTY, amount=AMOUNT, user_id="goodman", product_id=PRODUCT, payment_method=method,
            started_at=utc_now(),
        )  # fmt: skip
        await self._accept(order)
        await self.engine.start(order)
        if status in (OrderStatus.DELIVERED, OrderStatus.ORDER_CANCELED, OrderStatus.DELIVERY_STARTED):
            await self.reads(order.order_id, OrderStatus.DELIVERY_STARTED)
        if status is OrderStatus.DELIVERED:
            await self.engine.delivered(order.order_id)
        if status is OrderStatus.ORDER_CANCELED:
            await self.engine.cancel(order.order_id, by="customer", actor="goodman")
        await self.reads(order.order_id, status)
        if status.final:
            await self.client.get_workflow_handle(order.order_id).result()
        return order.order_id

    async def _accept(self, order: Order) -> None:
        now = order.order_date
        view = OrderView(
            order_id=order.order_id, user_id=order.user_id, order_status=OrderStatus.ORDER_RECEIVED,
            pay_status="NotPaid", delivery_status="None", updated_at=now,
        )  # fmt: skip
        event = OrderEvent(order_id=order.order_id, version=1, type=OrderStatus.ORDER_RECEIVED, at=now)

        async def work(session: AsyncSession) -> None:
            for row in (order, view, event):
                await insert_if_new(session, row)

        await self.teams.orders.write(work)

    async def reads(self, order_id: str, status: OrderStatus) -> None:
        """Wait until the order reads so."""
        await self.until(order_id, lambda view: view.order_status == status)

    async def until(self, order_id: str, so: Callable[[OrderView], bool]) -> None:
        """Wait until the order's view is so."""
        async with asyncio.timeout(_PATIENCE):
            while not so((await self.book.get(order_id)).view):  # noqa: ASYNC110  (there is no event to await)
                await asyncio.sleep(0.05)

    async def sql(self, database: Database, statement: str, **values: Any) -> None:
        """Spoil a team's books behind its back."""

        async def work(session: AsyncSession) -> None:
            await (await session.connection()).execute(text(statement), values)

        await database.write(work)

    async def charge(self, order_id: str, amount: int = AMOUNT) -> None:
        """Charge an order beside its payment, as nobody in the shop would."""
        intent = await self.provider.create_intent(order_id=order_id, amount=amount, currency="KRW")
        await self.provider.confirm(order_id=order_id, intent_id=intent.intent_id, payment_method="pm_card_visa")

    def spoil_ledger(self, statement: str, order_id: str) -> None:
        """Spoil the provider's books."""
        with sqlite3.connect(self.ledger) as books:
            assert books.execute(f"UPDATE intents SET {statement} WHERE order_id = ?", (order_id,)).rowcount == 1
        books.close()

    def forget_keys(self, order_id: str) -> None:
        """The provider forgets which calls it has answered for an order."""
        with sqlite3.connect(self.ledger) as books:
            books.execute("DELETE FROM answers WHERE key LIKE ?", (f"{order_id}:%",))
        books.close()

    def intent_of(self, order_id: str) -> str:
        """The id of an order's only payment intent."""
        with sqlite3.connect(self.ledger) as books:
            [(intent_id,)] = books.execute("SELECT id FROM intents WHERE order_id = ?", (order_id,)).fetchall()
        books.close()
        return intent_id

    async def forget_workflow(self, order_id: str) -> None:
        """The engine loses a workflow."""
        await self.client.workflow_service.delete_workflow_execution(
            DeleteWorkflowExecutionRequest(
                namespace=self.client.namespace, workflow_execution=WorkflowExecution(workflow_id=order_id)
            )
        )
        async with asyncio.timeout(_PATIENCE):
            while [one async for one in self.client.list_workflows(f"WorkflowId = '{order_id}'")]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def reconcile(self, **changes: Any) -> tuple[Reconciliation, list[ReconciliationDifference]]:
        """Run the reconciliation once all rest; its report."""
        await asyncio.sleep(REST.total_seconds() + 1)  # the provider tells the time to the second
        run_id = await self.client.execute_workflow(
            ReconciliationWorkflow.run,
            Reconcile(rest=REST, **changes),
            id=f"reconciliation-{next(_runs)}",
            task_queue=ORDER_QUEUE,
        )
        return await self.reports.get(run_id), [*await self.reports.differences(run_id, limit=1000)]


@asynccontextmanager
async def a_shop(client: Client, directory: Path) -> AsyncGenerator[Shop]:
    """A shop that sells tea, with all its workers."""
    async with AsyncExitStack() as stack:
        teams = await stack.enter_async_context(real_teams(directory, PRODUCT))
        provider = StripeProvider(PaymentSettings(url=teams.simulator, key=SecretStr("sk_test_street12")))
        stack.push_async_callback(provider.close)
        book, reports = OrderBook(teams.orders), ReconciliationReports(teams.orders)
        engine = OrderEngine(client, payment_budget=timedelta(hours=1), delivery_deadline=timedelta(days=7))
        reconciler = Reconciler(teams.orders, book, provider, EngineBooks(client, engine))
        orders = OrderActivities(Payments(teams.orders, provider, Admission(AdmissionRules())), book)
        goods, coupons = (
            DeliveryActivities(Deliveries(teams.delivery), Warehouse(teams.delivery)),
            MarketingActivities(Coupons(teams.marketing)),
        )
        comparing = ReconciliationActivities(reconciler, reports)
        workers: list[tuple[str, list[Callable[..., Any]], dict[str, Any]]] = [
            (
                ORDER_QUEUE,
                [orders.pay_order, orders.refund_payment, orders.record_status, orders.take_turn, *comparing.all],
                {
                    "workflows": [OrderWorkflow, ReconciliationWorkflow],
                    "workflow_runner": UnsandboxedWorkflowRunner(),
                },
            ),
            (
                DELIVERY_QUEUE,
                [
                    *(goods.start_delivery, goods.cancel_delivery, goods.adjust_stock, goods.restore_stock),
                    *(goods.complete_delivery, goods.summarise_deliveries, goods.summarise_stock),
                ],
                {},
            ),
            (MARKETING_QUEUE, [coupons.issue_coupon, coupons.revoke_coupon, coupons.summarise_coupons], {}),
        ]
        for queue, activities, options in workers:
            await stack.enter_async_context(Worker(client, task_queue=queue, activities=activities, **options))
        yield Shop(client, engine, teams, book, provider, reports, directory / "ledger.db")
