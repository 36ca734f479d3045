"""One worker process a team against two: what more processes give where all share the same cores."""

from deploy.supervisor import together
from services.shared.settings import TEAMS
from tests.bench.customers import customers
from tests.bench.report import Part
from tests.bench.rounds import Round, run_round, side_by_side, taking_turns
from tests.bench.size import Say, Size
from tests.bench.stage import stage

NUMBER, TITLE = 5, "One against two worker processes a team"
ONE, TWO = "one each", "two each"


async def measure(size: Size, say: Say) -> Part:
    async with stage() as here, customers(here) as who:
        await together(here.start_workers(), here.start_api())

        async def orders(count: int) -> Round:
            return await run_round(here.cpu, [who.order_and_wait] * count, size.in_flight)

        async def with_second() -> Round:
            async with here.running(*(here.another_worker(team, 2) for team in TEAMS)):
                await orders(size.in_flight)  # new processes first read what they run
                return await orders(size.orders)

        kinds = {ONE: lambda: orders(size.orders), TWO: with_second}
        rounds = await taking_turns(say, "worker processes", size.rounds, kinds)
    table, figures = side_by_side(
        f"Worker processes a team, {size.in_flight} in flight, {size.orders} a round",
        rounds,
        against=ONE,
        note="The whole shop, over HTTP.",
    )
    return Part(number=NUMBER, title=TITLE, tables=[table], figures=figures)
