"""What one order costs: its events, and with every worker in this process, its calls on the engine and its SQL."""

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

from services.order.tables import Order
from services.shared.settings import TEAMS, WorkerSettings
from tests.bench.stage import Customers, customers
from worker import _worker as team_worker  # pyright: ignore[reportPrivateUsage]  (the workers as they really are)

MOST_EVENTS = 36
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
    statements: dict[str, Counter[str]]
    """By database, the accepting of orders by itself."""


async def events_of_one_order() -> Counter[str]:
    """The history of a happy order until `DeliveryStarted`, on a stage without workers."""
    async with customers() as who, _workers(who.client):
        return await _events(who, await _one(who))


async def cost(orders: int) -> Cost:
    """The cost of an order, on a stage without workers. So many orders go through at once."""
    buffer = MetricBuffer(_BUFFER)
    runtime = Runtime(telemetry=TelemetryConfig(metrics=buffer))
    async with customers(runtime) as who, _workers(who.client):
        first = await _one(who)
        events = await _events(who, first)
        await who.engine.delivered(first.order_id)
        await who.client.get_workflow_handle(first.order_id).result()
        in_all = await _events(who, first)
        buffer.retrieve_updates()
        with _statements(who) as statements:
            accepted = await who.accept(orders)
            await asyncio.gather(*(who.go_through(order) for order in accepted))
            await asyncio.sleep(0.5)  # for what the last workflow tasks still tell the engine
        calls, polls = _requests(buffer)
        most = max([(await _events(who, order)).total() for order in accepted])
    return Cost(
        orders=orders,
        events=events,
        events_in_all=in_all,
        most_events=max(most, events.total()),
        calls=calls,
        polls=polls,
        statements=statements,
    )


async def _one(who: Customers) -> Order:
    [order] = await who.accept(1)
    await who.go_through(order)
    return order


async def _events(who: Customers, order: Order) -> Counter[str]:
    async with asyncio.timeout(30):
        while True:
            history = await who.client.get_workflow_handle(order.order_id).fetch_history()
            if _is_settled(history):
                return Counter(EventType.Name(one.event_type).removeprefix("EVENT_TYPE_") for one in history.events)
            await asyncio.sleep(0.02)


def _is_settled(history: WorkflowHistory) -> bool:
    """Whether nothing of it is on its way: the customer reads a status a moment before the engine knows that he may."""
    return history.events[-1].event_type not in _UNSETTLED


@asynccontextmanager
async def _workers(client: Client) -> AsyncGenerator[None]:
    async with AsyncExitStack() as stack:
        for team in TEAMS:
            await stack.enter_async_context(await team_worker(team, client, WorkerSettings(), stack))
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
    """Counts the SQL of every database but the one through which the measurement itself looks."""
    counted: dict[str, Counter[str]] = {}
    front, window = who.front.engine.sync_engine, who.window.engine.sync_engine

    def count(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if connection.engine is not window:
            database = (make_url(connection.engine.url).database or "").rpartition("/")[2].removesuffix(".db")
            name = "acceptance" if connection.engine is front else database
            counted.setdefault(name, Counter())[statement.split(maxsplit=1)[0].upper()] += 1

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield counted
    finally:
        event.remove(Engine, "before_cursor_execute", count)
