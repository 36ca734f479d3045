"""What a run tells in the end."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from tests.bench.report import number
from tests.bench.rounds import percentile
from tests.rollout.run import Outcome


def figures(outcome: Outcome) -> Table:
    """The figures of a run, before anything was replaced and from then until everything was."""
    how = "killed (kill -9)" if outcome.plan.kill else "told to end (SIGTERM)"
    title = f"Old processes are {how}; {outcome.plan.rate:g} orders/s, {outcome.plan.rounds} rounds, {outcome.kind}"
    table = Table(title=title, title_justify="left")
    for column in ("", "in all", "before", "while rolling"):
        table.add_column(column, justify="right" if column else "left")
    for row in (*_requests(outcome), *_orders(outcome), *_work(outcome), *_processes(outcome)):
        table.add_row(*row)
    return table


def _requests(outcome: Outcome) -> Iterable[Sequence[str]]:
    before = [one for one in outcome.requests if one.at < outcome.began]
    during = [one for one in outcome.requests if outcome.began <= one.at < outcome.ended]
    parts = (outcome.requests, before, during)
    yield "POST /orders", *(str(len(part)) for part in parts)
    yield "… failed", *(str(sum(1 for one in part if one.failure)) for part in parts)
    for share in (0.5, 0.99, 1.0):
        took = ([1000 * one.seconds for one in part if not one.waits and not one.failure] for part in parts)
        yield f"… p{100 * share:.0f} ms, those apart that wait for the payment", *_percentiles(took, share)


def _orders(outcome: Outcome) -> Iterable[Sequence[str]]:
    yield "orders, each with a key of its own", str(outcome.orders), "", ""
    yield "… stored and settled", str(sum(one.settled for one in outcome.standings)), "", ""
    yield "… settled after the last answer, s", number(outcome.settled_within), "", ""
    for share in (0.5, 0.99, 1.0):
        yield (
            f"… from start to last step, p{100 * share:.0f} s",
            *_percentiles(_split(outcome.told.took, outcome), share),
        )


def _work(outcome: Outcome) -> Iterable[Sequence[str]]:
    told = outcome.told
    yield "activities", str(told.activities), "", ""
    yield "… in the order team's worker itself", str(told.local_activities), "", ""
    yield "… redone", str(len(told.redone)), "", ""
    yield "workflow tasks", str(told.workflow_tasks), "", ""
    yield "… given to a worker that did not answer", str(len(told.dropped)), "", ""
    yield "… failed", str(len(told.failed)), "", ""
    yield "… left behind in a gone worker's queue", str(len(told.left_behind)), "", ""
    yield "… how long both of these waited at most, s", number(max(told.held_up, default=0.0)), "", ""
    for share in (0.5, 0.99, 1.0):
        yield f"a task's wait for a worker, p{100 * share:.0f} s", *_percentiles(_split(told.waited, outcome), share)


def _processes(outcome: Outcome) -> Iterable[Sequence[str]]:
    names = dict.fromkeys(one.name for one in outcome.replaced)
    for name in names:
        ended = [one for one in outcome.replaced if one.name == name]
        statuses = ", ".join(sorted({str(one.status) for one in ended}))
        longest = number(max(one.took for one in ended))
        yield f"{name}: replaced; exit status; longest end, s", f"{len(ended)}; {statuses}; {longest}", "", ""


def _split(timed: Sequence[tuple[float, float]], outcome: Outcome) -> Iterable[list[float]]:
    """The seconds of all, of those before anything was replaced and of those while it was."""
    began, ended = outcome.began + outcome.wall, outcome.ended + outcome.wall
    yield [seconds for _, seconds in timed]
    yield [seconds for at, seconds in timed if at < began]
    yield [seconds for at, seconds in timed if began <= at < ended]


def _percentiles(parts: Iterable[list[float]], share: float) -> list[str]:
    return [number(percentile(part, share)) for part in parts]
