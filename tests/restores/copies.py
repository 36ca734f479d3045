"""Copies of the shop's data directory: made of a shop that works, and put together again from two."""

import os
import shutil
import sqlite3
from collections.abc import Collection
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

from deploy.stack import Stack, stack_file
from tests.e2e.shop import Shop, eventually, process_state

# An index of the log, which SQLite makes anew from it.
_NOT_COPIED = shutil.ignore_patterns("*-shm", stack_file(Path()).name, "*.alive")


async def snapshot(shop: Shop, to: Path, *, suspended: Collection[str]) -> None:
    """Copy the data of a shop as they stand at one moment, in which every process is held still."""
    async with AsyncExitStack() as held:
        for process, pid in Stack.read(shop.data_dir).processes.items():
            if process not in suspended:
                await held.enter_async_context(shop.suspended(process))

            async def still(pid: int = pid) -> bool:
                return process_state(pid) == "T"

            await eventually(still, f"{process} to hold still")
        shutil.copytree(shop.data_dir, to, ignore=_NOT_COPIED)


def restore(newest: Path, backup: Path, files: Collection[str], to: Path) -> None:
    """The newest data, but these databases from the backup, each with the log that belongs to it."""
    shutil.copytree(newest, to, ignore=_NOT_COPIED)
    for name in files:
        for file in to.glob(f"{name}*"):
            os.unlink(file)
        for file in backup.glob(f"{name}*"):
            shutil.copy2(file, to / file.name)


def row(data_dir: Path, statement: str, *values: str) -> Any:
    """The first row that the order database answers; nothing where there is none."""
    with closing(sqlite3.connect(f"file:{data_dir / 'order.db'}?mode=ro", uri=True, timeout=10)) as database:
        return database.execute(statement, values).fetchone()


def forget_keys(data_dir: Path) -> None:
    """The provider forgets which calls it has answered."""
    with closing(sqlite3.connect(data_dir / "payments.db")) as ledger, ledger:
        ledger.execute("DELETE FROM answers")
