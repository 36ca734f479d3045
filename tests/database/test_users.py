"""What `deploy/mysql` makes of a server: each user may do what it is for, and nothing else, over TLS or not at all."""

import asyncio
import re
from collections.abc import AsyncIterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from sqlalchemy import URL
from sqlmodel import text
from sqlmodel.ext.asyncio.session import AsyncSession

from deploy import mariadb
from deploy.mariadb import SQL_MODE, MariaDb
from deploy.migrate import migrate
from deploy.stack import HOST
from services.delivery.stock import Warehouse
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import TEAMS, DatabaseSettings, PoolSettings, Team
from services.shared.tls import CA_FILE
from tests.authority import Authority
from tests.mariadb import need_mariadb, running_mariadb

DIRECTORY = Path(mariadb.__file__).with_name("mysql")
PASSWORD = "a-password-of-the-tests"
DENIED = "1142"
USERS = {"temporal", *(f"street12_{team}{kind}" for team in TEAMS for kind in ("", "_owner", "_reader"))}


def statements() -> list[str]:
    """Of `users.sql`; what MySQL 8.4 and MariaDB both take, so that nothing is replaced here."""
    sql = re.sub("^--.*$", "", (DIRECTORY / "users.sql").read_text(), flags=re.MULTILINE)
    quietly = "SET SESSION sql_notes = 0"  # the client makes errors of notes, as that something is there already
    return [quietly, *(statement.strip() for statement in sql.split(";") if statement.strip())]


def server_settings() -> dict[str, str]:
    """Of `server.cnf`, but for those that MySQL 8.4 alone has."""
    parser = ConfigParser(interpolation=None)
    parser.read(DIRECTORY / "server.cnf")
    assert set(parser["mysqld-8.4"]) == {"gtid_mode", "enforce_gtid_consistency"}
    return {name: value.strip("'") for name, value in parser["mysqld"].items()}


@pytest.fixture(scope="module")
async def server(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MariaDb]:
    """Set up by both files, migrated by the owners, and then set up once more."""
    await need_mariadb(request.config)
    own = authority.certify("mysql.example", HOST)
    settings = {**server_settings(), "ssl_cert": str(own.certificate), "ssl_key": str(own.key)}
    options = (f"--{name.replace('_', '-')}={value}" for name, value in settings.items())
    async with running_mariadb(tmp_path_factory.mktemp("users") / "data", *options) as server:
        await server.execute(*statements())
        for user in USERS:
            await server.execute(f"ALTER USER '{user}'@'%' IDENTIFIED BY '{PASSWORD}' ACCOUNT UNLOCK")
        for team in TEAMS:
            url = address(server, authority, f"street12_{team}_owner", f"street12_{team}")
            settings_of_team = DatabaseSettings.model_validate({f"{team}_database_url": url})
            await asyncio.to_thread(migrate, team, settings_of_team)
        await server.execute(*statements())
        yield server


def address(server: MariaDb, authority: Authority | None, user: str, database: str, password: str = PASSWORD) -> str:
    url = URL.create("mysql+aiomysql", user, password, HOST, server.port, database, {"charset": "utf8mb4"})
    if authority is not None:
        url = url.update_query_dict({CA_FILE: str(authority.file)})
    return url.render_as_string(hide_password=False)


async def answer(url: str, statement: str) -> str:
    """What the server says of a statement: nothing, unless it refuses it."""

    async def run(session: AsyncSession) -> None:
        await (await session.connection()).execute(text(statement))

    database = Database(url, PoolSettings(transaction_seconds=15))
    try:
        await database.write(run)
    except DatabaseUnavailable as error:
        return str(error)
    finally:
        await database.close()
    return ""


async def test_a_user_who_has_been_given_no_password_is_locked(server: MariaDb, authority: Authority) -> None:
    await server.execute("DROP USER 'street12_order_reader'@'%'", *statements())
    try:
        reader = address(server, authority, "street12_order_reader", "street12_order", password="")
        assert "account is locked" in await answer(reader, "SELECT 1")
    finally:
        await server.execute(f"ALTER USER 'street12_order_reader'@'%' IDENTIFIED BY '{PASSWORD}' ACCOUNT UNLOCK")


