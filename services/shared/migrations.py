"""Each team's schema history (Alembic), run by `deploy/migrate.py` and never by a process that serves."""

import asyncio
from pathlib import Path

from alembic import command, context
from alembic.config import Config
from sqlalchemy import MetaData
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


def upgrade(url: str, team: str, revision: str = "head") -> None:
    """Bring a team's database up to `revision`. Does nothing where it is there already."""
    command.upgrade(config(url, team), revision)


def downgrade(url: str, team: str, revision: str) -> None:
    """Take a team's database back to `revision` (`base` is an empty one)."""
    command.downgrade(config(url, team), revision)


def config(url: str, team: str) -> Config:
    """Alembic's configuration for one team's database."""
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parents[1] / team / "migrations"))
    configuration.attributes["url"] = url
    return configuration


def run(metadata: MetaData) -> None:
    """What each team's `migrations/env.py` does."""
    asyncio.run(_run(metadata))


async def _run(metadata: MetaData) -> None:
    engine = create_async_engine(context.config.attributes["url"], poolclass=NullPool)

    def migrate(connection: Connection) -> None:
        # SQLite changes a table by copying it (batch); MySQL commits each DDL statement by itself.
        context.configure(
            connection=connection, target_metadata=metadata, render_as_batch=connection.dialect.name == "sqlite"
        )
        with context.begin_transaction():
            context.run_migrations()

    async with engine.connect() as connection:
        await connection.run_sync(migrate)
        await connection.commit()
    await engine.dispose()
