"""The delivery team was away: how long what piled up takes to drain, and how new orders fare meanwhile and after it."""

import asyncio
import time
from collections.abc import Callable, Sequence

from services.order.statuses import OrderStatus
from tests.bench.customers import Customers, customers
from tests.bench.report import Part, Table, number
from tests.bench.rounds import percentile
from tests.bench.size import Say, Size
from tests.bench.stage import stage

NUMBER, TITLE = 7, "A backlog, after the delivery team was away"
_AT_ONCE = 16
_LOOK_SECONDS = 0.25
_WAITING = OrderStatus.COUPON_ISSUED


async def measure(size: Size, say: Say) -> Part:
    async with stage() as here, customers(here) as who:
        workers = {team: here.shop.worker(team) for team in ("order", "marketing", "delivery")}
        await here.supervisor.start(workers["order"], workers["marketing"])
        await here.start_api()
        last = await _pile_up(say, who, size.backlog)
        began = time.monotonic()
        await here.supervisor.start(workers["delivery"])

        async def drain() -> float:
            while left := await who.how_many(_WAITING, last):
                say.doing(f"the backlog is drained: {left:,} of {size.backlog:,} left")
                await asyncio.sleep(_LOOK_SECONDS)
            return time.monotonic() - began

        draining = asyncio.create_task(drain())
        meanwhile = await _one_by_one(who, size.every_seconds, lambda _: not draining.done())
        drained = await draining
        say.done(f"{size.backlog:,} orders drained in {drained:.0f} s")
        say.doing("new orders without a backlog")
        after = await _one_by_one(who, size.every_seconds, lambda count: count < size.after)
    slower = percentile(meanwhile, 0.5) / percentile(after, 0.5)
    rows = [
        [f"{name} ms ¹", number(percentile(meanwhile, share)), number(percentile(after, share))]
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]
    rows.append(["p50, of that without", number(slower), "1"])
    rows.append(["orders", str(len(meanwhile)), str(len(after))])
    return Part(
        number=NUMBER,
        title=TITLE,
        tables=[
            Table(
                title=f"New orders, one every {size.every_seconds:g} s",
                columns=["until DeliveryStarted", "while the backlog drains", "without a backlog"],
                rows=rows,
                note=f"{size.backlog:,} orders waited for the delivery team; once its worker was started they were"
                f" drained in {drained:.0f} s, {size.backlog / drained:.1f} a second ¹. ¹ On this machine.",
            )
        ],
        figures={
            "seconds to drain": [drained],
            "drained a second": [size.backlog / drained],
            "meanwhile ms": [*meanwhile],
            "after ms": [*after],
        },
    )


async def _pile_up(say: Say, who: Customers, count: int) -> str:
    """Order so much that nothing but the delivery team is waited for. The last order's id."""
    left, ids = iter(range(count)), list[str]()

    async def one_after_the_other() -> None:
        for _ in left:
            ids.append(await who.order())

    await asyncio.gather(*(one_after_the_other() for _ in range(_AT_ONCE)))
    last = max(ids)
    while (waiting := await who.how_many(_WAITING, last)) < count:
        say.doing(f"a backlog piles up: {waiting:,} of {count:,}")
        await asyncio.sleep(_LOOK_SECONDS)
    return last


async def _one_by_one(who: Customers, every_seconds: float, more: Callable[[int], bool]) -> Sequence[float]:
    """A new order every so often, whatever becomes of those before, while `more` is true of how many there were.

    What each took, in milliseconds, in their order.
    """
    under_way: list[asyncio.Task[float]] = []
    while more(len(under_way)):
        under_way.append(asyncio.create_task(who.order_and_wait()))
        await asyncio.sleep(every_seconds)
    return await asyncio.gather(*under_way)
