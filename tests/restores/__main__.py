"""`make restore-drill`, with `ONLY=`. Exit status 1 when a restore did not come to what the documents promise."""

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.shared.process import end
from tests.e2e.shop import open_shop
from tests.restores.cast import Cast, play
from tests.restores.drill import SETTINGS, Verdict, drill
from tests.restores.expectations import RESTORES
from tests.restores.runs import Found

_WIDE = 160
"""Characters of the table where it is not read on a terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.restores", description="Restore each store, and compare.")
    parser.add_argument("--only", choices=[one.name for one in RESTORES], action="append", help="may be repeated")
    parser.add_argument("--keep", action="store_true", help="keep the data directories")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    directory = Path(tempfile.mkdtemp(prefix="street12-restores-"))
    try:
        verdicts = asyncio.run(_run(directory, console, options.only))
    except (pytest.fail.Exception, AssertionError, TimeoutError) as failure:
        console.print(f"The drill broke off: {failure}\nData and logs are in {directory}", markup=False)
        return 1
    except KeyboardInterrupt:
        shutil.rmtree(directory)
        return 130
    show(verdicts, console)
    kept = not any(verdict.wrong for verdict in verdicts)
    if kept and not options.keep:
        shutil.rmtree(directory)
    else:
        console.print(f"Data and logs are in {directory}")
    return 0 if kept else 1


async def _run(directory: Path, console: Console, only: Sequence[str] | None) -> list[Verdict]:
    def say(what: str) -> None:
        console.print(f"{datetime.now(UTC):%H:%M:%S} {what}", markup=False)

    backup, newest = directory / "backup", directory / "newest"
    say("a shop opens")
    async with open_shop(directory / "shop", SETTINGS) as shop:
        cast = await play(shop, backup, newest, say)
    verdicts: list[Verdict] = []
    for restored in RESTORES:
        if not only or restored.name in only:
            verdict = await drill(
                restored, cast, newest, backup, directory, lambda what, name=restored.name: say(f"{name}: {what}")
            )
            verdicts.append(verdict)
            _show_found(verdict, cast, console)
    return verdicts


def _show_found(verdict: Verdict, cast: Cast, console: Console) -> None:
    for when, found in (("found", verdict.found), ("left", verdict.left)):
        for one in sorted(found, key=lambda one: cast.part_of(one.subject)):
            line = f"  {when}: {cast.part_of(one.subject)}: {one.code}, {one.outcome} ({one.detail})"
            console.print(line, markup=False, soft_wrap=True)
    for kind, lines in (("broken", verdict.broken), ("WRONG", verdict.wrong)):
        for line in lines:
            for part, order_id in cast.ids.items():
                line = line.replace(order_id, f"({part})")
            console.print(f"  {kind}: {line}", markup=False, soft_wrap=True)


def show(verdicts: Sequence[Verdict], console: Console) -> None:
    """Store by store: what was lost, what was found, what remained for a person."""
    table = Table(title="Restored from the older backup", title_justify="left", show_lines=True)
    for column in ("restored", "what was lost", "codes found", "after the remedy", "remained for a person", "verdict"):
        table.add_column(column, overflow="fold")
    for verdict in verdicts:
        restored = verdict.restore
        table.add_row(
            restored.name,
            restored.lost,
            _counted(verdict.found),
            _counted(verdict.left) or "nothing found",
            restored.person,
            Text("as promised") if not verdict.wrong else Text(f"{len(verdict.wrong)} WRONG", style="bold red"),
        )
    console.print(table)


def _counted(found: Iterable[Found]) -> str:
    counts = Counter(f"{one.code} ({one.outcome})" for one in found)
    return "\n".join(f"{count} × {what}" for what, count in sorted(counts.items()))


if __name__ == "__main__":
    end(main())
