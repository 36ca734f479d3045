"""How SQLite is asked without holding up the process, and without a thread where none is needed."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

import aiosqlite

T = TypeVar("T")
BEGIN_TO_READ, BEGIN_TO_WRITE = "BEGIN", "BEGIN IMMEDIATE"
# WAL: readers and one writer at once. FULL: a commit that was acknowledged survives a power cut.
_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
_FETCH_ROWS = 64


class SqliteConnection(aiosqlite.Connection):
    """What may wait is handed to the connection's thread: opening and closing, taking the lock, and the commit.

    All else is done at once. It waits for nobody: who writes has the lock already, and readers need none. To hand it
    over, too, takes four times as long as to do it, and a statement is handed over up to four times.
    """

    def __init__(self, opened: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(opened, iter_chunk_size=_FETCH_ROWS)
        self._thread.daemon = True  # nobody waits for it where the process ends

    async def _execute(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        connection = self._conn
        if fn == connection.cursor or (_is_of_a_cursor(fn) and args[:1] != (BEGIN_TO_WRITE,)):
            await asyncio.sleep(0)  # between two statements others have their turn, and who is cancelled stops
            return fn(*args, **kwargs)
        return await super()._execute(fn, *args, **kwargs)  # pyright: ignore[reportUnknownMemberType]  (has no types)


def connect(file: str, **options: Any) -> SqliteConnection:
    """A connection to a file, to be awaited. Transactions are begun by whoever uses it, by one of the two words."""

    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(file, isolation_level=None, **options)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        return connection

    return SqliteConnection(opened)


def _is_of_a_cursor(fn: Callable[..., object]) -> bool:
    return isinstance(getattr(fn, "__self__", None), sqlite3.Cursor)
