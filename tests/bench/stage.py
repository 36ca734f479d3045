"""What the measurements run on: a shop in a temporary directory, made of the same programs as `make run`."""

import asyncio
import os
import sys
import tempfile
import uuid
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

from sqlmodel import col, select
from temporalio.client import Client
from temporalio.runtime import Runtime

from deploy.local import Shop
from deploy.stack import HOST, StackSettings, take_ports
from deploy.supervisor import Program, Supervisor, together
from services.delivery.stock import Warehouse
from services.order.acceptance import Acceptance, NewOrder
from services.order.admission import Admission
from services.order.circuit import AdmissionRules
from services.order.dispatch import Inbox
from services.order.statuses import OrderStatus
from services.order.tables import Order, OrderView
from services.shared.database import AsyncSession, Database
from services.shared.settings import TEAMS, DatabaseSettings, Team
from tests.bench.bare import QUEUES, BareWorkflow
from workflows.client import OrderEngine, connect

Kind = Literal["mysql", "sqlite"]
PRODUCT_ID = "1001"
_PLENTY = 10_000_000
_NO_LIMIT = "1000000/second"
_LOOK_SECONDS = 0.02
_OWN = ("STREET12_", "TEMPORAL_")
_LEASE = timedelta(hours=1)  # nobody but the measurement starts its orders


@dataclass(frozen=True)
class Stage:
    """An engine, a payment simulator and migrated databases. No worker yet."""

    shop: Shop
    supervisor: Supervisor

    async def start_workers(self) -> None:
        """A worker process for each team of the shop."""
        await self.supervisor.start(*map(self.shop.worker, TEAMS))

    async def start_bare_workers(self) -> None:
        """As many for the bare workflow."""
        await self.supervisor.start(*map(self._bare_worker, TEAMS))

    def _bare_worker(self, team: Team) -> Program:
        shops = self.shop.worker(team)
        [port] = take_ports({"": 0}).values()
        return replace(
            shops,
            name=f"bare-{team}",
            command=[sys.executable, "-m", "tests.bench.bare_worker", "--team", team],
            environment={**shops.environment, "STREET12_WORKER_HEALTH_PORT": str(port)},
            ready_url=f"http://{HOST}:{port}/readyz",
        )


@asynccontextmanager
async def stage(kind: Kind = "sqlite") -> AsyncGenerator[Stage]:
    """A stage of its own, with the teams' databases on SQLite or MySQL, whatever the person's shell is set up for.

    In the end it is gone with all that it kept.
    """
    with tempfile.TemporaryDirectory(prefix="street12-bench-") as directory, _clean_environment():
        data_dir = Path(directory)
        (data_dir / "run").mkdir()
        settings = StackSettings(api_port=0, temporal_port=0, temporal_ui_port=0, payment_port=0, database=kind)
        shop = Shop(settings, DatabaseSettings(data_dir=data_dir), data_dir)
        supervisor = Supervisor(_complain)
        os.environ |= {  # for what runs in this process
            "TEMPORAL_ADDRESS": shop.urls.temporal,
            "TEMPORAL_CONFIG_FILE": os.devnull,
            "STREET12_DATA_DIR": directory,
            "STREET12_PAYMENT_URL": shop.urls.payments,
            "STREET12_PAYMENT_KEY": "sk_test_bench",
            "STREET12_DISPATCH_SECONDS": "3600",
            "STREET12_RATE_CALLER": _NO_LIMIT,
        }
        try:
            await together(
                supervisor.start(shop.temporal()),
                supervisor.start(shop.payments()),
                shop.open_databases(supervisor),
            )
            os.environ |= shop.database_urls
            delivery = Database(DatabaseSettings().url("delivery"))
            await Warehouse(delivery).move(product_id=PRODUCT_ID, qty=_PLENTY, reason="bench", reference="bench")
            await delivery.close()
            yield Stage(shop, supervisor)
        finally:
            await supervisor.stop(asyncio.Event())


class Customers:
    """Place orders and see what becomes of them. `front` is where orders are accepted, `window` where they are seen."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.front = Database(DatabaseSettings().url("order"))
        self.window = Database(DatabaseSettings().url("order"))
        self.engine = OrderEngine(
            client,
            payment_budget=timedelta(hours=24),
            delivery_deadline=timedelta(days=7),
            rpc_timeout=timedelta(seconds=60),
        )
        self._acceptance = Acceptance(self.front, Admission(AdmissionRules(max_pending=_PLENTY)), lease=_LEASE)
        self._inbox = Inbox(self.front, lease=_LEASE)
        self._awaited: dict[str, asyncio.Future[None]] = {}

    async def accept(self, count: int) -> list[Order]:
        """So many accepted orders that have no workflow yet."""
        request = NewOrder(
            product_id=PRODUCT_ID,
            qty=1,
            username="굿맨",
            address="서울",
            phone_no="010-1234-5678",
            payment_method="pm_card_visa",
        )
        accepted = [
            await self._acceptance.accept(user_id="bench", idempotency_key=uuid.uuid4().hex, request=request)
            for _ in range(count)
        ]
        return [one.order for one in accepted]

    async def go_through(self, order: Order) -> None:
        """Start an order's workflow and wait until its customer reads `DeliveryStarted`."""
        under_way = self._awaited[order.order_id] = asyncio.get_running_loop().create_future()
        await self.engine.start(order)
        await self._inbox.mark_started(order.order_id)
        await under_way

    async def go_through_bare(self) -> None:
        """Run a bare workflow to its end."""
        await self.client.execute_workflow(BareWorkflow.run, id=f"bare-{uuid.uuid4().hex}", task_queue=QUEUES["order"])

    async def look(self) -> None:
        """Look at the status view, for all that wait, until cancelled."""
        while True:
            if self._awaited:
                for order_id in await self.window.read(self._under_way):
                    self._awaited.pop(order_id).set_result(None)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _under_way(self, session: AsyncSession) -> Sequence[str]:
        statement = select(OrderView.order_id).where(
            col(OrderView.order_id).in_([*self._awaited]), OrderView.order_status == OrderStatus.DELIVERY_STARTED
        )
        return (await session.exec(statement)).all()


@asynccontextmanager
async def customers(runtime: Runtime | None = None) -> AsyncGenerator[Customers]:
    """Customers of the shop on the stage."""
    client = await connect(runtime=runtime)
    who = Customers(client)
    looking = asyncio.create_task(who.look())
    try:
        yield who
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await who.front.close()
        await who.window.close()


def cpu_seconds(pids: Iterable[int]) -> float:
    """The CPU time that these processes have used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _complain(tag: str, line: str) -> None:
    if tag == "mariadb":
        return  # it warns of its own administrator
    if "warn" in line.lower() or "error" in line.lower() or tag == "shop":
        print(f"{tag}: {line}", file=sys.stderr)


@contextmanager
def _clean_environment() -> Generator[None]:
    before = dict(os.environ)
    for name in before:
        if name.startswith(_OWN):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
