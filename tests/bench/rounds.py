"""Rounds of work, timed, and two kinds of them side by side."""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from services.shared.settings import TEAMS
from tests.bench.stage import Customers, Stage, cpu_seconds


@dataclass(frozen=True)
class Round:
    """How fast `count` of one kind went through, and the CPU time of each group of processes."""

    count: int
    seconds: float
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        return self.count / self.seconds


async def shop_round(here: Stage, who: Customers, orders: int, in_flight: int) -> Round:
    """So many happy orders, each until its customer reads `DeliveryStarted`."""
    accepted = await who.accept(orders)
    return await run_round(here, [lambda order=order: who.go_through(order) for order in accepted], in_flight)


async def run_round(here: Stage, work: Sequence[Callable[[], Awaitable[None]]], in_flight: int) -> Round:
    """Do it all, so much at once."""
    left = iter(work)

    async def one_after_the_other() -> None:
        for one in left:
            await one()

    before, began = _cpu(here), time.monotonic()
    await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))
    seconds, after = time.monotonic() - began, _cpu(here)
    return Round(len(work), seconds, {name: after[name] - before[name] for name in after})


def rates_table(a: tuple[str, list[Round]], b: tuple[str, list[Round]], in_flight: int, *, aim: float) -> Table:
    """How fast two kinds went through in turn. The ratio is each round's own, and its median counts."""
    ratio, spread = _ratios(a[1], b[1])
    table = Table(title=f"Throughput, {in_flight} in flight, {len(a[1])} rounds in turn", title_justify="left")
    table.add_column("")
    for name in (f"A: {a[0]}", f"B: {b[0]}", "A/B"):
        table.add_column(name, justify="right")
    rates = [statistics.median(one.rate for one in rounds) for _, rounds in (a, b)]
    table.add_row("a second (median)", *(f"{rate:.1f}" for rate in rates), f"[bold]{ratio:.2f}[/] ({spread})")
    table.add_section()
    for name in a[1][0].cpu:
        used = [_milliseconds(rounds, name) for _, rounds in (a, b)]
        table.add_row(f"CPU ms each: {name}", *(f"{one:.1f}" for one in used), "")
    whole = [sum(_milliseconds(rounds, name) for name in rounds[0].cpu) for _, rounds in (a, b)]
    table.add_row("CPU ms each: in all", *(f"{one:.1f}" for one in whole), f"{whole[1] / whole[0]:.2f} (B/A)")
    table.caption = f"aim: {aim} or better"
    return table


def _ratios(a: list[Round], b: list[Round]) -> tuple[float, str]:
    ratios = [one.rate / other.rate for one, other in zip(a, b, strict=True)]
    return statistics.median(ratios), f"{min(ratios):.2f} … {max(ratios):.2f}"


def _milliseconds(rounds: list[Round], name: str) -> float:
    return 1000 * sum(one.cpu[name] for one in rounds) / sum(one.count for one in rounds)


def _cpu(here: Stage) -> dict[str, float]:
    """The CPU time used so far, by what the processes are."""
    pids = here.supervisor.pids
    return {
        "server": cpu_seconds([pids["temporal"]]),
        **{
            f"{team} worker": cpu_seconds([pids[name] for name in (f"worker-{team}", f"bare-{team}") if name in pids])
            for team in TEAMS
        },
        "payment simulator": cpu_seconds([pids["payments"]]),
        "MariaDB": cpu_seconds([pids[name] for name in ("mariadb",) if name in pids]),
        "this process": cpu_seconds([os.getpid()]),
    }
