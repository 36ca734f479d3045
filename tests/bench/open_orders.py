"""What orders cost that wait for their delivery: how new ones fare beside them, and the memory and the room of each.

Two shops run on the machine, each with engine, workers, databases and API of its own. One is filled with orders in
`DeliveryStarted`, whose workflows are open. At each level orders go through both in turn, so that noise meets both;
those are delivered after each round, outside of the measured time, so that levels stay what they are called.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass

from deploy.supervisor import together
from tests.bench.customers import Customers, customers
from tests.bench.report import Figures, Part, Table, number
from tests.bench.rounds import Round, percentile, ratios, run_round, spread, taking_turns
from tests.bench.size import Say, Size
from tests.bench.stage import Stage, stage

NUMBER, TITLE = 4, "Open orders"
AIM = 0.9
_FILLED, _EMPTY = "filled shop", "empty shop"
_COLUMNS = (
    "filled, a second ¹",
    "empty, a second ¹",
    "filled/empty",
    "filled, p50 ms ¹",
    "empty, p50 ms ¹",
    "s to fill ¹",
)
_AT_ONCE = 64
_TOLD_EACH = 500
_WATCHED = ("order worker", "Temporal server")


@dataclass(frozen=True)
class _Room:
    """What is taken up, in bytes, by what takes it."""

    resident: dict[str, int]
    database: int

    @staticmethod
    def of(here: Stage) -> "_Room":
        files = here.data_dir.glob("temporal.db*")
        resident = here.resident()
        return _Room({what: resident[what] for what in _WATCHED}, sum(file.stat().st_size for file in files))

    def each(self, before: "_Room", orders: int) -> dict[str, float]:
        """Bytes of each of the orders that came since."""
        grown = {what: self.resident[what] - before.resident[what] for what in _WATCHED}
        grown["temporal.db"] = self.database - before.database
        return {what: size / orders for what, size in grown.items()}


async def measure(size: Size, say: Say) -> Part:
    figures: Figures = {"open": []}
    levels: list[list[str]] = []
    rooms: list[list[str]] = []
    filled = 0
    # Customers belong to the stage that was built last.
    async with stage() as here, customers(here) as who, stage() as other, customers(other) as others:
        await together(*(start() for one in (here, other) for start in (one.start_workers, one.start_api)))
        kinds = {_FILLED: lambda: _round(here, who, size), _EMPTY: lambda: _round(other, others, size)}
        await taking_turns(say, "open orders, warming up", 1, kinds, warm_up=False)
        before = _Room.of(here)
        for level in sorted(size.open_orders):
            took = await _fill(say, who, level - filled)
            filled = level
            if level:
                each = _Room.of(here).each(before, level)
                rooms.append([f"{level:,}", *(number(one / 1024) for one in each.values())])
                figures |= {f"bytes each: {level}: {what}": [one] for what, one in each.items()}
            rounds = await taking_turns(say, f"{level:,} open", size.rounds, kinds, warm_up=False)
            ratio = ratios(rounds[_FILLED], rounds[_EMPTY])
            rates = [number(statistics.median(one.rate for one in of)) for of in rounds.values()]
            p50s = [number(percentile([one for of in each for one in of.took], 0.5)) for each in rounds.values()]
            levels.append([f"{level:,}", *rates, spread(ratio), *p50s, f"{took:.0f}"])
            figures["open"].append(level)
            figures |= {f"ratio: {level}": ratio, f"seconds to fill: {level}": [took]}
    tables = [
        Table(
            title=f"New orders beside open ones, {size.in_flight} in flight, {size.orders} a round",
            columns=["open", *_COLUMNS],
            rows=levels,
            note=f"{size.rounds} rounds in turn; medians. Aim: ≥ {AIM}. With 0 open the ratio says how far two shops"
            " of the same kind lie apart. ¹ On this machine, with the other shop beside it.",
        ),
        Table(
            title="Room that an open order takes",
            columns=["open", *(f"KiB: {what}" for what in (*_WATCHED, "temporal.db"))],
            rows=rooms,
            note="Processes: resident memory when filled, less that before, by the number of orders.",
        ),
    ]
    return Part(number=NUMBER, title=TITLE, tables=tables, figures=figures)


async def _round(here: Stage, who: Customers, size: Size) -> Round:
    await who.be_delivered()  # those of the round before: what is filled in was forgotten by then
    return await run_round(here.cpu, [who.order_and_wait] * size.orders, size.in_flight)


async def _fill(say: Say, who: Customers, count: int) -> float:
    """Leave so many more orders open; in how many seconds. Without the API, which they need not be measured with."""
    await who.be_delivered()
    began, done = time.monotonic(), 0

    async def one_after_the_other() -> None:
        nonlocal done
        for order in left:
            await who.go_through(order)
            done += 1
            say.doing(f"filling the shop: {done:,} of {count:,} open orders, {time.monotonic() - began:.0f} s")
            if done % _TOLD_EACH == 0:
                say.done(f"{done:,} of {count:,} open orders, {done / (time.monotonic() - began):.1f}/s")

    left = iter(await who.accept(count))
    await asyncio.gather(*(one_after_the_other() for _ in range(_AT_ONCE)))
    who.under_way.clear()  # they stay
    return time.monotonic() - began
