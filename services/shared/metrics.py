"""What every process measures of itself and of the databases that it uses, for Prometheus."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from sqlalchemy import Engine, event
from sqlalchemy.pool import QueuePool

_log = structlog.get_logger(__name__)
# From a query on the same machine to the five seconds that a transaction may take.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_VERBS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
_BEGAN = "street12_query_began"
_EXPOSITION_SECONDS = 1.0

Exposition = Callable[[], Awaitable[bytes]]
"""Metrics that somebody else keeps, as Prometheus reads them."""


async def exposed(registry: CollectorRegistry, other: Exposition | None = None) -> bytes:
    """A process's metrics as Prometheus reads them, and `other` ones if they come within a second."""
    more = b""
    if other is not None:
        try:
            async with asyncio.timeout(_EXPOSITION_SECONDS):
                more = await other()
        except (OSError, TimeoutError) as error:
            _log.warning("metrics are missing", error=f"{type(error).__name__}: {error}")
    return generate_latest(registry) + more


class DatabaseMetrics:
    """What a process measures of the databases that it uses, each by its team's name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._transactions = Histogram(
            "street12_database_transaction_seconds",
            "Transactions, their repetitions and the wait for a connection included",
            ["database", "mode", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._repeats = Counter(
            "street12_database_repeats",
            "Attempts at a transaction that the database gave up",
            ["database"],
            registry=registry,
        )
        self._queries = Histogram(
            "street12_database_query_seconds",
            "Statements, from their sending until the answer",
            ["database", "verb"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._pool = Gauge(
            "street12_database_pool_connections",
            "Connections of the pool, in use and idle",
            ["database", "state"],
            registry=registry,
        )
        self._limit = Gauge(
            "street12_database_pool_limit", "As many connections as the pool may open", ["database"], registry=registry
        )

    def watch(self, name: str, engine: Engine, *, limit: int) -> None:
        """Measure the queries of a database, and how its pool is used."""
        pool = engine.pool
        if isinstance(pool, QueuePool):
            self._pool.labels(name, "in use").set_function(pool.checkedout)
            self._pool.labels(name, "idle").set_function(pool.checkedin)
            self._limit.labels(name).set(limit)

        def begin(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
            setattr(context, _BEGAN, time.perf_counter())

        def end(_connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
            verb = statement[:6].upper()
            took = time.perf_counter() - getattr(context, _BEGAN)
            self._queries.labels(name, verb if verb in _VERBS else "other").observe(took)

        event.listen(engine, "before_cursor_execute", begin)
        event.listen(engine, "after_cursor_execute", end)

    def gave_up(self, name: str) -> None:
        """The database gave an attempt at a transaction up."""
        self._repeats.labels(name).inc()

    @contextmanager
    def transaction(self, name: str, *, writes: bool) -> Generator[None]:
        """Measure a transaction, which ends by being done or by an error."""
        began, outcome = time.perf_counter(), "failed"
        try:
            yield
            outcome = "done"
        finally:
            mode = "write" if writes else "read"
            self._transactions.labels(name, mode, outcome).observe(time.perf_counter() - began)


class ProcessMetrics:
    """All that a process measures, beginning with Python, the process itself, what was built, and its databases."""

    def __init__(self, process: str, build: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        built = Info("street12_build", "What runs here", registry=self.registry)
        built.info({"process": process, "build": build})
        self.databases = DatabaseMetrics(self.registry)
