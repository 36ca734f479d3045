"""How fast orders are settled, beside workflows that do less on the same server.

The whole shop: orders come over HTTP to the API process, are paid at the simulator, kept in three databases, and read
as `DeliveryStarted`. The shop without its API: accepted beforehand, the clock runs from the workflow's start. Held
against four empty remote activities on three teams' queues, and against an empty workflow.
"""

from collections.abc import Mapping, Sequence

from deploy.supervisor import together
from tests.bench.customers import BUSY_LOOK_SECONDS, LOOK_SECONDS, Customers, customers
from tests.bench.report import Part, Table, number
from tests.bench.rounds import Round, Work, percentile, run_round, side_by_side, taking_turns
from tests.bench.size import Say, Size
from tests.bench.stage import Stage, stage

NUMBER, TITLE = 1, "Orders settled, beside bare workflows"
SHOP, ENGINE, BARE, EMPTY = "whole shop", "without its API", "four empty activities", "empty workflow"
AIM = 0.8


async def measure(size: Size, say: Say) -> Part:
    async with stage() as here, customers(here) as who:
        await together(here.start_workers(), here.start_bare_workers(), here.start_api())
        kinds = {
            SHOP: lambda: run_round(here.cpu, [who.order_and_wait] * size.orders, size.in_flight),
            ENGINE: lambda: engine_round(here, who, size),
            BARE: lambda: run_round(here.cpu, [who.go_through_bare] * size.orders, size.in_flight),
            EMPTY: lambda: run_round(here.cpu, [who.go_through_empty] * size.orders, size.in_flight),
        }
        rounds = await taking_turns(say, f"{size.in_flight} in flight", size.rounds, kinds)
        alone = await _alone(say, who, size.alone)
    table, figures = side_by_side(
        f"{size.in_flight} in flight, {size.orders} a round",
        rounds,
        against=BARE,
        note=f"Aim: the whole shop ≥ {AIM} of {BARE}. The customers look every {1000 * BUSY_LOOK_SECONDS:.0f} ms.",
    )
    for kind, took in alone.items():
        figures |= {f"alone p50 ms: {kind}": [percentile(took, 0.5)], f"alone p99 ms: {kind}": [percentile(took, 0.99)]}
    return Part(number=NUMBER, title=TITLE, tables=[table, _alone_table(alone)], figures=figures)


async def engine_round(here: Stage, who: Customers, size: Size) -> Round:
    """A round of orders that were accepted beforehand."""
    accepted = await who.accept(size.orders)
    return await run_round(here.cpu, [lambda order=order: who.go_through(order) for order in accepted], size.in_flight)


async def _alone(say: Say, who: Customers, count: int) -> Mapping[str, Sequence[float]]:
    kinds: dict[str, Work] = {SHOP: who.order_and_wait, BARE: who.go_through_bare, EMPTY: who.go_through_empty}
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    say.doing(f"{count} of each kind, one at a time")
    for _ in range(count):
        for kind, work in kinds.items():
            took[kind].append(await work())
    return took


def _alone_table(alone: Mapping[str, Sequence[float]]) -> Table:
    rows = [
        [f"{name} ms ¹", *(number(percentile(took, share)) for took in alone.values())]
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]
    count = len(alone[SHOP])
    return Table(
        title="Latency, one at a time",
        columns=["", *alone],
        rows=rows,
        note=f"{count} of each kind in turn. The customer looks every {1000 * LOOK_SECONDS:.0f} ms. ¹ On this machine.",
    )
