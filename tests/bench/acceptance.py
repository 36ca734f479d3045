"""What taking an order costs the API, beside a bare handler, and what refusing one does: `make bench`.

Every measurement is made on a fresh shop without workers: databases, engine and one API process, asked by a crowd in a
process of its own. First orders with the limit of payments in flight out of the way, in turn with a bare handler that
puts one row in. Then a crowd that meets the limit: first nothing is paid and everybody is refused, then a stand-in for
the workflows moves orders on, so that some are taken among those that are refused. Only the ratios mean something
elsewhere.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import get_args

from rich.console import Console
from rich.table import Table

from deploy.local import Shop
from deploy.supervisor import Program, Supervisor
from services.order.book import OrderBook
from services.order.statuses import EventType, OrderState, OrderStatus, PayStatus, TimelineEntry
from services.shared.clock import utc_now
from services.shared.database import Database
from services.shared.settings import DatabaseSettings
from tests.bench.load import Answers, crowd, merged, percentile
from tests.bench.rounds import Round, rates_table
from tests.bench.stage import Kind, cpu_seconds, stage

_AIM = 0.5
_AIMS = "300 a second and p99 under 100 ms with 32 customers on a machine of two cores"
_TAKEN, _REFUSED = 202, 503
_NO_LIMIT = 1_000_000
_CROWD = 100
_PAYMENT_SECONDS = 0.1
_PROCESSES = {"api": "API process", "temporal": "Temporal server", "mariadb": "MariaDB"}


@dataclass(frozen=True)
class Served(Round):
    """How a crowd was served, and the CPU time that it took itself."""

    answers: Answers
    crowd_cpu: float

    def took(self, status: int, share: float) -> float:
        """The milliseconds within which this share of the answers with a status came."""
        return percentile(self.answers.get(status, []), share)


@dataclass(frozen=True)
class Api:
    """Where orders are taken, and the processes that have to do with it."""

    url: str
    pids: dict[str, int]

    def cpu(self) -> dict[str, float]:
        """The CPU time used so far, by what the processes are."""
        return {name: cpu_seconds([self.pids[one]]) for one, name in _PROCESSES.items() if one in self.pids}


def main() -> int:
    """The process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.acceptance", description=__doc__)
    parser.add_argument("--customers", type=int, default=32, help="who order at once (32)")
    parser.add_argument("--seconds", type=float, default=5, help="for how long in each round (5)")
    parser.add_argument("--rounds", type=int, default=4, help="of each kind (4)")
    parser.add_argument("--database", choices=get_args(Kind), default="sqlite", help="on what (sqlite)")
    asked = parser.parse_args()
    console = Console()
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    console.print(f"Nothing else should keep this machine busy. Its load average now: {load}")
    shop, bare = _acceptances(console, asked)
    console.print(_acceptance_table(shop, bare, asked))
    refused, mixed = _refusals(console, asked)
    console.print(_refusal_table(refused, mixed, asked))
    return 0


def _acceptances(console: Console, asked: argparse.Namespace) -> tuple[list[Served], list[Served]]:
    rounds: dict[str, list[Served]] = {"shop": [], "bare": []}
    for number in range(1, asked.rounds + 1):
        # In turn who comes first: a machine that tires or warms up must not decide.
        for kind in sorted(rounds, reverse=bool(number % 2)):
            program = _unlimited if kind == "shop" else _bare
            with console.status(f"acceptances, round {number} of {asked.rounds}: {kind} …"):
                rounds[kind].append(asyncio.run(_acceptance(asked, program)))
        console.print(f"round {number}: " + ", ".join(f"{kind} {rounds[kind][-1].rate:.0f}/s" for kind in rounds))
    return rounds["shop"], rounds["bare"]


def _refusals(console: Console, asked: argparse.Namespace) -> tuple[list[Served], list[Served]]:
    rounds: list[tuple[Served, Served]] = []
    for number in range(1, asked.rounds + 1):
        with console.status(f"refusals, round {number} of {asked.rounds} …"):
            rounds.append(asyncio.run(_refusal(asked)))
        refused, mixed = rounds[-1]
        taken = len(mixed.answers.get(_TAKEN, []))
        console.print(f"round {number}: {refused.rate:.0f}/s refused; {taken} taken among {mixed.count}")
    return [refused for refused, _ in rounds], [mixed for _, mixed in rounds]


async def _acceptance(asked: argparse.Namespace, program: Callable[[Shop], Program]) -> Served:
    async with _api(asked.database, program) as api:
        return await _serve(api, asked.customers, asked.seconds)


async def _refusal(asked: argparse.Namespace) -> tuple[Served, Served]:
    async with _api(asked.database, Shop.api) as api:
        refused = await _serve(api, _CROWD, asked.seconds)
        async with _payments():
            return refused, await _serve(api, _CROWD, asked.seconds)


