"""Each team's database, fresh and migrated, on SQLite and on a real MariaDB that this session starts for itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest

from deploy.mariadb import Access, MariaDb
from deploy.stack import HOST
from services.order.acceptance import Acceptance
from services.shared.database import Database
from services.shared.migrations import upgrade
from services.shared.settings import PoolSettings, Team
from tests.authority import Authority
from tests.database.orders import HeldClock, selling_tea
from tests.database.servers import GetServer, NewDatabase, NewUrl
from tests.mariadb import need_mariadb, running_mariadb

_number = count(1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who vouches for a server that is asked for TLS."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
async def mariadb(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GetServer]:
    """Starts the server when the first test asks for it. One that is killed is started again."""
    server: MariaDb | None = None
    lock = asyncio.Lock()
    async with AsyncExitStack() as stack:

        async def get() -> MariaDb:
            nonlocal server
            async with lock:
                if server is None:
                    await need_mariadb(request.config)
                    data_dir = tmp_path_factory.mktemp("server") / "data"
                    server = await stack.enter_async_context(running_mariadb(data_dir))
                return server

        yield get


@pytest.fixture(params=["sqlite", "mysql"])
async def new_database(
    request: pytest.FixtureRequest, tmp_path: Path, mariadb: GetServer
) -> AsyncIterator[NewDatabase]:
    """Makes empty databases: a file, or a database on the server."""
    made: list[str] = []

    async def new(team: Team) -> Access:
        name = f"{team}_{next(_number)}"
        if request.param == "sqlite":
            url = f"sqlite+aiosqlite:///{tmp_path / name}.db"
            return Access(owner=url, user=url)
        made.append(name)
        return await (await mariadb()).create_database(name)

    yield new
    for name in made:
        await (await mariadb()).execute(f"DROP DATABASE `{name}`", f"DROP USER '{name}'@'{HOST}'")


@pytest.fixture
def new_url(new_database: NewDatabase) -> NewUrl:
    """Makes empty databases; their owners' URLs."""

    async def new(team: Team) -> str:
        return (await new_database(team)).owner

    return new


async def _migrated(team: Team, new_database: NewDatabase) -> AsyncIterator[Database]:
    access = await new_database(team)
    await asyncio.to_thread(upgrade, access.owner, team)
    # Patient, because the machine that runs the tests may be busy with others; times have tests of their own.
    database = Database(access.user, PoolSettings(transaction_seconds=30))
    yield database
    await database.close()


@pytest.fixture
async def order_database(new_database: NewDatabase) -> AsyncIterator[Database]:
    async for database in _migrated("order", new_database):
        yield database


@pytest.fixture
async def delivery_database(new_database: NewDatabase) -> AsyncIterator[Database]:
    async for database in _migrated("delivery", new_database):
        yield database


@pytest.fixture
async def marketing_database(new_database: NewDatabase) -> AsyncIterator[Database]:
    async for database in _migrated("marketing", new_database):
        yield database


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def on_hand() -> dict[str, int]:
    """What is known to be in stock: nothing, until a test says so."""
    return {}


@pytest.fixture
async def acceptance(order_database: Database, clock: HeldClock, on_hand: dict[str, int]) -> Acceptance:
    """Of a shop that sells tea, by the held clock."""
    return await selling_tea(order_database, clock, on_hand)
