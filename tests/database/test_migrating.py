"""Migrations that meet: each other, a transaction that holds the table, or the end of their process."""

import asyncio
import os
import sys
import threading

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError
from sqlmodel.ext.asyncio.session import AsyncSession

from deploy.local import ROOT
from services.shared import migrations
from services.shared.database import Database
from services.shared.migrations import downgrade, upgrade
from services.shared.settings import PoolSettings
from tests.database.servers import NewUrl
from tests.database.test_migrations import METADATA, differences, history, on

BEFORE, INDEXED = history("order")[:2]  # from the one to the other, a table in use gets an index


async def test_migrations_at_once_wait_for_each_other(new_url: NewUrl) -> None:
    url = await new_url("order")
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.migrate", "--team", "order"),
            cwd=ROOT,
            env={**os.environ, "STREET12_ORDER_DATABASE_URL": url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        for _ in range(3)
    ]
    said = [(await process.communicate())[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert await differences(url, METADATA["order"]) == []


async def test_a_migration_gives_way_to_a_transaction_and_comes_again(
    new_url: NewUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await new_url("order")
    await asyncio.to_thread(upgrade, url, "order", BEFORE)
    gave_way, may_go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def pause(_seconds: float) -> None:
        loop.call_soon_threadsafe(gave_way.set)
        may_go_on.wait(30)

    monkeypatch.setattr(migrations, "_pause", pause)
    database = Database(url, PoolSettings(transaction_seconds=60))
    holds, release = asyncio.Event(), asyncio.Event()

    async def hold(session: AsyncSession) -> None:
        await (await session.connection()).execute(text("SELECT count(*) FROM order_views"))
        holds.set()
        await release.wait()

    holding = asyncio.create_task(database.write(hold))
    await holds.wait()
    migrating = asyncio.create_task(asyncio.to_thread(upgrade, url, "order"))
    try:
        await asyncio.wait_for(gave_way.wait(), 30)
        # It does not stand in anybody's way meanwhile.
        await on(url, lambda connection: connection.execute(text("SELECT count(*) FROM order_views")))
    finally:
        release.set()
        may_go_on.set()
        await asyncio.gather(holding, migrating)
    assert await differences(url, METADATA["order"]) == []
    await database.close()


async def test_a_migration_whose_process_ends_before_the_note_is_mended_as_the_docs_say(new_url: NewUrl) -> None:
    """See "When a migration fails half-way" in `docs/data.md`."""
    url = await new_url("order")
    await asyncio.to_thread(upgrade, url, "order", BEFORE)

    class Ended(Exception):
        pass

    def end(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE alembic_version"):
            raise Ended

    event.listen(Engine, "before_cursor_execute", end)
    try:
        with pytest.raises(Ended):
            await asyncio.to_thread(upgrade, url, "order")
    finally:
        event.remove(Engine, "before_cursor_execute", end)

    if url.startswith("mysql"):
        with pytest.raises(OperationalError, match="1061"):
            await asyncio.to_thread(upgrade, url, "order")
        note = text(f"UPDATE alembic_version SET version_num = '{INDEXED}'")
        await on(url, lambda connection: connection.execute(note))
    await asyncio.to_thread(upgrade, url, "order")
    assert await differences(url, METADATA["order"]) == []
    await asyncio.to_thread(downgrade, url, "order", BEFORE)
