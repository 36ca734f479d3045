"""`make faults-mutants`, with `ONLY=`. Exit status 1 when a safeguard can be taken away and nothing notices.

First every proof is run on the code as it is, and must be green: what is red anyway proves nothing.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tests.faults.mutants.every import MUTANTS
from tests.faults.mutants.mutant import Harness, Mutant
from tests.faults.mutants.proving import Result, Verdict
from tests.faults.mutants.trial import Outcome, each_once, not_green, tried

_NAMED = 3


def main() -> int:
    """The process's exit status: 0 when every mutant was caught, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.mutants", description="Take a safeguard away; something must go red."
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="this mutant; can be repeated")
    parser.add_argument("--list", action="store_true", help="say which there are, and end")
    options = parser.parse_args()
    console = Console()
    only = set[str](options.only or ())
    if unknown := only - {mutant.name for mutant in MUTANTS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; --list names them all")
    chosen = [mutant for mutant in MUTANTS if not only or mutant.name in only]
    if options.list:
        _show(console, ["mutant", "guards"], ([one.name, one.guards] for one in chosen))
        return 0
    directory = Path(tempfile.mkdtemp(prefix="street12-mutants-"))
    try:
        outcomes = _outcomes(chosen, directory, console)
    except KeyboardInterrupt:
        shutil.rmtree(directory)
        console.print("interrupted; nothing is left behind")
        return 130
    if outcomes:
        _show(console, ["mutant", "guards", "caught by", "seconds"], map(_row, outcomes))
    missed = sum(not outcome.caught for outcome in outcomes)
    if missed or not outcomes:
        console.print(f"[bold red]{missed} of {len(outcomes)} were not caught[/]; logs are in {directory}")
        return 1
    shutil.rmtree(directory)
    console.print(f"All {len(outcomes)} were caught.")
    return 0


def _outcomes(mutants: Sequence[Mutant], directory: Path, console: Console) -> list[Outcome]:
    """What became of each; of none when not everything is green as it is."""
    proofs = each_once(mutants)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("nothing", total=len(proofs) + sum(len(mutant.proofs) for mutant in mutants))

        def done() -> None:
            bar.advance(task)

        def say(line: str, *, well: bool) -> None:
            bar.console.print(Text(line, "" if well else "bold red"), soft_wrap=True)

        for result in (wrong := not_green(proofs, directory / "0", done)):
            say(f"With nothing taken away: {_told(result)}; {result.log}", well=False)
        if wrong:
            return []
        outcomes: list[Outcome] = []
        for number, mutant in enumerate(mutants, start=1):
            bar.update(task, description=f"without {mutant.name}")
            outcome = tried(mutant, directory / str(number), done)
            say(f"Without {mutant.name}: {_caught_by(outcome)}", well=outcome.caught)
            outcomes.append(outcome)
    return outcomes


def _row(outcome: Outcome) -> Sequence[str]:
    seconds = sum(result.seconds for result in outcome.results)
    return [outcome.mutant.name, outcome.mutant.guards, _caught_by(outcome), f"{seconds:.0f}"]


def _caught_by(outcome: Outcome) -> str:
    if outcome.unfit:
        return f"it cannot be taken away: {outcome.unfit}"
    return "\n".join(
        f"{'harness' if isinstance(proof, Harness) else 'test'}: {_told(result)}"
        + ("" if result.verdict is Verdict.RED else f"; {result.log}")
        for proof, result in zip(outcome.mutant.proofs, outcome.results, strict=True)
    )


def _told(result: Result) -> str:
    if result.verdict is not Verdict.RED:
        return result.verdict
    more = len(result.broken) - _NAMED
    return ", ".join(result.broken[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _show(console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title="Mutants", title_justify="left", show_lines=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
