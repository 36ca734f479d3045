"""Each team's database, fresh and migrated, on SQLite and on a real MariaDB that this session starts for itself."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest

from deploy.mariadb import MariaDb, MariaDbUnavailable, running_mariadb
from services.shared.database import Database
from services.shared.migrations import upgrade
from services.shared.settings import PoolSettings, Team

NewUrl = Callable[[Team], Awaitable[str]]
_MISSING = pytest.StashKey[str]()
_number = count(1)


@pytest.fixture(scope="session")
async def mariadb(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[], Awaitable[MariaDb]]]:
    """Starts the server when the first test asks for it; the test is skipped where it cannot be had, except in CI."""
    # Not pytest's own directory: that one is closed to the server's user.
    directory = tempfile.mkdtemp(prefix="street12-mariadb-")
    os.chmod(directory, 0o711)
    server: MariaDb | None = None
    lock = asyncio.Lock()
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)

        async def get() -> MariaDb:
            nonlocal server
            async with lock:
                missing = request.config.stash.get(_MISSING, None)
                if server is None and missing is None:
                    try:
                        server = await stack.enter_async_context(running_mariadb(Path(directory, "data")))
                    except MariaDbUnavailable as error:
                        missing = request.config.stash[_MISSING] = str(error)
            if server is not None:
                return server
            if os.environ.get("CI") == "true":
                pytest.fail(f"CI needs MariaDB: {missing}", pytrace=False)
            pytest.skip(f"no MariaDB: {missing}")

        yield get


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    missing = config.stash.get(_MISSING, None)
    if missing is not None:
        terminalreporter.section("MYSQL WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(missing)


@pytest.fixture(params=["sqlite", "mysql"])
async def new_url(
    request: pytest.FixtureRequest, tmp_path: Path, mariadb: Callable[[], Awaitable[MariaDb]]
) -> AsyncIterator[NewUrl]:
    """Makes empty databases: a file, or a database on the server."""
    made: list[str] = []

    async def new(team: Team) -> str:
        name = f"{team}_{next(_number)}"
        if request.param == "sqlite":
            return f"sqlite+aiosqlite:///{tmp_path / name}.db"
        url = await (await mariadb()).create_database(name, name)
        made.append(name)
        return url

    yield new
    for name in made:
        await (await mariadb()).execute(f"DROP DATABASE `{name}`", f"DROP USER '{name}'@'127.0.0.1'")


async def _migrated(team: Team, new_url: NewUrl) -> AsyncIterator[Database]:
    url = await new_url(team)
    await asyncio.to_thread(upgrade, url, team)
    # Patient, because the machine that runs the tests may be busy with others; times have tests of their own.
    database = Database(url, PoolSettings(transaction_seconds=30))
    yield database
    await database.close()


@pytest.fixture
async def order_database(new_url: NewUrl) -> AsyncIterator[Database]:
    async for database in _migrated("order", new_url):
        yield database


@pytest.fixture
async def delivery_database(new_url: NewUrl) -> AsyncIterator[Database]:
    async for database in _migrated("delivery", new_url):
        yield database


@pytest.fixture
async def marketing_database(new_url: NewUrl) -> AsyncIterator[Database]:
    async for database in _migrated("marketing", new_url):
        yield database
