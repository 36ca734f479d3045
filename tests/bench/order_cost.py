"""What a happy order costs the engine, beside a bare workflow of four empty activities: `make bench`.

First one order, and then many at once, with every worker in this process, where calls and SQL can be counted. Then
the shop's worker processes and those of the bare workflow in turn, on the same server, with as many in flight. Only
the counts and the ratio mean something elsewhere: the server keeps everything in one SQLite file.
"""

import argparse
import asyncio
import sys
from collections import Counter

from rich.console import Console
from rich.table import Table

from deploy.supervisor import together
from tests.bench.cost import MOST_EVENTS, Cost, cost
from tests.bench.rounds import Round, rates_table, run_round, shop_round
from tests.bench.stage import Customers, Stage, customers, stage

_AIM = 0.75


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
    console.print(
        _events_table(measured),
        _counts_table(measured),
        rates_table(("shop", shop), ("bare", bare), asked.in_flight, aim=_AIM),
    )
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
            await together(here.start_workers(), here.start_bare_workers())
            for number in range(asked.rounds + 1):
                with console.status(f"round {number} of {asked.rounds} …"):
                    pair = (
                        await shop_round(here, who, asked.orders, asked.in_flight),
                        await _bare_round(here, who, asked),
                    )
                if number:  # the first only warms up
                    shop.append(pair[0])
                    bare.append(pair[1])
                    console.print(f"round {number}: shop {pair[0].rate:.1f}/s, bare {pair[1].rate:.1f}/s")
    return measured, shop, bare


async def _bare_round(here: Stage, who: Customers, asked: argparse.Namespace) -> Round:
    return await run_round(here, [who.go_through_bare] * asked.orders, asked.in_flight)


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


if __name__ == "__main__":
    sys.exit(main())