async def test_there_are_these_users_and_none_comes_in_clear(server: MariaDb) -> None:
    known = await server.execute("SELECT User FROM mysql.user WHERE Host = '%'")
    assert {user for (user,) in known} == USERS
    for user in USERS:
        database = re.sub("_(owner|reader)$", "", user)
        assert "1045" in await answer(address(server, None, user, database), "SELECT 1"), user


@pytest.mark.parametrize("team", TEAMS)
async def test_the_user_reads_and_writes_rows_and_changes_no_table(
    server: MariaDb, authority: Authority, team: Team
) -> None:
    own = address(server, authority, f"street12_{team}", f"street12_{team}")
    table = {"order": "orders", "delivery": "stock", "marketing": "coupons"}[team]
    assert await answer(own, f"SELECT COUNT(*) FROM {table}") == ""
    assert await answer(own, f"DELETE FROM {table}") == ""
    for statement in (
        f"ALTER TABLE {table} ADD COLUMN more INT",
        f"DROP TABLE {table}",
        f"TRUNCATE {table}",
        f"CREATE INDEX one_more ON {table} (order_id)" if team != "delivery" else "CREATE TABLE more (a INT)",
    ):
        assert DENIED in await answer(own, statement), statement
    assert "1044" in await answer(own, f"GRANT SELECT ON street12_{team}.* TO 'temporal'@'%'")


async def test_a_workers_own_code_works_as_the_user(server: MariaDb, authority: Authority) -> None:
    database = Database(address(server, authority, "street12_delivery", "street12_delivery"))
    try:
        await Warehouse(database).open_if_new("tea", 100)
        assert await Warehouse(database).on_hand("tea") == 100
    finally:
        await database.close()


@pytest.mark.parametrize("user", sorted(USERS))
async def test_nobody_reads_what_is_anothers(server: MariaDb, authority: Authority, user: str) -> None:
    own = re.sub("_(owner|reader)$", "", user)
    url = address(server, authority, user, own)
    for other in ({"temporal", *(f"street12_{team}" for team in TEAMS)}) - {own}:
        table = {"street12_order": "orders", "street12_delivery": "stock", "street12_marketing": "coupons"}
        assert DENIED in await answer(url, f"SELECT * FROM {other}.{table.get(other, 'executions')}"), other
        assert "1044" in await answer(address(server, authority, user, other), "SELECT 1"), other


async def test_a_reader_only_reads(server: MariaDb, authority: Authority) -> None:
    url = address(server, authority, "street12_delivery_reader", "street12_delivery")
    assert await answer(url, "SELECT * FROM stock") == ""
    for statement in ("DELETE FROM stock", "UPDATE stock SET on_hand = 0", "CREATE TABLE more (a INT)"):
        assert DENIED in await answer(url, statement), statement


@pytest.mark.parametrize("database", ["temporal", "temporal_visibility"])
async def test_the_engine_makes_its_tables_itself(server: MariaDb, authority: Authority, database: str) -> None:
    url = address(server, authority, "temporal", database)
    for statement in ("CREATE TABLE shards (a INT)", "ALTER TABLE shards ADD COLUMN b INT", "DROP TABLE shards"):
        assert await answer(url, statement) == "", statement


async def test_the_servers_settings_are_what_the_file_says(server: MariaDb) -> None:
    for name, value in server_settings().items():
        # The variable's name where it is not the option's; the second is MariaDB's alone.
        known_as = {"default_time_zone": "time_zone", "transaction_isolation": "tx_isolation"}.get(name, name)
        ((_, found),) = await server.execute(f"SHOW GLOBAL VARIABLES LIKE '{known_as}'")
        if name == "sql_mode":
            assert set(found.split(",")) == set(value.split(","))
            assert value == SQL_MODE  # what the tests' servers run with
        else:
            assert found == {"log_bin": "ON"}.get(name, value), name


async def test_what_it_takes_to_keep_every_commit_is_set() -> None:
    settings = server_settings()
    assert (settings["innodb_flush_log_at_trx_commit"], settings["sync_binlog"]) == ("1", "1")
    assert settings["require_secure_transport"] == "ON"


def test_no_password_stands_in_a_file() -> None:
    assert not [statement for statement in statements() if "IDENTIFIED" in statement.upper()]
