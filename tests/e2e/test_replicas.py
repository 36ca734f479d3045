"""`api.py` several times on one order database, with no shop behind it: who is taken is decided for all of them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import httpx2
import pytest
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from deploy.stack import HOST, take_ports
from services.order.book import OrderBook
from services.order.statuses import EventType, OrderState, OrderStatus, TimelineEntry
from services.order.tables import IdempotencyKey, OrderEvent, OrderView
from services.order.tables import Order as OrderRow
from services.shared.database import Database
from services.shared.migrations import upgrade
from services.shared.settings import TEAMS, PoolSettings
from tests.e2e.shop import NO_RATE_LIMIT, OPERATOR, Wish, assert_paused, eventually
from tests.issuer import running_issuer
from tests.mariadb import need_mariadb, running_mariadb
from tests.programs import started

PROCESSES, LIMIT = 4, 3
CUSTOMERS, ANSWERS, ACCEPTED = 24, 400, 40


@dataclass(frozen=True)
class Replicas:
    """API processes, and the database that they share."""

    https: list[httpx2.AsyncClient]
    database: Database

    async def product(self) -> str:
        """A product to order."""
        product_id = "replicated"
        body = {"productName": "시험 상품", "productPrice": 1_000}
        (await self.https[0].put(f"/products/{product_id}", json=body, headers=OPERATOR)).raise_for_status()
        return product_id

    async def post(self, process: int, wish: Wish) -> httpx2.Response:
        return await self.https[process % PROCESSES].post("/orders", json=wish.body, headers=wish.headers)

    async def in_flight(self) -> int:
        """How many orders read OrderReceived, told by one query."""
        waiting = select(func.count()).where(OrderView.order_status == OrderStatus.ORDER_RECEIVED)

        async def work(session: AsyncSession) -> int:
            return (await session.exec(waiting)).one()

        return await self.database.read(work)

    async def pay_oldest(self) -> None:
        """What the workflow of the order that has waited longest would do."""
        book = OrderBook(self.database)
        [*_, oldest] = await book.list(order_status=OrderStatus.ORDER_RECEIVED, limit=100)
        entry = TimelineEntry(version=2, type=EventType.ORDER_PLACED, at=datetime.now(UTC))
        state = OrderState(order_status=OrderStatus.ORDER_PLACED)
        await book.record(order_id=oldest.order.order_id, state=state, timeline=[entry])


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
async def replicas(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Replicas]:
    data_dir = tmp_path_factory.mktemp("replicas")
    async with AsyncExitStack() as stack:
        url = f"sqlite+aiosqlite:///{data_dir}/order.db"
        settings = {"STREET12_DATA_DIR": str(data_dir)}
        for team in TEAMS:
            await asyncio.to_thread(upgrade, f"sqlite+aiosqlite:///{data_dir / team}.db", team)
        if request.param == "mysql":
            await need_mariadb(request.config)
            server = await stack.enter_async_context(running_mariadb(data_dir / "mariadb"))
            access = await server.create_database("street12_order")
            await asyncio.to_thread(upgrade, access.owner, "order")
            url = settings["STREET12_ORDER_DATABASE_URL"] = access.user
        database = Database(url, PoolSettings(transaction_seconds=30))
        stack.push_async_callback(database.close)
        https = await asyncio.gather(*(stack.enter_async_context(running_api(settings)) for _ in range(PROCESSES)))
        yield Replicas(https, database)


async def test_no_more_orders_than_may_be_are_ever_in_flight_over_all_processes(replicas: Replicas) -> None:
    product = await replicas.product()
    keys = count(1)
    accepted: dict[tuple[str, str], str] = {}
    refused: set[tuple[str, str]] = set()

    def enough() -> bool:
        return len(accepted) >= ACCEPTED and len(accepted) + len(refused) >= ANSWERS

    async def customer(number: int) -> None:
        while not enough():
            wish = Wish(product, user=f"hasty-{number}", key=f"hasty-{(attempt := next(keys))}")
            assert attempt < 100 * ANSWERS, "nobody is taken any more"
            answer = await replicas.post(attempt, wish)
            if answer.status_code == 202:
                accepted[wish.user, wish.key] = answer.json()["orderId"]
            else:
                assert_paused(answer)
                refused.add((wish.user, wish.key))

    async def till() -> list[int]:
        """Takes one payment at a time, but only with a full house; the numbers of orders in flight that it saw.

        Nobody else takes an order out, so one too many cannot have come and gone between two looks.
        """
        seen = [await replicas.in_flight()]
        while not enough():
            if seen[-1] >= LIMIT:
                await replicas.pay_oldest()
            seen.append(await replicas.in_flight())
        return seen

    async with asyncio.TaskGroup() as everybody:
        watching = everybody.create_task(till())
        for number in range(CUSTOMERS):
            everybody.create_task(customer(number))
    assert max(watching.result()) == LIMIT
    for _ in range(await replicas.in_flight()):
        await replicas.pay_oldest()

    assert len(set(accepted.values())) == len(accepted)
    assert not accepted.keys() & refused
    assert await keys_of(replicas.database, "hasty") == accepted


async def test_one_key_at_every_process_at_once_is_one_order(replicas: Replicas) -> None:
    product = await replicas.product()
    ordered: dict[tuple[str, str], str] = {}
    for number in range(20):
        wish = Wish(product, user="everywhere", key=f"everywhere-{number}")
        answers = await asyncio.gather(*(replicas.post(process, wish) for process in range(PROCESSES)))
        assert {answer.status_code for answer in answers} == {202}
        [ordered[wish.user, wish.key]] = {answer.json()["orderId"] for answer in answers}
        assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
        await replicas.pay_oldest()
    assert await keys_of(replicas.database, "everywhere") == ordered


async def test_every_process_tells_the_same_of_who_may_order(replicas: Replicas) -> None:
    product = await replicas.product()
    wishes = [Wish(product, user="everyone", key=f"everyone-{number}") for number in range(PROCESSES)]
    taken = [await replicas.post(0, wish) for wish in wishes[:LIMIT]]
    assert [answer.status_code for answer in taken] == [202] * LIMIT
    for process in range(PROCESSES):
        assert_paused(await replicas.post(process, wishes[-1]))
        admission = (await replicas.https[process].get("/admission", headers=OPERATOR)).json()
        assert (admission["state"], admission["pendingPayments"]) == ("paymentsPending", LIMIT)
        assert admission["oldestPendingPayment"]["orderId"] == taken[0].json()["orderId"]
    await replicas.pay_oldest()
    assert (await replicas.post(PROCESSES - 1, wishes[-1])).status_code == 202
    for _ in range(LIMIT):
        await replicas.pay_oldest()


async def test_a_delivery_team_whose_database_is_silent_keeps_no_orders_out(tmp_path: Path) -> None:
    await asyncio.to_thread(upgrade, f"sqlite+aiosqlite:///{tmp_path / 'order'}.db", "order")
    connections = 0

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()  # until the caller has gone
        writer.close()

    silent = await asyncio.start_server(say_nothing, HOST, 0)
    async with silent:
        settings = {
            "STREET12_DATA_DIR": str(tmp_path),
            "STREET12_DELIVERY_DATABASE_URL": f"mysql+aiomysql://u:p@{HOST}:{silent.sockets[0].getsockname()[1]}/x",
            "STREET12_MAX_PENDING_PAYMENTS": "1000",
        }
        async with running_api(settings) as http:
            body = {"productName": "시험 상품", "productPrice": 1_000}
            (await http.put("/products/tea", json=body, headers=OPERATOR)).raise_for_status()
            wishes = [Wish("tea", user="undeterred") for _ in range(30)]
            answers = [await http.post("/orders", json=wish.body, headers=wish.headers) for wish in wishes]
    assert [answer.status_code for answer in answers] == [202] * 30
    assert 1 <= connections <= 10  # three, and one more for each cooldown


async def keys_of(database: Database, customers: str) -> dict[tuple[str, str], str]:
    """The orders that are stored, by the user and the key that they came with, of users whose names begin like this.

    Nothing else is stored of anybody: each order has its key, its row in the view and its event, and there are no more.
    """

    async def work(session: AsyncSession) -> dict[tuple[str, str], str]:
        keys = (await session.exec(select(IdempotencyKey))).all()
        ordered = sorted(key.order_id for key in keys)
        for column in (OrderRow.order_id, OrderView.order_id):
            assert sorted((await session.exec(select(column))).all()) == ordered
        assert set((await session.exec(select(OrderEvent.order_id))).all()) == set(ordered)
        return {(key.user_id, key.idempotency_key): key.order_id for key in keys if key.user_id.startswith(customers)}

    return await database.read(work)


@asynccontextmanager
async def running_api(settings: Mapping[str, str]) -> AsyncGenerator[httpx2.AsyncClient]:
    """`python api.py` on a port of its own, without an engine; must end when asked to, with exit status 0."""
    port = take_ports({"": 0})[""]
    own = {"TEMPORAL_ADDRESS": f"{HOST}:1", "STREET12_CODEC_ENCRYPT": "false", "STREET12_API_PORT": str(port)}
    async with (
        running_issuer() as auth,
        started(
            "api.py",
            settings={**own, **NO_RATE_LIMIT, **auth, **settings},
            port=port,
            stderr=asyncio.subprocess.DEVNULL,
        ) as api,
    ):

        async def ready() -> bool:
            return await api.readiness() == 200

        await eventually(ready, "the API to be ready")
        yield api.http
        assert await api.end() == 0
