"""The shop on MySQL beside the shop on SQLite.

In turn, a fresh shop on each: engine, workers and databases of its own, as many orders in flight. The server of the
engine keeps everything in one SQLite file either way and is what bounds both.
"""

from tests.bench.customers import customers
from tests.bench.report import Part
from tests.bench.rounds import Round, side_by_side, taking_turns
from tests.bench.size import Say, Size
from tests.bench.stage import Kind, stage
from tests.bench.throughput import engine_round

NUMBER, TITLE = 8, "MySQL beside SQLite"
MYSQL, SQLITE = "MySQL", "SQLite"
AIM = 0.8


async def measure(size: Size, say: Say) -> Part:
    async def shop(kind: Kind) -> Round:
        async with stage(kind) as here, customers(here) as who:
            await here.start_workers()
            await engine_round(here, who, size)  # warms up
            return await engine_round(here, who, size)

    kinds = {MYSQL: lambda: shop("mysql"), SQLITE: lambda: shop("sqlite")}
    rounds = await taking_turns(say, "databases", size.rounds, kinds, warm_up=False)
    table, figures = side_by_side(
        f"Without the API, {size.in_flight} in flight, {size.orders} a round",
        rounds,
        against=SQLITE,
        note=f"Aim: ≥ {AIM}.",
    )
    return Part(number=NUMBER, title=TITLE, tables=[table], figures=figures)
