"""Each team's schema history leads from nothing to exactly what the models say, and back, and loses nothing on the way.

Revisions come from the histories themselves: a new migration is tested without a new test.
"""

import asyncio
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel.ext.asyncio.session import AsyncSession

from services.delivery.tables import DeliveryTable
from services.marketing.tables import MarketingTable
from services.order.tables import OrderTable
from services.shared.database import Database, UtcDateTime
from services.shared.migrations import config, downgrade, upgrade
from services.shared.settings import TEAMS, PoolSettings, Team
from tests.database.servers import NewUrl, on_mysql

T = TypeVar("T")
Row = Mapping[str, Any]
Rows = dict[str, list[Row]]
METADATA: dict[Team, MetaData] = {
    "order": OrderTable.metadata,
    "delivery": DeliveryTable.metadata,
    "marketing": MarketingTable.metadata,
}


def history(team: Team) -> list[str]:
    """A team's revisions, the first one first."""
    return [revision.revision for revision in ScriptDirectory.from_config(config("", team)).walk_revisions()][::-1]


EARLIER = [(team, revision) for team in TEAMS for revision in history(team)[:-1]]
STEPS = [(team, *step) for team in TEAMS for step in zip(history(team), history(team)[1:], strict=False)]


async def on(url: str, work: Callable[[Connection], T]) -> T:
    """Do something in a transaction of its own."""
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        return await connection.run_sync(work)


async def differences(url: str, metadata: MetaData) -> list[object]:
    """Where the database is not what the models say."""

    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return [*compare_metadata(context, metadata), *(declared_checks(metadata) ^ actual_checks(connection))]

    return await on(url, compare)


def declared_checks(metadata: MetaData) -> set[tuple[str, str, str]]:
    """The CHECKs of the models. Alembic compares none."""
    return {
        (table.name, str(check.name), _plain(str(check.sqltext)))
        for table in metadata.tables.values()
        for check in table.constraints
        if isinstance(check, CheckConstraint)
    }


def actual_checks(connection: Connection) -> set[tuple[str, str, str]]:
    inspector = inspect(connection)
    return {
        (table, str(check["name"]), _plain(check["sqltext"]))
        for table in inspector.get_table_names()
        for check in inspector.get_check_constraints(table)
        if not check["sqltext"].startswith("json_valid")  # MariaDB's own, of a JSON column
    }


def _plain(condition: str) -> str:
    return re.sub(r"[`() ]", "", condition).lower()


async def tables(url: str) -> set[str]:
    return set(await on(url, lambda connection: inspect(connection).get_table_names())) - {"alembic_version"}


async def reflected(url: str) -> MetaData:
    """The tables as they are now, which is how the code of that time knows them."""
    metadata = MetaData()
    await on(url, metadata.reflect)
    metadata.remove(metadata.tables["alembic_version"])
    return metadata


