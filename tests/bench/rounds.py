"""Rounds of work, timed, and kinds of it side by side."""

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.report import Figures, Table, number
from tests.bench.size import Say

Work = Callable[[], Awaitable[float]]
"""One of a kind; says in how many milliseconds it was done."""
Cpu = Callable[[], Mapping[str, float]]
"""The CPU seconds used so far, by what the processes are."""


@dataclass(frozen=True)
class Round:
    """How fast `count` of one kind went through."""

    count: int
    seconds: float
    cpu: Mapping[str, float]
    """CPU seconds, by what the processes are."""
    took: Sequence[float] = field(repr=False)
    """Milliseconds, of each."""

    @property
    def rate(self) -> float:
        return self.count / self.seconds


async def run_round(cpu: Cpu, work: Sequence[Work], in_flight: int) -> Round:
    """Do it all, so much at once."""
    left, took = iter(work), list[float]()

    async def one_after_the_other() -> None:
        for one in left:
            took.append(await one())

    before, began = cpu(), time.monotonic()
    await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))
    seconds, after = time.monotonic() - began, cpu()
    return Round(len(work), seconds, {name: after[name] - before.get(name, 0.0) for name in after}, took)


async def taking_turns(
    say: Say, what: str, rounds: int, kinds: Mapping[str, Callable[[], Awaitable[Round]]], *, warm_up: bool = True
) -> dict[str, list[Round]]:
    """So many rounds of each kind, in turn. Who comes first is another one each time: a machine that tires or warms up
    must not decide. One more round goes first, to warm up, and is not counted.
    """
    measured: dict[str, list[Round]] = {kind: [] for kind in kinds}
    names = [*kinds]
    for turn in range(0 if warm_up else 1, rounds + 1):
        first = turn % len(names)
        now: dict[str, Round] = {}
        for kind in names[first:] + names[:first]:
            say.doing(f"{what}, round {turn} of {rounds}: {kind}")
            now[kind] = await kinds[kind]()
        if turn:
            for kind, one in now.items():
                measured[kind].append(one)
            say.done(
                f"{what}, round {turn} of {rounds}: " + ", ".join(f"{kind} {now[kind].rate:.1f}/s" for kind in kinds)
            )
    return measured


def percentile(took: Sequence[float], share: float) -> float:
    """What this share of them (0 to 1) took at most; not a number if there are none."""
    return sorted(took)[max(0, math.ceil(share * len(took)) - 1)] if took else math.nan


def ratios(of: Sequence[Round], to: Sequence[Round]) -> list[float]:
    """How much faster one kind went through than another, round by round."""
    return [one.rate / other.rate for one, other in zip(of, to, strict=True)]


def side_by_side(
    title: str, kinds: Mapping[str, Sequence[Round]], *, against: str, note: str = ""
) -> tuple[Table, Figures]:
    """Kinds that took turns, as a table and as figures; `against` is the kind that the others are held against."""
    figures: Figures = {}
    for kind, rounds in kinds.items():
        took = [one for of_round in rounds for one in of_round.took]
        figures |= {
            f"rate: {kind}": [one.rate for one in rounds],
            f"ratio: {kind}": ratios(rounds, kinds[against]),
            f"p50 ms: {kind}": [percentile(took, 0.5)],
            f"p99 ms: {kind}": [percentile(took, 0.99)],
        }
        figures |= {f"CPU ms: {kind}: {name}": [used] for name, used in cpu_ms(rounds).items()}
    groups = dict.fromkeys(name for rounds in kinds.values() for name in cpu_ms(rounds))
    used = {kind: cpu_ms(rounds) for kind, rounds in kinds.items()}
    rows = [
        ["a second ¹", *(number(statistics.median(figures[f"rate: {kind}"])) for kind in kinds)],
        [f"… of {against}", *("1" if kind == against else spread(figures[f"ratio: {kind}"]) for kind in kinds)],
        *([f"{name} ¹", *(number(figures[f"{name}: {kind}"][0]) for kind in kinds)] for name in ("p50 ms", "p99 ms")),
        *([f"CPU ms each: {name}", *(number(used[kind].get(name, 0.0)) for kind in kinds)] for name in groups),
        ["CPU ms each: in all", *(number(sum(used[kind].values())) for kind in kinds)],
    ]
    note = " ".join(filter(None, [note, f"{len(kinds[against])} rounds in turn; medians. ¹ On this machine."]))
    return Table(title=title, columns=["", *kinds], rows=rows, note=note), figures


def cpu_ms(rounds: Sequence[Round]) -> dict[str, float]:
    """The CPU milliseconds that each of them took, by what the processes are; those that did nothing are left out."""
    count = sum(one.count for one in rounds)
    names = dict.fromkeys(name for one in rounds for name in one.cpu)
    used = {name: 1000 * sum(one.cpu.get(name, 0.0) for one in rounds) / count for name in names}
    return {name: milliseconds for name, milliseconds in used.items() if milliseconds}


def spread(values: Sequence[float]) -> str:
    """The median and, where there are several, from where to where they go."""
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} … {max(values):.2f})"
