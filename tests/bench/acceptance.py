"""What taking an order costs the API, beside a bare handler, and what refusing one does.

Every round is made on a fresh shop without workers: databases, engine and one API process, asked by a crowd in a
process of its own. First orders with the limit of payments in flight out of the way, in turn with a bare handler that
puts one row in. Then a crowd that meets the limit: first nothing is paid and everybody is refused, then a stand-in for
the workflows moves orders on, so that some are taken among those that are refused.
"""

import asyncio
import statistics
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from deploy.local import Shop
from deploy.supervisor import Program, Supervisor
from services.order.book import OrderBook
from services.order.statuses import EventType, OrderState, OrderStatus, PayStatus, TimelineEntry
from services.shared.clock import utc_now
from services.shared.database import Database
from services.shared.settings import DatabaseSettings
from tests.bench.load import Served, crowd, merged
from tests.bench.report import Figures, Part, Table, number
from tests.bench.rounds import Cpu, side_by_side, taking_turns
from tests.bench.size import Say, Size
from tests.bench.stage import NO_LIMIT, cpu_by_what, stage

NUMBER, TITLE = 2, "Orders accepted, beside a bare insert"
SHOP, BARE = "POST /orders", "bare insert"
AIM = 0.5
_AIMS = "300 a second and p99 under 100 ms with 32 customers on two cores"
_TAKEN, _REFUSED = 202, 503
_PLACES = 3
_CROWD = 100
_PAYMENT_SECONDS = 0.1


@dataclass(frozen=True)
class Api:
    """Where orders are taken, and what it and those behind it use."""

    url: str
    cpu: Cpu


async def measure(size: Size, say: Say) -> Part:
    served: dict[str, list[Served]] = {SHOP: [], BARE: []}

    async def acceptance(kind: str, program: Callable[[Shop], Program]) -> Served:
        async with _api(program, NO_LIMIT) as api:
            served[kind].append(await _serve(api, size.in_flight, size.seconds))
        return served[kind][-1]

    kinds = {SHOP: lambda: acceptance(SHOP, Shop.api), BARE: lambda: acceptance(BARE, _bare)}
    rounds = await taking_turns(say, "acceptances", size.rounds, kinds, warm_up=False)
    accepted, figures = side_by_side(
        f"Acceptances, {size.in_flight} customers",
        rounds,
        against=BARE,
        note=f"Aims: ≥ {AIM}; {_AIMS}. The bare handler checks nothing: one row, in a transaction of its own.",
    )
    accepted.rows.append(["answers", *(_by_status(served[kind]) for kind in kinds)])
    refusals: list[tuple[Served, Served]] = []
    for turn in range(1, size.rounds + 1):
        say.doing(f"refusals, round {turn} of {size.rounds}")
        refused, mixed = await _refusal(size.seconds)
        refusals.append((refused, mixed))
        taken = len(mixed.answers.get(_TAKEN, []))
        say.done(f"refusals, round {turn}: {refused.rate:.0f}/s refused; {taken} taken among {mixed.count}")
    table, more = _refusal_table([one for one, _ in refusals], [one for _, one in refusals])
    return Part(number=NUMBER, title=TITLE, tables=[accepted, table], figures=figures | more)


async def _refusal(seconds: float) -> tuple[Served, Served]:
    async with _api(Shop.api, _PLACES) as api:
        refused = await _serve(api, _CROWD, seconds)
        async with _payments():
            return refused, await _serve(api, _CROWD, seconds)


@asynccontextmanager
async def _api(program: Callable[[Shop], Program], max_pending: int) -> AsyncGenerator[Api]:
    """A fresh stage with an API process, which says nothing: what it has to say of each refusal is in the answers.

    The API goes last: an engine that sees it go complains of each order whose start is cut off.
    """
    supervisor = Supervisor(lambda _tag, _line: None)
    try:
        async with stage(max_pending=max_pending) as here:
            await supervisor.start(program(here.shop))
            yield Api(here.shop.urls.api, lambda: cpu_by_what(here.supervisor.pids | supervisor.pids))
    finally:
        await supervisor.stop(asyncio.Event())


def _bare(shop: Shop) -> Program:
    return replace(shop.api(), command=[sys.executable, "-m", "tests.bench.bare_api"])


async def _serve(api: Api, customers: int, seconds: float) -> Served:
    return await crowd(api.cpu, f"{api.url}/orders", _TAKEN, customers=customers, seconds=seconds)


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


def _refusal_table(refused: Sequence[Served], mixed: Sequence[Served]) -> tuple[Table, Figures]:
    columns = {
        "nothing is paid: 503": (refused, _REFUSED),
        "some are taken: 503": (mixed, _REFUSED),
        "some are taken: 202": (mixed, _TAKEN),
    }
    figures: Figures = {}
    for name, (rounds, status) in columns.items():
        figures |= {
            f"a second: {name}": [len(one.answers.get(status, [])) / one.seconds for one in rounds],
            f"p50 ms: {name}": [one.within(status, 0.5) for one in rounds],
            f"p99 ms: {name}": [one.within(status, 0.99) for one in rounds],
        }
    rows = [
        [f"{what} ¹", *(_median(figures[f"{what}: {name}"]) for name in columns)]
        for what in ("a second", "p50 ms", "p99 ms")
    ]
    kept = sum(one.within(_REFUSED, 0.99) < one.within(_TAKEN, 0.5) for one in mixed)
    note = f"p99 of a refusal stays under p50 of an acceptance: in {kept} of {len(mixed)} rounds. ¹ On this machine."
    title = f"Refusals, {_CROWD} customers, {_PLACES} payments in flight"
    return Table(title=title, columns=["", *columns], rows=rows, note=note), figures


def _median(of_rounds: Iterable[float]) -> str:
    return number(statistics.median(of_rounds))


def _by_status(rounds: Sequence[Served]) -> str:
    answers = merged([one.answers for one in rounds])
    return ", ".join(f"{status}: {len(took)}" for status, took in sorted(answers.items()))
