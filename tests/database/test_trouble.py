"""Whatever ails a database, whoever asked is told that it is unavailable, and the next one finds it usable."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlmodel import text
from sqlmodel.ext.asyncio.session import AsyncSession

from deploy.mariadb import MariaDb
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import PoolSettings
from tests.database.servers import GetServer, on_mysql, reopened

ONE = PoolSettings(size=1, overflow=0, transaction_seconds=30, attempts=2)


async def execute(session: AsyncSession, statement: str) -> Any:
    return await (await session.connection()).execute(text(statement))


@pytest.fixture
async def server(mariadb: GetServer) -> MariaDb:
    return await mariadb()


@pytest.fixture
async def database(order_database: Database) -> AsyncIterator[Database]:
    """On one connection."""
    database = reopened(order_database, ONE)
    yield database
    await database.close()


@on_mysql
async def test_a_user_with_too_many_connections(database: Database, server: MariaDb) -> None:
    user = f"'{database.engine.url.username}'@'{database.engine.url.host}'"
    await server.execute(f"ALTER USER {user} WITH MAX_USER_CONNECTIONS 1")
    await database.ping()
    another = reopened(database, ONE)
    with pytest.raises(DatabaseUnavailable, match="1226"):
        await another.ping()
    await server.execute(f"ALTER USER {user} WITH MAX_USER_CONNECTIONS 0")
    await another.ping()
    await another.close()


@on_mysql
@pytest.mark.parametrize("kill", ["QUERY", "CONNECTION"])
async def test_what_an_operator_kills_is_repeated(kill: str, database: Database, server: MariaDb) -> None:
    connections: list[int] = []
    begun = asyncio.Event()

    async def work(session: AsyncSession) -> None:
        connections.append((await execute(session, "SELECT CONNECTION_ID()")).scalar_one())
        if not begun.is_set():
            begun.set()
            await execute(session, "SELECT SLEEP(25)")

    async def sleeps() -> bool:
        asleep = "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'"
        return (connections[0],) in await server.execute(asleep)

    working = asyncio.create_task(database.write(work))
    await begun.wait()
    while not await sleeps():
        assert not working.done()
    await server.execute(f"KILL {kill} {connections[0]}")
    await working
    assert len(connections) == 2


@on_mysql
async def test_a_statement_that_the_server_gives_up(database: Database) -> None:
    async def work(session: AsyncSession) -> None:
        await execute(session, "SET STATEMENT max_statement_time = 0.01 FOR SELECT SLEEP(20) FROM seq_1_to_100")

    with pytest.raises(DatabaseUnavailable, match="1969"):
        await database.read(work)
    await database.ping()


@on_mysql
async def test_a_password_that_was_changed(database: Database, server: MariaDb) -> None:
    await server.create_database(str(database.engine.url.database))
    with pytest.raises(DatabaseUnavailable, match="1045"):
        await database.ping()


async def test_something_that_is_not_a_database() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as elsewhere:
        host, port = elsewhere.sockets[0].getsockname()
        database = Database(f"mysql+aiomysql://goodman@{host}:{port}/shop", ONE)
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
        await database.close()


async def test_a_commit_that_is_refused_leaves_no_open_transaction_to_the_next(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/family.db", ONE)
    await database.write(lambda session: execute(session, "CREATE TABLE parent (id INTEGER PRIMARY KEY)"))
    child = "CREATE TABLE child (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)"
    await database.write(lambda session: execute(session, child))
    with pytest.raises(DBAPIError, match="FOREIGN KEY"):
        await database.write(lambda session: execute(session, "INSERT INTO child VALUES (7)"))
    await database.write(lambda session: execute(session, "INSERT INTO parent VALUES (1)"))
    count = "SELECT (SELECT count(*) FROM child), (SELECT count(*) FROM parent)"
    assert (await database.read(lambda session: execute(session, count))).one() == (0, 1)
    await database.close()
