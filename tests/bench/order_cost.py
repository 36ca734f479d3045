"""What a happy order costs: the engine, the databases and the processors.

Events, calls and SQL are counted with every worker in this process, first of one order by itself and then of many at
once. CPU is that of the shop's own processes, from orders that come over HTTP.
"""

from collections import Counter
from collections.abc import Mapping

from deploy.supervisor import together
from tests.bench.cost import (
    AT_ONCE,
    MOST_EVENTS,
    MOST_RPCS,
    MOST_STATEMENTS,
    MOST_STATEMENTS_ALONE,
    TRANSACTION,
    Cost,
    cost,
    work,
)
from tests.bench.customers import customers
from tests.bench.report import Part, Table, number
from tests.bench.rounds import Round, cpu_ms, run_round
from tests.bench.size import Say, Size
from tests.bench.stage import stage

NUMBER, TITLE = 3, "What a happy order costs"
AIM_EVENTS, AIM_RPCS, AIM_STATEMENTS = 34, 22, 20


async def measure(size: Size, say: Say) -> Part:
    say.doing("counting events, calls and SQL")
    async with stage(dispatch_seconds=3600) as here:
        measured = await cost(here, size.counted)
    say.done(f"{measured.events.total()} events, {measured.rpcs:.1f} calls, {measured.statements_each:.1f} statements")
    say.doing("CPU of the shop's processes")
    async with stage() as here, customers(here) as who:
        await together(here.start_workers(), here.start_api())
        await run_round(here.cpu, [who.order_and_wait] * size.in_flight, size.in_flight)  # warms up
        busy = await run_round(here.cpu, [who.order_and_wait] * size.orders, size.in_flight)
    return Part(
        number=NUMBER,
        title=TITLE,
        tables=[_summary(measured, busy), _statements_table(measured), _calls_table(measured), _events_table(measured)],
        figures=_figures(measured, busy),
    )


def _figures(measured: Cost, busy: Round) -> dict[str, list[float]]:
    return {
        "events alone": [measured.events.total()],
        "events at most": [measured.most_events],
        "RPCs": [measured.rpcs],
        "statements": [measured.statements_each],
        "statements alone": [measured.statements_alone],
        "history bytes": [measured.history_bytes],
        **{f"CPU ms: {name}": [used] for name, used in cpu_ms([busy]).items()},
    }


def _summary(measured: Cost, busy: Round) -> Table:
    used = cpu_ms([busy])
    rows = [
        ["events until DeliveryStarted, alone", str(measured.events.total()), str(AIM_EVENTS), str(MOST_EVENTS)],
        [f"events until DeliveryStarted, the most of {AT_ONCE} at once", str(measured.most_events), "", ""],
        ["calls on the engine and answered polls", number(measured.rpcs), str(AIM_RPCS), number(MOST_RPCS)],
        [
            "SQL statements in all databases, alone",
            str(measured.statements_alone),
            "",
            str(MOST_STATEMENTS_ALONE),
        ],
        [
            f"SQL statements in all databases, {AT_ONCE} at once",
            number(measured.statements_each),
            str(AIM_STATEMENTS),
            number(MOST_STATEMENTS),
        ],
        ["bytes of history until DeliveryStarted", number(measured.history_bytes), "", ""],
        *([f"CPU ms: {name}", number(milliseconds), "", ""] for name, milliseconds in used.items()),
        ["CPU ms in all", number(sum(used.values())), "", ""],
    ]
    return Table(
        title="An order, in short",
        columns=["", "an order", "aim", "promised by a test"],
        rows=rows,
        note=f"CPU: {busy.count} orders over HTTP; the customers play themselves.",
    )


def _statements_table(measured: Cost) -> Table:
    names = dict.fromkeys([*measured.alone, *measured.statements])
    rows = [
        [
            name,
            *_sql(measured.alone.get(name, Counter()), 1),
            *_sql(measured.statements.get(name, Counter()), measured.orders),
        ]
        for name in sorted(names)
    ]
    all_alone, all_together = (sum(one.values(), Counter[str]()) for one in (measured.alone, measured.statements))
    rows.append(["in all", *_sql(all_alone, 1), *_sql(all_together, measured.orders)])
    together = f"{AT_ONCE} at once"
    columns = ["database", "one alone", "BEGIN, COMMIT", together, "BEGIN, COMMIT", f"made of ({together})"]
    for row, counts in zip(
        rows, [*(measured.statements.get(name, Counter()) for name in sorted(names)), all_together], strict=True
    ):
        row.append(_made_of(work(counts), measured.orders))
    return Table(title="SQL statements an order", columns=columns, rows=rows)


def _sql(counts: Counter[str], orders: int) -> tuple[str, str]:
    ends = sum(count for name, count in counts.items() if name in TRANSACTION)
    return f"{work(counts).total() / orders:.1f}", f"{ends / orders:.1f}"


def _calls_table(measured: Cost) -> Table:
    kinds: Mapping[str, Counter[str]] = {"calls": measured.calls, "answered polls": measured.polls}
    rows = [
        [name, f"{counts.total() / measured.orders:.1f}", _made_of(counts, measured.orders)]
        for name, counts in kinds.items()
    ]
    return Table(title=f"Requests to the engine, of {AT_ONCE} at once", columns=["", "an order", "made of"], rows=rows)


def _events_table(measured: Cost) -> Table:
    rows = [
        [name, str(measured.events[name] or ""), str(count)] for name, count in measured.events_in_all.most_common()
    ]
    rows.append(["in all", str(measured.events.total()), str(measured.events_in_all.total())])
    return Table(
        title="Events of one order's history", columns=["", "until DeliveryStarted", "until Delivered"], rows=rows
    )


def _made_of(counts: Counter[str], orders: int) -> str:
    return ", ".join(f"{name} {count / orders:.1f}" for name, count in counts.most_common())
