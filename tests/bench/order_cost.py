"""What a happy order costs the engine, beside a bare workflow of four empty activities: `make bench`.

First one order, and then many at once, with every worker in this process, where calls and SQL can be counted. Then
the shop's worker processes and those of the bare workflow in turn, on the same server, with as many in flight. Only
the counts and the ratio mean something elsewhere: the server keeps everything in one SQLite file.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from services.shared.settings import TEAMS
from tests.bench.cost import MOST_EVENTS, Cost, cost
from tests.bench.stage import Customers, Stage, cpu_seconds, customers, stage

_AIM = 0.75


@dataclass(frozen=True)
class Round:
    """How fast `count` of one kind went through, and the CPU time of each group of processes."""

    count: int
    seconds: float
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        return self.count / self.seconds


def main() -> int:
    """The process's exit status: 1 when an order costs the engine more events than it may."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.order_cost", description=__doc__)
    parser.add_argument("--orders", type=int, default=100, help="of each kind in each round (100)")
    parser.add_argument("--in-flight", type=int, default=32, help="at once (32)")
    parser.add_argument("--rounds", type=int, default=4, help="of each kind (4)")
    parser.add_argument("--counted", type=int, default=32, help="orders whose calls and SQL are counted (32)")
    asked = parser.parse_args()
    console = Console()
    measured, shop, bare = asyncio.run(_measure(console, asked))
    console.print(_events_table(measured), _counts_table(measured), _rates_table(shop, bare, asked.in_flight))
    if measured.most_events > MOST_EVENTS:
        console.print(f"[red]{measured.most_events} events until DeliveryStarted: {MOST_EVENTS} are allowed[/]")
        return 1
    return 0


async def _measure(console: Console, asked: argparse.Namespace) -> tuple[Cost, list[Round], list[Round]]:
    shop: list[Round] = []
    bare: list[Round] = []
    async with stage() as here:
        with console.status("counting events, calls and SQL …"):
            measured = await cost(asked.counted)
        async with customers() as who:
            await here.start_workers()
            for number in range(asked.rounds + 1):
                with console.status(f"round {number} of {asked.rounds} …"):
                    pair = (await _shop_round(here, who, asked), await _bare_round(here, who, asked))
                if number:  # the first only warms up
                    shop.append(pair[0])
                    bare.append(pair[1])
                    console.print(f"round {number}: shop {pair[0].rate:.1f}/s, bare {pair[1].rate:.1f}/s")
    return measured, shop, bare


async def _shop_round(here: Stage, who: Customers, asked: argparse.Namespace) -> Round:
    orders = await who.accept(asked.orders)
    return await _round(here, [lambda order=order: who.go_through(order) for order in orders], asked.in_flight)


async def _bare_round(here: Stage, who: Customers, asked: argparse.Namespace) -> Round:
    return await _round(here, [who.go_through_bare] * asked.orders, asked.in_flight)


async def _round(here: Stage, work: Sequence[Callable[[], Awaitable[None]]], in_flight: int) -> Round:
    left = iter(work)

    async def one_after_the_other() -> None:
        for one in left:
            await one()

    before, began = _cpu(here), time.monotonic()
    await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))
    seconds, after = time.monotonic() - began, _cpu(here)
    return Round(len(work), seconds, {name: after[name] - before[name] for name in after})


def _cpu(here: Stage) -> dict[str, float]:
    pids = here.supervisor.pids
    return {
        "server": cpu_seconds([pids["temporal"]]),
        **{f"{team} worker": cpu_seconds([pids[f"worker-{team}"], pids[f"bare-{team}"]]) for team in TEAMS},
        "payment simulator": cpu_seconds([pids["payments"]]),
        "this process": cpu_seconds([os.getpid()]),
    }


def _events_table(measured: Cost) -> Table:
    table = Table(title="History events of a happy order", title_justify="left", show_footer=True)
    table.add_column("event", footer=f"all (allowed: {MOST_EVENTS})", no_wrap=True)
    table.add_column("until DeliveryStarted", footer=str(measured.events.total()), justify="right")
    table.add_column("until Delivered", footer=str(measured.events_in_all.total()), justify="right")
    for name, count in measured.events_in_all.most_common():
        table.add_row(name, str(measured.events[name] or ""), str(count))
    table.caption = f"the most among {measured.orders} orders at once, until DeliveryStarted: {measured.most_events}"
    return table


def _counts_table(measured: Cost) -> Table:
    table = Table(title=f"Calls and SQL an order, of {measured.orders} at once", title_justify="left")
    table.add_column("what")
    table.add_column("an order", justify="right")
    table.add_column("made of")
    for name, counts in (("calls on the engine", measured.calls), ("polls that it answered", measured.polls)):
        table.add_row(name, *_each(counts, measured.orders))
    table.add_row("calls and polls", f"{(measured.calls.total() + measured.polls.total()) / measured.orders:.1f}", "")
    table.add_section()
    everything: Counter[str] = Counter()
    for name, counts in measured.statements.items():
        everything += counts
        table.add_row(f"SQL: {name}", *_each(counts, measured.orders))
    table.add_row("SQL in all", *_each(everything, measured.orders))
    return table


def _each(counts: Counter[str], orders: int) -> tuple[str, str]:
    parts = ", ".join(f"{name} {count / orders:.1f}" for name, count in counts.most_common())
    return f"{counts.total() / orders:.1f}", parts


def _rates_table(shop: list[Round], bare: list[Round], in_flight: int) -> Table:
    ratios = [a.rate / b.rate for a, b in zip(shop, bare, strict=True)]
    table = Table(title=f"Throughput, {in_flight} in flight, {len(shop)} rounds in turn", title_justify="left")
    table.add_column("")
    for name in ("A: shop", "B: bare", "A/B"):
        table.add_column(name, justify="right")
    a, b = (statistics.median(one.rate for one in rounds) for rounds in (shop, bare))
    spread = f"{min(ratios):.2f} … {max(ratios):.2f}"
    table.add_row("a second (median)", f"{a:.1f}", f"{b:.1f}", f"[bold]{statistics.median(ratios):.2f}[/] ({spread})")
    table.add_section()
    for name in shop[0].cpu:
        used = [_milliseconds(rounds, name) for rounds in (shop, bare)]
        table.add_row(f"CPU ms each: {name}", *(f"{one:.1f}" for one in used), "")
    whole = [sum(_milliseconds(rounds, name) for name in shop[0].cpu) for rounds in (shop, bare)]
    table.add_row("CPU ms each: in all", *(f"{one:.1f}" for one in whole), f"{whole[1] / whole[0]:.2f} (B/A)")
    table.caption = f"aim: {_AIM} or better; the ratio is each round's own, its median"
    return table


def _milliseconds(rounds: list[Round], name: str) -> float:
    return 1000 * sum(one.cpu[name] for one in rounds) / sum(one.count for one in rounds)


if __name__ == "__main__":
    sys.exit(main())
