"""The shop on MySQL beside the shop on SQLite: `make bench`.

In turn, a fresh shop on each: engine, workers and databases of its own, as many orders in flight. The server of the
engine keeps everything in one SQLite file either way and is what bounds both; only the ratio means something elsewhere.
"""

import argparse
import asyncio
import sys

from rich.console import Console

from tests.bench.rounds import Round, rates_table, shop_round
from tests.bench.stage import Kind, customers, stage

_AIM = 0.8
_WARM_UP = 40


def main() -> int:
    """The process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.databases", description=__doc__)
    parser.add_argument("--orders", type=int, default=150, help="in each round (150)")
    parser.add_argument("--in-flight", type=int, default=32, help="at once (32)")
    parser.add_argument("--rounds", type=int, default=4, help="on each (4)")
    asked = parser.parse_args()
    console = Console()
    rounds: dict[Kind, list[Round]] = {"mysql": [], "sqlite": []}
    for number in range(1, asked.rounds + 1):
        # In turn who comes first: a machine that tires or warms up must not decide.
        for kind in sorted(rounds, reverse=bool(number % 2)):
            with console.status(f"round {number} of {asked.rounds}: {kind} …"):
                rounds[kind].append(asyncio.run(_round(kind, asked.orders, asked.in_flight)))
        console.print(f"round {number}: " + ", ".join(f"{kind} {rounds[kind][-1].rate:.1f}/s" for kind in rounds))
    console.print(rates_table(("MySQL", rounds["mysql"]), ("SQLite", rounds["sqlite"]), asked.in_flight, aim=_AIM))
    return 0


async def _round(kind: Kind, orders: int, in_flight: int) -> Round:
    async with stage(kind) as here, customers() as who:
        await here.start_workers()
        await shop_round(here, who, _WARM_UP, in_flight)
        return await shop_round(here, who, orders, in_flight)


if __name__ == "__main__":
    sys.exit(main())
