"""Each team's schema history (Alembic), run by `deploy/migrate.py` and never by a process that serves."""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

from alembic import command, context
from alembic.config import Config
from sqlalchemy import MetaData, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.shared.database import Database

_PATIENCE_SECONDS = 60
_pause = time.sleep
_LOCKED = (1205, "database is locked")


class MigrationRunning(Exception):
    """Another process is just migrating the same database, and does not come to its end."""


def upgrade(url: str, team: str, revision: str = "head") -> None:
    """Bring a team's database up to `revision`. Does nothing where it is there already.

    Safe beside a shop that works and beside other migrations of the same database: see `docs/data.md`. Raises
    `DatabaseUnavailable`, `MigrationRunning`.
    """
    _patiently(command.upgrade, config(url, team), revision)


def downgrade(url: str, team: str, revision: str) -> None:
    """Take a team's database back to `revision` (`base` is an empty one)."""
    _patiently(command.downgrade, config(url, team), revision)


def config(url: str, team: str) -> Config:
    """Alembic's configuration for one team's database."""
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parents[1] / team / "migrations"))
    configuration.attributes["url"] = url
    return configuration


def run(metadata: MetaData) -> None:
    """What each team's `migrations/env.py` does."""
    asyncio.run(_run(metadata))


def _patiently(step: Callable[[Config, str], None], configuration: Config, revision: str) -> None:
    """Take a step that waits for a table's lock but shortly, again and again.

    What wants to change a table makes everybody who comes after it wait as long as it waits itself.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            step(configuration, revision)
            return
        except OperationalError as error:
            locked = error.orig is not None and error.orig.args[:1] in [(sign,) for sign in _LOCKED]
            if not locked or time.monotonic() > deadline:
                raise
        _pause(random.uniform(0.2, 1.0))


async def _run(metadata: MetaData) -> None:
    database = Database(context.config.attributes["url"])

    def migrate(connection: Connection) -> None:
        # SQLite changes a table by copying it (batch).
        context.configure(
            connection=connection, target_metadata=metadata, render_as_batch=connection.dialect.name == "sqlite"
        )
        context.run_migrations()

    try:
        await database.ping()  # in its time; what follows may take long
        # On SQLite all of it is one transaction. MySQL commits with each DDL statement what came before it, the note
        # of the previous migration too; this one's at the end.
        async with database.engine.begin() as connection:
            if connection.dialect.name == "mysql":
                await _alone(connection)
            await connection.run_sync(migrate)
    finally:
        await database.close()


async def _alone(connection: AsyncConnection) -> None:
    """Wait for other migrations of this database to end. Raises `MigrationRunning`."""
    name = text("SELECT GET_LOCK(CONCAT('street12.migration.', MD5(DATABASE())), :seconds)")
    if await connection.scalar(name, {"seconds": _PATIENCE_SECONDS}) != 1:
        raise MigrationRunning("another migration of this database is running; see what it is doing, then try again")
