"""`kill -9` of the database server in the middle of work: what it acknowledged is there, and nothing is done twice."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial

from deploy.mariadb import MariaDb
from services.delivery.stock import Warehouse
from services.delivery.tables import StockMovement
from services.order.catalogue import Catalogue
from services.order.tables import IdempotencyKey, Order, OrderEvent, OrderView
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import PoolSettings
from tests.database.orders import TEA, accepting, rows
from tests.database.servers import GetServer, on_mysql, reopened

pytestmark = on_mysql
ORDERS = 120
HURRIED = PoolSettings(transaction_seconds=2)
CUSTOMERS = 10
KILLS = (10, 40, 80)
"""After so many acknowledgements each."""


class Killer:
    """Counts acknowledgements, and kills the server when there are enough; its supervisor starts it again."""

    def __init__(self, server: MariaDb) -> None:
        self._server = server
        self.acknowledged = 0
        self.killed = 0

    async def patiently(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do it as the engine does an activity: again, until it is acknowledged."""
        while True:
            try:
                await work()
            except DatabaseUnavailable:
                continue
            break
        self.acknowledged += 1
        if self.acknowledged in KILLS:
            os.kill(int((self._server.data_dir / "pid").read_text()), signal.SIGKILL)
            self.killed += 1


async def test_every_sale_happens_once(delivery_database: Database, mariadb: GetServer) -> None:
    await Warehouse(delivery_database).open_if_new("tea", ORDERS)
    database, killer = reopened(delivery_database, HURRIED), Killer(await mariadb())
    warehouse = Warehouse(database)
    await asyncio.gather(
        *(
            killer.patiently(lambda number=number: warehouse.sell(order_id=f"o{number}", product_id="tea", qty=1))
            for number in range(ORDERS)
        )
    )
    assert killer.killed == len(KILLS)
    sales = [movement for movement in await rows(database, StockMovement) if movement.kind == "sale"]
    assert len(sales) == ORDERS
    assert await warehouse.on_hand("tea") == 0
    await database.close()


async def test_every_accepted_order_is_there_once(order_database: Database, mariadb: GetServer) -> None:
    await Catalogue(order_database).put(product_id="tea", product_name="녹차", product_price=1000)
    database, killer = reopened(order_database, HURRIED), Killer(await mariadb())
    acceptance = accepting(database)
    answered: dict[str, str] = {}

    async def order(key: str) -> None:
        accepted = await acceptance.accept(user_id="haneul", idempotency_key=key, request=TEA)
        answered[key] = accepted.order.order_id

    async def customer(number: int) -> None:
        """One order after the other: those of all customers would share two transactions."""
        for place in range(number, ORDERS, CUSTOMERS):
            await killer.patiently(partial(order, f"k{place}"))

    await asyncio.gather(*map(customer, range(CUSTOMERS)))
    assert killer.killed == len(KILLS)
    assert {key.idempotency_key: key.order_id for key in await rows(database, IdempotencyKey)} == answered
    for table in (Order, OrderView, OrderEvent):
        assert sorted(row.order_id for row in await rows(database, table)) == sorted(answered.values())
    await database.close()
