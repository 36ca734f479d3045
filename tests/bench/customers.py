"""The shop's customers, and those of the bare workflows: they order, and see what becomes of it."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeVar

import aiohttp
from sqlmodel import col, func, select
from temporalio.client import Client
from temporalio.runtime import Runtime

from deploy.issuer import Issuer
from deploy.stack import StackSettings
from services.delivery.stock import Warehouse
from services.gateway.stock_hint import StockHint
from services.order.acceptance import Acceptance, NewOrder
from services.order.admission import Admission
from services.order.circuit import AdmissionRules
from services.order.dispatch import Inbox
from services.order.statuses import OrderStatus
from services.order.tables import Order, OrderView
from services.shared.database import AsyncSession, Database
from services.shared.settings import DatabaseSettings
from tests.bench.bare import QUEUES, BareWorkflow, EmptyWorkflow
from tests.bench.load import ORDER, WHO
from tests.bench.stage import NO_LIMIT, PRODUCT_ID, Stage
from workflows.client import OrderEngine, connect
from workflows.codec import history_codec

T = TypeVar("T")
LOOK_SECONDS, BUSY_LOOK_SECONDS = 0.02, 0.05
"""How often customers look where their orders stand: a few, and many. Looking takes CPU time from the shop."""
_FEW = 4
_IDLE_SECONDS = 2.0  # a connection is given up before the API does, which would meet the next order
_LEASE = timedelta(hours=1)  # nobody but the measurement starts its orders
_TOGETHER = 50
_PATIENCE_SECONDS = 900.0
_REQUEST = NewOrder(
    product_id=PRODUCT_ID,
    qty=1,
    username="굿맨",
    address="서울",
    phone_no="010-1234-5678",
    payment_method="pm_card_visa",
)


class Customers:
    """`front` and `shelf` are what orders are accepted from in this process, `window` is where they are seen."""

    def __init__(self, client: Client, http: aiohttp.ClientSession, url: str) -> None:
        self.client = client
        self.front, self.window = (Database(DatabaseSettings().url("order")) for _ in range(2))
        self.shelf = Database(DatabaseSettings().url("delivery"))
        self.engine = OrderEngine(
            client,
            payment_budget=timedelta(hours=24),
            delivery_deadline=timedelta(days=7),
            rpc_timeout=timedelta(seconds=60),
        )
        self.under_way: list[str] = []
        """The orders that have come to `DeliveryStarted`, and not to their customers."""
        anything_goes = AdmissionRules(max_pending=NO_LIMIT, slow=_LEASE)
        hint = StockHint(Warehouse(self.shelf))
        self._acceptance = Acceptance(self.front, Admission(anything_goes), lease=_LEASE, on_hand=hint.on_hand)
        self._inbox = Inbox(self.front, lease=_LEASE)
        self._http, self._url = http, f"{url}/orders"
        self._token = Issuer.of(StackSettings().data_dir).token(WHO)
        self._awaited: dict[str, asyncio.Future[None]] = {}

    async def accept(self, count: int) -> list[Order]:
        """So many accepted orders that have no workflow yet."""
        return [
            one.order
            for some in _cut(range(count), _TOGETHER)
            for one in await asyncio.gather(
                *(
                    self._acceptance.accept(user_id=WHO, idempotency_key=uuid.uuid4().hex, request=_REQUEST)
                    for _ in some
                )
            )
        ]

    async def go_through(self, order: Order) -> float:
        """Start an order's workflow, and read that its delivery has started. Milliseconds."""
        began = time.perf_counter()
        await self.engine.start(order)
        await self._inbox.mark_started(order.order_id)
        return await self._delivery_started(order.order_id, began)

    async def order(self) -> str:
        """Order over HTTP, and be answered. The order's id."""
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Idempotency-Key": uuid.uuid4().hex,
        }
        async with self._http.post(self._url, data=ORDER, headers=headers) as answer:
            if answer.status != 202:
                raise RuntimeError(f"An order was answered {answer.status}: {await answer.text()}")
            return (await answer.json())["orderId"]

    async def order_and_wait(self) -> float:
        """Order over HTTP, and read that the delivery has started. Milliseconds."""
        began = time.perf_counter()
        return await self._delivery_started(await self.order(), began)

    async def go_through_bare(self) -> float:
        """Run a bare workflow to its end. Milliseconds."""
        return await self._run(BareWorkflow.run)

    async def go_through_empty(self) -> float:
        """Run an empty workflow to its end. Milliseconds."""
        return await self._run(EmptyWorkflow.run)

    async def be_delivered(self) -> None:
        """Hand over everything that is under way, so that nothing of it is open any more."""
        gone, self.under_way = self.under_way, []
        for some in _cut(gone, _TOGETHER):
            await asyncio.gather(*(self._be_delivered(order_id) for order_id in some))

    async def how_many(self, status: OrderStatus, until: str) -> int:
        """How many orders of those up to this one stand there."""
        statement = select(func.count()).where(col(OrderView.order_status) == status, col(OrderView.order_id) <= until)

        async def work(session: AsyncSession) -> int:
            return (await session.exec(statement)).one()

        return await self.window.read(work)

    async def look(self) -> None:
        """Look at the status view, for all that wait, until cancelled. Who waits is told what went wrong."""
        while True:
            if self._awaited:
                try:
                    for order_id in await self.window.read(self._started):
                        self._awaited.pop(order_id).set_result(None)
                except Exception as error:
                    while self._awaited:
                        self._awaited.popitem()[1].set_exception(error)
            await asyncio.sleep(LOOK_SECONDS if len(self._awaited) <= _FEW else BUSY_LOOK_SECONDS)

    async def _started(self, session: AsyncSession) -> Sequence[str]:
        statement = select(OrderView.order_id).where(
            col(OrderView.order_id).in_([*self._awaited]), OrderView.order_status == OrderStatus.DELIVERY_STARTED
        )
        return (await session.exec(statement)).all()

    async def _delivery_started(self, order_id: str, began: float) -> float:
        seen = self._awaited[order_id] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await seen
        self.under_way.append(order_id)
        return 1000 * (time.perf_counter() - began)

    async def _be_delivered(self, order_id: str) -> None:
        await self.engine.delivered(order_id)
        await self.client.get_workflow_handle(order_id).result()

    async def _run(self, workflow: Callable[..., Awaitable[None]]) -> float:
        began = time.perf_counter()
        await self.client.execute_workflow(workflow, id=f"bare-{uuid.uuid4().hex}", task_queue=QUEUES["order"])
        return 1000 * (time.perf_counter() - began)


@asynccontextmanager
async def customers(here: Stage, runtime: Runtime | None = None) -> AsyncGenerator[Customers]:
    """Customers of the shop on the stage that was built last."""
    client = await connect(codec=history_codec(here.shop.codec), runtime=runtime)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS)) as http:
        who = Customers(client, http, here.shop.urls.api)
        looking = asyncio.create_task(who.look())
        try:
            yield who
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            for database in (who.front, who.shelf, who.window):
                await database.close()


def _cut(things: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (things[first : first + size] for first in range(0, len(things), size))