@asynccontextmanager
async def _api(kind: Kind, program: Callable[[Shop], Program]) -> AsyncGenerator[Api]:
    """A fresh stage with an API process, which says nothing: what it has to say of each refusal is in the answers.

    The API goes last: an engine that sees it go complains of each order whose start is cut off.
    """
    supervisor = Supervisor(lambda _tag, _line: None)
    try:
        async with stage(kind) as here:
            await supervisor.start(program(here.shop))
            yield Api(here.shop.urls.api, supervisor.pids | here.supervisor.pids)
    finally:
        await supervisor.stop(asyncio.Event())


def _unlimited(shop: Shop) -> Program:
    api = shop.api()
    return replace(api, environment={**api.environment, "STREET12_MAX_PENDING_PAYMENTS": str(_NO_LIMIT)})


def _bare(shop: Shop) -> Program:
    return replace(shop.api(), command=[sys.executable, "-m", "tests.bench.bare_api"])


async def _serve(api: Api, customers: int, seconds: float) -> Served:
    marks: list[tuple[float, float, dict[str, float]]] = []

    def mark(crowd_cpu: float) -> None:
        marks.append((time.monotonic(), crowd_cpu, api.cpu()))

    answers = await crowd(f"{api.url}/orders", customers=customers, seconds=seconds, mark=mark)
    (began, crowd_before, before), (ended, crowd_after, after) = marks
    return Served(
        count=sum(map(len, answers.values())),
        seconds=ended - began,
        cpu={name: after[name] - before[name] for name in after},
        answers=answers,
        crowd_cpu=crowd_after - crowd_before,
    )


@asynccontextmanager
async def _payments() -> AsyncGenerator[None]:
    """A stand-in for the workflows: while it is there, orders are paid a moment after they were taken."""
    database = Database(DatabaseSettings().url("order"))
    paying = asyncio.create_task(_pay(OrderBook(database)))
    try:
        yield
    finally:
        paying.cancel()
        with suppress(asyncio.CancelledError):
            await paying
        await database.close()


async def _pay(book: OrderBook) -> None:
    paid = OrderState(order_status=OrderStatus.ORDER_PLACED, pay_status=PayStatus.PAID)
    while True:
        await asyncio.sleep(_PAYMENT_SECONDS)
        for pending in await book.list(order_status=OrderStatus.ORDER_RECEIVED, limit=_CROWD):
            placed = TimelineEntry(version=2, type=EventType.ORDER_PLACED, at=utc_now())
            await book.record(order_id=pending.order.order_id, state=paid, timeline=[placed])


def _acceptance_table(shop: Sequence[Served], bare: Sequence[Served], asked: argparse.Namespace) -> Table:
    table = rates_table(("POST /orders", [*shop]), ("bare handler", [*bare]), asked.customers, aim=_AIM)
    table.title = f"Acceptances, {asked.customers} customers, {asked.database}, {asked.rounds} rounds in turn"
    both = (shop, bare)
    table.add_row("CPU ms each: the crowd", *(_each(rounds, lambda one: one.crowd_cpu) for rounds in both), "")
    table.add_section()
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        table.add_row(f"{name} ms", *(_median(one.took(_TAKEN, share) for one in rounds) for rounds in both), "")
    table.add_row("answers", *(_by_status(rounds) for rounds in both), "")
    table.caption = f"aims: {_AIM} or better; {_AIMS}"
    return table


def _refusal_table(refused: Sequence[Served], mixed: Sequence[Served], asked: argparse.Namespace) -> Table:
    table = Table(title=f"Refusals, {_CROWD} customers, {asked.database}, {asked.rounds} rounds", title_justify="left")
    table.add_column("")
    for name in ("nothing is paid: 503", "some are taken: 503", "some are taken: 202"):
        table.add_column(name, justify="right")
    columns = ((refused, _REFUSED), (mixed, _REFUSED), (mixed, _TAKEN))
    table.add_row(
        "a second (median)",
        *(_median(len(one.answers.get(status, [])) / one.seconds for one in rounds) for rounds, status in columns),
    )
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        table.add_row(f"{name} ms", *(_median(one.took(status, share) for one in rounds) for rounds, status in columns))
    table.add_row(
        "CPU ms each: API process",
        *(_each(rounds, lambda one: one.cpu["API process"]) for rounds in (refused, mixed)),
        "",
    )
    table.add_row("answers", *(_by_status(rounds) for rounds in (refused, mixed)), "")
    kept = [one.took(_REFUSED, 0.99) < one.took(_TAKEN, 0.5) for one in mixed]
    table.caption = f"p99 of a refusal stays under p50 of an acceptance: in {sum(kept)} of {len(kept)} rounds"
    return table


def _median(of_rounds: Iterable[float]) -> str:
    return f"{statistics.median(of_rounds):.1f}"


def _each(rounds: Sequence[Served], cpu: Callable[[Served], float]) -> str:
    """Milliseconds of CPU for each answer."""
    return f"{1000 * sum(map(cpu, rounds)) / sum(one.count for one in rounds):.1f}"


def _by_status(rounds: Sequence[Served]) -> str:
    answers = merged([one.answers for one in rounds])
    return ", ".join(f"{status}: {len(took)}" for status, took in sorted(answers.items()))


if __name__ == "__main__":
    sys.exit(main())
