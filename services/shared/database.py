"""The one place that builds engines, opens transactions, bounds them in time and repeats them.

Work on a database is handed over whole, as a function of a session, because a transaction that the database gives up
(deadlock, lock wait, lost connection) can only be repeated from its beginning. So such a function must do nothing
but talk to its session: no calls to other systems, no changes outside.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from prometheus_client import CollectorRegistry
from sqlalchemy import UpdateBase, event, insert, make_url
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError, IntegrityError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.types import DateTime, TypeDecorator
from sqlmodel import SQLModel, text
from sqlmodel.ext.asyncio.session import AsyncSession

from services.shared import sqlite
from services.shared.errors import DatabaseUnavailable
from services.shared.metrics import DatabaseMetrics
from services.shared.mysql import connect_encrypted
from services.shared.settings import PoolSettings
from services.shared.tls import trust, without_trust

T = TypeVar("T")
Work = Callable[[AsyncSession], Awaitable[T]]

# Binary collation: ids and callers that differ in case are different. utf8mb4: Korean and emoji survive.
MYSQL_TABLE = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "pk": "pk_%(table_name)s",
}

_log = structlog.get_logger(__name__)
_WRITES = "street12_writes"
# 1205 lock wait timeout, 1213 deadlock victim, 2006 server has gone away, 2013 connection lost during a query (also
# after a COMMIT that took effect: the repetition then finds its own work by key), 2003 cannot connect, 1040 too many
# connections, 1203 and 1226 of this user, 1053 server shutting down, 1317 query and 1927 connection killed, 2014 out of
# sync after a cancelled query, 1290 and 1836 read-only (the old primary of a failover), 1021 disk full.
_REPEATABLE_MYSQL = frozenset(
    {1021, 1040, 1053, 1203, 1205, 1213, 1226, 1290, 1317, 1836, 1927, 2003, 2006, 2013, 2014}
)
_CHECK_VIOLATED = frozenset({3819, 4025})  # MySQL's number and MariaDB's; the drivers call it operational
_REPEATABLE_SQLITE = (
    "database is locked",
    "database table is locked",
    "database is busy",
    "unable to open database file",
    "database or disk is full",
    "disk I/O error",
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with its time zone, kept as UTC to the microsecond (MySQL drops fractions unless told)."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name == "mysql" or dialect.name == "mariadb":
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Database:
    """One team's database."""

    def __init__(
        self,
        url: str,
        pool: PoolSettings | None = None,
        *,
        name: str = "",
        metrics: DatabaseMetrics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`name` is what `metrics` call it; with a `tracer`, statements are traced."""
        self._settings = pool or PoolSettings()
        self._name = name
        self._metrics = metrics or DatabaseMetrics(CollectorRegistry())
        self.engine = _engine(url, self._settings)
        if metrics is not None:
            limit = self._settings.size + self._settings.overflow
            metrics.watch(name, self.engine.sync_engine, limit=limit)
        if tracer is not None:
            for way in ("do_execute", "do_executemany", "do_execute_no_params"):
                event.listen(self.engine.sync_engine, way, _traced(tracer, way))
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction that may write; its effects are all there when this returns, or none.

        Raises `DatabaseUnavailable` when the database did not answer in time or asked for a repetition too often.
        After that error the transaction may still have been committed (a lost reply): every write has a key by which
        a repetition finds it.
        """
        return await self._attempt(work, writes=True)

    async def read(self, work: Work[T]) -> T:
        """Run `work` in a transaction that only reads. Raises `DatabaseUnavailable`."""
        return await self._attempt(work, writes=False)

    async def ping(self) -> None:
        """Raises `DatabaseUnavailable` unless the database answers."""

        async def one(session: AsyncSession) -> None:
            await (await session.connection()).execute(text("SELECT 1"))

        await self.read(one)

    async def close(self) -> None:
        """Close every connection, once the work that is under way has come to its end; its time is bounded."""
        await self._idle.wait()
        await self.engine.dispose()

    async def _attempt(self, work: Work[T], *, writes: bool) -> T:
        self._under_way += 1
        self._idle.clear()
        try:
            with self._metrics.transaction(self._name, writes=writes):
                return await self._repeated(work, writes=writes)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _repeated(self, work: Work[T], *, writes: bool) -> T:
        cause = "no answer"
        try:
            async with asyncio.timeout(self._settings.transaction_seconds):
                for attempt in range(1, self._settings.attempts + 1):
                    try:
                        return await self._once(work, writes=writes)
                    except (DBAPIError, PoolTimeout, OSError) as error:
                        if _is_ours(error):
                            raise
                        cause = _cause(error)
                        self._metrics.gave_up(self._name)
                        _log.warning("transaction given up by the database", attempt=attempt, error=cause)
                        if attempt == self._settings.attempts or not _is_repeatable(error):
                            break
                    await asyncio.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**attempt)
        except TimeoutError:
            cause = f"not done within {self._settings.transaction_seconds:g} s, {cause}"
        raise DatabaseUnavailable(cause)

    async def _once(self, work: Work[T], *, writes: bool) -> T:
        async with self.engine.connect() as connection:
            await connection.execution_options(**{_WRITES: writes})
            try:
                async with AsyncSession(connection, expire_on_commit=False) as session, session.begin():
                    try:
                        return await work(session)
                    except asyncio.CancelledError:
                        await connection.invalidate()  # there is no time left to ask for a rollback
                        raise
            except DBAPIError:
                # A COMMIT that the database refuses leaves the transaction open; nobody else may come into it.
                await connection.invalidate()
                raise


