"""What one order costs, with every worker in this process: events and bytes of history, calls on the engine, SQL."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.engine import Connection, Engine
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig

from services.shared.metrics import ProcessMetrics
from services.shared.settings import TEAMS, WorkerSettings
from tests.bench.customers import Customers, customers
from tests.bench.stage import Stage
from worker import _worker as team_worker  # pyright: ignore[reportPrivateUsage]  (the workers as they really are)
from workflows.client import connect

MOST_EVENTS = 34
"""Of an order by itself, until `DeliveryStarted`; many at once wait for one another, which costs more."""
MOST_RPCS = 19.5
"""Calls on the engine and polls that it answered, an order."""
MOST_STATEMENTS_ALONE = 26
"""In all three databases, of an order by itself; the transactions' BEGIN and COMMIT apart."""
MOST_STATEMENTS = 20.0
"""The same an order, of 32 at once: those that are accepted together share statements."""
AT_ONCE = 32
TRANSACTION = frozenset({"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"})
_BUFFER = 200_000
_UNSETTLED = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an order cost; counts of calls and statements are averages over `orders`."""

    orders: int
    events: Counter[str]
    """Of one order by itself, until `DeliveryStarted`."""
    events_in_all: Counter[str]
    """Of the same order, once it is delivered."""
    most_events: int
    """Of the order among `orders` that had most, until `DeliveryStarted`."""
    calls: Counter[str]
    polls: Counter[str]
    alone: dict[str, Counter[str]]
    """Of one order by itself: statements by database, the accepting of orders apart."""
    statements: dict[str, Counter[str]]
    """The same of `orders`, many at once."""
    history_bytes: float
    """Of an order's history, until `DeliveryStarted`."""

    @property
    def rpcs(self) -> float:
        """Calls on the engine and polls that it answered, an order."""
        return (self.calls.total() + self.polls.total()) / self.orders

    @property
    def statements_alone(self) -> int:
        """Statements of one order by itself, in all databases; BEGIN and COMMIT apart."""
        return sum(work(counts).total() for counts in self.alone.values())

    @property
    def statements_each(self) -> float:
        """Statements an order, of many at once, in all databases; BEGIN and COMMIT apart."""
        return sum(work(counts).total() for counts in self.statements.values()) / self.orders


def work(counts: Counter[str]) -> Counter[str]:
    """The statements that are not a transaction's beginning or end."""
    return Counter({name: count for name, count in counts.items() if name not in TRANSACTION})


async def cost(here: Stage, orders: int) -> Cost:
    """The cost of an order, on a stage without workers whose dispatcher sleeps.

    Of so many, of which `AT_ONCE` are on their way at any time: each customer orders again when the last order has
    come to `DeliveryStarted`, so that they share transactions as they would on a busy day, and not as in one rush.
    """
    buffer = MetricBuffer(_BUFFER)
    runtime = Runtime(telemetry=TelemetryConfig(metrics=buffer))
    onlooker = await connect(codec=None)  # whose own calls are not counted
    async with customers(here, runtime) as who, _workers(who.client):
        await _one(who)  # whose databases and workflow modules are new to the workers
        with _statements(who) as alone:
            first = await _one(who)
            events = await _events(onlooker, first)
        await who.be_delivered()
        in_all = await _events(onlooker, first)
        buffer.retrieve_updates()
        with _statements(who) as statements:
            ids = await _keep_ordering(who, orders)
            most = max(
                [(await _events(onlooker, order_id)).total() for order_id in ids]
            )  # and all is told to the engine
        calls, polls = _requests(buffer)
        sizes = [await _history_bytes(onlooker, order_id) for order_id in ids]
    return Cost(
        orders=orders,
        events=events,
        events_in_all=in_all,
        most_events=max(most, events.total()),
        calls=calls,
        polls=polls,
        alone=alone,
        statements=statements,
        history_bytes=sum(sizes) / len(sizes),
    )


async def _keep_ordering(who: Customers, orders: int) -> list[str]:
    left, ids = iter(range(orders)), list[str]()

    async def one_after_the_other() -> None:
        for _ in left:
            ids.append(await _one(who))

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return ids


async def _one(who: Customers) -> str:
    [order] = await who.accept(1)
    await who.go_through(order)
    return order.order_id


async def _events(onlooker: Client, order_id: str) -> Counter[str]:
    async with asyncio.timeout(30):
        while True:
            history = await onlooker.get_workflow_handle(order_id).fetch_history()
            if _is_settled(history):
                return Counter(EventType.Name(one.event_type).removeprefix("EVENT_TYPE_") for one in history.events)
            await asyncio.sleep(0.02)


async def _history_bytes(onlooker: Client, order_id: str) -> int:
    described = await onlooker.get_workflow_handle(order_id).describe()
    return described.raw_description.workflow_execution_info.history_size_bytes


def _is_settled(history: WorkflowHistory) -> bool:
    """Whether nothing of it is on its way: the customer reads a status a moment before the engine knows that he may."""
    return history.events[-1].event_type not in _UNSETTLED


@asynccontextmanager
async def _workers(client: Client) -> AsyncGenerator[None]:
    async with AsyncExitStack() as stack:
        for team in TEAMS:
            measured = ProcessMetrics(team, "bench")
            await stack.enter_async_context(await team_worker(team, client, WorkerSettings(), measured, stack))
        yield


def _requests(buffer: MetricBuffer) -> tuple[Counter[str], Counter[str]]:
    calls: Counter[str] = Counter()
    polls: Counter[str] = Counter()
    for update in buffer.retrieve_updates():
        name = update.metric.name.removeprefix("temporal_")
        if name in ("request", "long_request"):
            operation = str(update.attributes["operation"])
            (calls if name == "request" else polls)[operation] += int(update.value)
    return calls, polls


@contextmanager
def _statements(who: Customers) -> Generator[dict[str, Counter[str]]]:
    """Counts the SQL of every database but the one through which the measurement itself looks.

    A transaction's end goes past the cursor: the driver makes it itself, and it is counted where it is asked for.
    """
    counted: dict[str, Counter[str]] = {}
    accepting = (who.front.engine.sync_engine, who.shelf.engine.sync_engine)
    window = who.window.engine.sync_engine

    def count(connection: Connection, name: str) -> None:
        if connection.engine is not window:
            database = (make_url(connection.engine.url).database or "").rpartition("/")[2].removesuffix(".db")
            where = f"{database}, accepting" if connection.engine in accepting else database
            counted.setdefault(where, Counter())[name] += 1

    def statement(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        count(connection, statement.split(maxsplit=1)[0].upper())

    def commit(connection: Connection) -> None:
        count(connection, "COMMIT")

    def rollback(connection: Connection) -> None:
        count(connection, "ROLLBACK")

    listening = (("before_cursor_execute", statement), ("commit", commit), ("rollback", rollback))
    for name, listener in listening:
        event.listen(Engine, name, listener)
    try:
        yield counted
    finally:
        for name, listener in listening:
            event.remove(Engine, name, listener)