def value(column: "Column[Any]", number: int) -> Any:
    """Something that fits a column and is hard to keep; another for each number."""
    kind = column.type
    if column.nullable and number % 2:
        return None
    if isinstance(kind, DateTime | mysql.DATETIME):
        return datetime(2026, 1, 1, 23, 59, 59, 123456) + timedelta(days=number)  # noqa: DTZ001 (as it is stored)
    if isinstance(kind, JSON):
        return {"까닭": f"품절 😢 {number}"}
    if isinstance(kind, mysql.LONGTEXT):  # MariaDB's JSON
        return f'{{"까닭": "품절 😢 {number}"}}'
    if isinstance(kind, String):
        return f"{number}녹차 🍵 {column.name}".ljust(kind.length or 0, "👩")[: kind.length]
    if isinstance(kind, BigInteger):
        return 2**53 + number
    if isinstance(kind, mysql.TINYINT):
        return number // 2 % 2
    if isinstance(kind, Integer):
        return 2**31 - 1 - number
    return bool(number // 2 % 2)


def row(table: Table, number: int) -> Row:
    return {column.name: value(column, number) for column in table.columns}


async def write(url: str, metadata: MetaData, numbers: range) -> Rows:
    """Put rows into each table, with the columns that it has in these metadata."""

    written = {table.name: [row(table, number) for number in numbers] for table in metadata.sorted_tables}

    def work(connection: Connection) -> None:
        for name, values in written.items():
            connection.execute(insert(metadata.tables[name]), values)

    await on(url, work)
    return written


async def read(url: str, columns: MetaData) -> Rows:
    """All rows, with the columns that are in these metadata."""

    def work(connection: Connection) -> Rows:
        return {
            table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in columns.sorted_tables
        }

    return await on(url, work)


def ordered(*many: Rows) -> Rows:
    return {name: sorted((row for rows in many for row in rows[name]), key=str) for name in many[0]}


def test_there_are_steps_to_test() -> None:
    assert ("order", "0001") in EARLIER
    assert ("order", "0001", "0002") in STEPS


@pytest.mark.parametrize("team", TEAMS)
async def test_the_history_leads_to_the_models_and_back(team: Team, new_url: NewUrl) -> None:
    metadata = METADATA[team]
    url = await new_url(team)
    for _ in range(2):
        await asyncio.to_thread(upgrade, url, team)
        assert await tables(url) == set(metadata.tables)
        assert await differences(url, metadata) == []
        await asyncio.to_thread(upgrade, url, team)  # again: nothing happens
        await asyncio.to_thread(downgrade, url, team, "base")
        assert await tables(url) == set()
    await asyncio.to_thread(upgrade, url, team)
    assert await differences(url, metadata) == []


async def test_the_stock_has_its_check(new_url: NewUrl) -> None:
    url = await new_url("delivery")
    await asyncio.to_thread(upgrade, url, "delivery")
    assert ("stock", "ck_stock_on_hand_not_negative", "on_hand>=0") in await on(url, actual_checks)


@pytest.mark.parametrize(("team", "revision"), EARLIER)
async def test_rows_survive_the_way_to_the_newest_schema_and_back(team: Team, revision: str, new_url: NewUrl) -> None:
    url = await new_url(team)
    await asyncio.to_thread(upgrade, url, team, revision)
    then = await reflected(url)
    written = ordered(await write(url, then, range(20)))
    assert ordered(await read(url, then)) == written

    await asyncio.to_thread(upgrade, url, team)
    assert ordered(await read(url, then)) == written
    assert await differences(url, METADATA[team]) == []

    await asyncio.to_thread(downgrade, url, team, revision)
    assert ordered(await read(url, then)) == written

    await asyncio.to_thread(downgrade, url, team, "base")
    assert await tables(url) == set()


@pytest.mark.parametrize(("team", "before", "after"), STEPS)
async def test_the_code_before_a_migration_works_on_after_it(
    team: Team, before: str, after: str, new_url: NewUrl
) -> None:
    """Processes of the release before run on beside the migration: what they know must stay (expand, then contract)."""
    url = await new_url(team)
    await asyncio.to_thread(upgrade, url, team, before)
    known = await reflected(url)
    old = await write(url, known, range(10))
    await asyncio.to_thread(upgrade, url, team, after)
    new = await write(url, known, range(10, 20))
    assert ordered(await read(url, known)) == ordered(old, new)


@contextmanager
def recorded_ddl() -> Generator[list[str]]:
    """What changes a schema, from whatever engine."""
    sent: list[str] = []

    def record(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if re.match(r"\s*(CREATE|ALTER|DROP|RENAME|TRUNCATE)\b", statement, re.IGNORECASE):
            sent.append(statement)

    event.listen(Engine, "before_cursor_execute", record)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", record)


# On MySQL alone: SQLite changes a table by copying it, and can take that back.
@on_mysql
@pytest.mark.parametrize(("team", "before", "after"), STEPS)
async def test_a_migration_is_one_statement(team: Team, before: str, after: str, new_url: NewUrl) -> None:
    """MySQL commits each DDL statement by itself: with one, a migration has happened or has not."""
    url = await new_url(team)
    await asyncio.to_thread(upgrade, url, team, before)
    with recorded_ddl() as up:
        await asyncio.to_thread(upgrade, url, team, after)
    with recorded_ddl() as down:
        await asyncio.to_thread(downgrade, url, team, before)
    assert len(up) <= 1
    assert len(down) <= 1


# On MySQL alone: SQLite knows neither engines nor character sets, and keeps moments as text.
@on_mysql
@pytest.mark.parametrize("team", TEAMS)
async def test_tables_keep_every_character_case_and_microsecond(team: Team, new_url: NewUrl) -> None:
    url = await new_url(team)
    await asyncio.to_thread(upgrade, url, team)

    def look(connection: Connection) -> tuple[dict[str, Any], dict[str, Any]]:
        kept = connection.execute(
            text(
                "SELECT table_name, engine, table_collation "
                "FROM information_schema.tables WHERE table_schema = DATABASE()"
            )
        )
        columns = connection.execute(
            text(
                "SELECT concat(table_name, '.', column_name), character_set_name, collation_name, column_type "
                "FROM information_schema.columns WHERE table_schema = DATABASE()"
            )
        )
        return {row[0]: tuple(row[1:]) for row in kept}, {row[0]: tuple(row[1:]) for row in columns}

    kept, columns = await on(url, look)
    for table in METADATA[team].tables.values():
        assert kept[table.name] == ("InnoDB", "utf8mb4_bin"), table
        for column in table.columns:
            charset, collation, kind = columns[str(column)]
            if isinstance(column.type, String):
                assert (charset, collation) == ("utf8mb4", "utf8mb4_bin"), column
            if isinstance(column.type, UtcDateTime):
                assert kind == "datetime(6)", column


async def test_orders_are_accepted_while_the_schema_changes(new_url: NewUrl) -> None:
    """By processes of the release before: they know the tables as they were before the last migration."""
    url = await new_url("order")
    previous = history("order")[-2]
    await asyncio.to_thread(upgrade, url, "order", previous)
    known = await reflected(url)
    database = Database(url, PoolSettings(transaction_seconds=30))
    open_for_orders = True
    accepted: list[int] = []
    numbers = count()
    more = asyncio.Condition()

    async def order(number: int, session: AsyncSession) -> None:
        connection = await session.connection()
        for table in known.sorted_tables:
            await connection.execute(insert(table), row(table, number))

    async def customer() -> None:
        while open_for_orders:
            number = next(numbers)
            await database.write(partial(order, number))
            async with more:
                accepted.append(number)
                more.notify_all()

    async def at_work() -> None:
        """Until some more orders were accepted."""
        goal = len(accepted) + 30
        async with more:
            await more.wait_for(lambda: len(accepted) >= goal)

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(customer())
        for _ in range(3):
            await at_work()
            await asyncio.to_thread(upgrade, url, "order")
            await at_work()
            await asyncio.to_thread(downgrade, url, "order", previous)
        await asyncio.to_thread(upgrade, url, "order")
        await at_work()
        open_for_orders = False

    await database.close()
    expected = [row(known.tables["orders"], number) for number in accepted]
    assert ordered({"orders": (await read(url, known))["orders"]}) == ordered({"orders": expected})
