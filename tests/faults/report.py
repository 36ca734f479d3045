"""What a run tells: while it is under way, and in the end."""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.audit.findings import Finding, findings_table
from tests.faults.plan import Plan
from tests.faults.tally import Tally

_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run showed."""

    plan: Plan
    tally: Tally
    unsettled: Sequence[str]
    findings: Sequence[Finding]
    drained_within: float
    """Seconds from the last answer until nothing was under way any more."""
    no_disk: str
    """Why no disk was filled; empty where that could be done."""
    directory: Path

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        breaches = [breach for finding in self.findings for breach in finding.breaches]
        return bool(self.findings) and not (breaches or self.unsettled or self.tally.surprises)

    @property
    def complete(self) -> bool:
        """Whether everything was tried, or at least where that is asked for (`CI=true`)."""
        return not self.tally.left_out or os.environ.get("CI") != "true"


class Bar:
    """How far a run is."""

    def __init__(self, bar: Progress, plan: Plan, tally: Tally) -> None:
        self._bar = bar
        self._plan = plan
        self._tally = tally
        self._task = bar.add_task("", total=plan.orders)

    def update(self) -> None:
        """Show what was counted since."""
        faults = f"{len(self._tally.struck)}/{self._plan.faults} faults"
        accepted = f"{len(self._tally.accepted)} accepted"
        self._bar.update(self._task, completed=self._tally.settled, description=f"{faults}, {accepted}, settled")

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)


def announce(plan: Plan, console: Console) -> None:
    """What is about to happen, and how to have it happen again."""
    console.print(f"[bold]{plan.command}[/]", highlight=False)
    limits = "with limits on pending payments" if plan.strict else "without limits on pending payments"
    console.print(f"{plan.orders} orders and {plan.faults} faults within {plan.span:.0f} s, {limits}", highlight=False)


@contextmanager
def progress(plan: Plan, tally: Tally, console: Console) -> Generator[Bar]:
    """A bar of the orders that have settled, as long as the run lasts."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        yield Bar(bar, plan, tally)


def show(outcome: Outcome, console: Console) -> None:
    """The figures, the audit, and whatever went wrong."""
    console.print(_figures(outcome))
    console.print(findings_table(outcome.findings))
    for title, found in (("Not settled", outcome.unsettled), ("Surprises", outcome.tally.surprises)):
        if found:
            console.print(f"[bold red]{title}: {len(found)}[/]")
            for one in found[:_NAMED]:
                console.print(f"  {one}", highlight=False, markup=False, soft_wrap=True)
    if outcome.tally.left_out:
        console.print(
            f"[bold red]NO DISK WAS FILLED[/]: {len(outcome.tally.left_out)} faults were left out,"
            f" because none could be mounted ({outcome.no_disk}). Run it as root, or where mounting is allowed."
        )


def _figures(outcome: Outcome) -> Table:
    tally = outcome.tally
    table = Table(title="Figures", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    rows: list[tuple[str, str]] = [
        ("orders accepted", str(len(tally.accepted))),
        ("… settled", str(tally.settled)),
        ("… answered as cancelled", str(len(tally.canceled))),
        ("… answered as delivered", str(len(tally.delivered))),
        ("… answered as declined", str(tally.declined)),
        ("… answered again under their key", str(tally.replayed)),
        ("refunds settled by hand", str(tally.settled_by_hand)),
        ("status reads", str(tally.looks)),
        *((f"refused: {code}", str(times)) for code, times in tally.refused.most_common()),
        ("requests without an answer", str(tally.unanswered)),
        ("faults survived", str(len(tally.struck))),
        *([("faults left out", str(len(tally.left_out)))] if tally.left_out else []),
        ("longest stall", f"{tally.longest_stall:.1f} s"),
        ("time to drain", f"{outcome.drained_within:.1f} s"),
    ]
    for row in rows:
        table.add_row(*row)
    return table