async def insert_if_new(session: AsyncSession, row: SQLModel) -> bool:
    """Insert a row unless one with the same unique key is there; says whether it was inserted.

    Where another transaction is just inserting that key, this waits for its outcome. Both databases take back a
    failed INSERT alone and leave the transaction usable.
    """
    try:
        await change(session, insert(type(row)), row.model_dump())
    except IntegrityError as error:
        if is_duplicate(error):
            return False
        raise
    return True


async def change(
    session: AsyncSession, statement: UpdateBase, rows: Mapping[str, object] | Sequence[Mapping[str, object]] = ()
) -> int:
    """Insert, update or delete, with the values of these rows where it leaves them open; answers how many rows it met.

    Past the session, which would compare what it holds with what was changed, and that costs more than the statement.
    Nobody looks at such objects afterwards; who does executes it through the session.
    """
    return (await (await session.connection()).execute(statement, rows or None)).rowcount


def is_duplicate(error: IntegrityError) -> bool:
    """Whether a row with the same unique key was there."""
    return _number(error) == 1062 or str(_number(error)).startswith("UNIQUE constraint failed")


def _engine(url: str, settings: PoolSettings) -> AsyncEngine:
    if url.startswith("sqlite"):
        engine = create_async_engine(
            url,
            pool_size=settings.size,
            max_overflow=settings.overflow,
            pool_reset_on_return=None,
            hide_parameters=True,
            connect_args={
                "async_creator_fn": sqlite.connect,
                "timeout": settings.transaction_seconds / 2,  # a lock that is not had leaves time to say so
            },
        )
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    # The server must give up a lock before this process gives up the server: a client that went away is not noticed
    # while its statement waits, and what its transaction has locked would stay locked (for 50 s, or for ever).
    lock_seconds = max(1, int(settings.transaction_seconds / 2))
    # Nor is one noticed that falls silent between two statements, for 8 hours. No connection that is still used here
    # can be idle as long as this.
    idle_seconds = settings.recycle_seconds + math.ceil(settings.transaction_seconds)
    address = make_url(url)
    encrypted = trust(address)
    return create_async_engine(
        without_trust(address),
        pool_size=settings.size,
        max_overflow=settings.overflow,
        pool_timeout=settings.transaction_seconds,
        pool_recycle=settings.recycle_seconds,
        pool_pre_ping=True,
        # A unit of work ends its transaction itself, in its time. The pool's own ROLLBACK has no time limit: asked of a
        # silent server, it would keep the connection for ever.
        pool_reset_on_return=None,
        hide_parameters=True,  # an error would show a customer's address in the log
        # A row that another transaction just committed must be seen by the statement after a duplicate key.
        isolation_level="READ COMMITTED",
        connect_args={
            # No timeout of aiomysql's own: it has one while connecting, and there Python 3.11 loses a cancellation that
            # comes at the same moment as the connection, so that nothing ends the wait for the server's first word.
            "connect_timeout": None,
            "init_command": "SET time_zone = '+00:00', "
            f"innodb_lock_wait_timeout = {lock_seconds}, lock_wait_timeout = {lock_seconds}, "
            f"wait_timeout = {idle_seconds}",
            **({} if encrypted is None else {"ssl": encrypted, "async_creator_fn": connect_encrypted}),
        },
    )


def _traced(tracer: Tracer, way: str) -> Callable[..., bool]:
    """Executes a statement in a span of its own, without its values, where it belongs to a trace.

    Without one it is a round of somebody who looks for work, as each second brings some.
    """

    def execute(cursor: Any, statement: str, *parameters: Any) -> bool:
        if not trace.get_current_span().get_span_context().is_valid:
            return False  # SQLAlchemy executes it
        engine = parameters[-1].engine
        attributes = {
            "db.system.name": engine.name,
            "db.namespace": str(engine.url.database).rpartition("/")[2].removesuffix(".db"),
            "db.query.text": statement,
        }
        # What the database says of an error may be a value: the kind of it will do.
        with tracer.start_as_current_span(
            statement.split(maxsplit=1)[0].upper(),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                getattr(engine.dialect, way)(cursor, statement, *parameters)
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise
        return True

    return execute


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: upgrading from a read fails with "database is locked" without waiting.
    writes = connection.get_execution_options().get(_WRITES, True)
    connection.exec_driver_sql(sqlite.BEGIN_TO_WRITE if writes else sqlite.BEGIN_TO_READ)


def _is_ours(error: Exception) -> bool:
    """Whether the database did its part: what it refused is wrong, and waiting changes nothing."""
    if isinstance(error, OperationalError):
        return _number(error) in _CHECK_VIOLATED
    return isinstance(error, DBAPIError) and not (error.connection_invalidated or isinstance(error, InternalError))


def _is_repeatable(error: Exception) -> bool:
    """Whether the database asks for the whole transaction once more, or may be back in a moment."""
    if isinstance(error, DBAPIError) and not error.connection_invalidated:
        number = _number(error)
        return number in _REPEATABLE_MYSQL or str(number).startswith(_REPEATABLE_SQLITE)
    return True


def _number(error: DBAPIError) -> object:
    """MySQL's number of an error; SQLite has only a message."""
    return error.orig.args[0] if error.orig and error.orig.args else None


def _cause(error: Exception) -> str:
    return str(error.orig) if isinstance(error, DBAPIError) and error.orig else f"{type(error).__name__}: {error}"
