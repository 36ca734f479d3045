"""What an invariant is, and what looking for its breaches found."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.table import Table
from rich.text import Text

from tests.audit.books import Books

T = TypeVar("T")
_NAMED = 5
"""So many offenders stand in the table itself."""


@dataclass(frozen=True, kw_only=True)
class Breach:
    """What is wrong, in numbers, and with whom: an order's id, a product's, or the whole shop.

    `skipped_undo` names the undo that an operator must have skipped for this to be excused.
    """

    subject: str
    wrong: str
    skipped_undo: str | None = None

    def __str__(self) -> str:
        return f"{self.subject}: {self.wrong}"


@dataclass(frozen=True, kw_only=True)
class Invariant:
    """A promise, and how to look for what breaks it: once for each thing that it is about."""

    name: str
    promise: str
    look: Callable[[Books], Iterable[Iterator[Breach]]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one invariant's check found. What is `excused` broke the promise because an operator decided so."""

    invariant: Invariant
    looked_at: int
    breaches: Sequence[Breach]
    excused: Sequence[Breach]


def promise(
    looks_at: Callable[[Books], Iterable[T]],
) -> Callable[[Callable[[T], Iterator[Breach]]], Invariant]:
    """Make an invariant of what finds the breaches of one thing: its name and docstring are the promise's."""

    def make(breaches_of: Callable[[T], Iterator[Breach]]) -> Invariant:
        return Invariant(
            name=breaches_of.__name__.replace("_", " "),
            promise=(breaches_of.__doc__ or "").strip(),
            look=lambda books: (breaches_of(one) for one in looks_at(books)),
        )

    return make


def find(invariant: Invariant, books: Books) -> Finding:
    """Look at everything that the invariant is about."""
    looked_at, breaches, excused = 0, list[Breach](), list[Breach]()
    for found in invariant.look(books):
        looked_at += 1
        for breach in found:
            case = books.cases.get(breach.subject)
            skipped = case is not None and breach.skipped_undo in case.skipped_undos
            (excused if skipped else breaches).append(breach)
    return Finding(invariant=invariant, looked_at=looked_at, breaches=breaches, excused=excused)


def findings_table(findings: Sequence[Finding]) -> Table:
    """A line for each invariant, with the first offenders under those that are broken."""
    table = Table(title="Audit", title_justify="left")
    table.add_column("invariant", overflow="fold")
    table.add_column("promise", overflow="fold")
    table.add_column("looked at", justify="right")
    table.add_column("breaches", justify="right")
    table.add_column("excused", justify="right")
    for finding in findings:
        named = [str(breach) for breach in finding.breaches[:_NAMED]]
        if len(finding.breaches) > _NAMED:
            named.append(f"… and {len(finding.breaches) - _NAMED} more")
        table.add_row(
            Text(finding.invariant.name),
            Text("\n".join([finding.invariant.promise, *named])),
            f"{finding.looked_at:,}",
            Text(f"{len(finding.breaches):,}"),
            Text(f"{len(finding.excused):,}" if finding.excused else ""),
            style="red" if finding.breaches else None,
        )
    return table
