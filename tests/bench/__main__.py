"""Measures the shop on this machine: `python -m tests.bench`, or `make bench`.

Figures are ratios to something that does less, or costs; absolute ones mean something on this machine alone, and none
means anything while something else keeps the machine busy, which is watched and said.
"""

import argparse
import asyncio
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.status import Status

from services.shared.process import end
from tests.bench import acceptance, backlog, databases, open_orders, order_cost, reads, replicas, throughput
from tests.bench.chart import draw
from tests.bench.quiet import Machine, watched
from tests.bench.report import Report, rewrite
from tests.bench.size import QUICK, Size

_PARTS = {
    part.NUMBER: part for part in (throughput, acceptance, order_cost, open_orders, replicas, reads, backlog, databases)
}


class _OnScreen:
    """Tells a person how it gets on: what has been found out stays, what it is at is shown below."""

    def __init__(self, console: Console, status: Status) -> None:
        self._console, self._status = console, status

    def doing(self, what: str) -> None:
        self._status.update(f"{what} …")

    def done(self, what: str) -> None:
        self._console.print(what, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's exit status: 1 when a part came to no end."""
    asked = _asked(arguments)
    size = QUICK if asked.quick else Size()
    if asked.open:
        size = replace(size, open_orders=tuple(sorted({*asked.open})))
    console = Console()
    console.print("[bold]Before: is the machine quiet?[/]")
    with watched() as load:
        report = Report(
            began=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", machine=Machine.here(), load=load, quick=asked.quick
        )
        console.print(f"{report.machine.told()}. {load.told()}", highlight=False)
        with console.status("") as status:
            for number in asked.only:
                _measure(report, number, size, console, status)
                if asked.into:
                    _write(report, asked.into)  # what was measured so far, should it not come to its end
    if asked.into:
        _write(report, asked.into)
        console.print(f"Written: performance.md, .json and .png in {asked.into}")
    console.print(report.headline(), highlight=False)
    if not load.quiet:
        console.print("[bold red]SOMETHING ELSE KEPT THE MACHINE BUSY: these figures are not to be relied on.[/]")
    for number, why in report.failed.items():
        console.print(f"[red]Part {number} came to no end:[/] {why}", highlight=False)
    return 1 if report.failed else 0


def _measure(report: Report, number: int, size: Size, console: Console, status: Status) -> None:
    module = _PARTS[number]
    console.rule(f"{number}. {module.TITLE}")
    began = time.monotonic()
    try:
        part = asyncio.run(module.measure(size, _OnScreen(console, status)))
    except Exception as error:
        console.print(traceback.format_exc(), markup=False, highlight=False)
        report.failed[number] = f"{type(error).__name__}: {error}".partition("\n")[0]
        return
    part.seconds = round(time.monotonic() - began, 1)
    report.parts.append(part)
    console.print(*(table.shown() for table in part.tables))


def _write(report: Report, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "performance.json").write_text(report.model_dump_json(indent=1) + "\n")
    rewrite(directory / "performance.md", report.markdown())
    draw(report, directory / "performance.png")


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = "\n".join(f"  {number}  {part.TITLE}" for number, part in _PARTS.items())
    parser.epilog = f"parts:\n{parts}"
    parser.add_argument("--only", type=_parts, default=[*_PARTS], help="these parts, like 1,6 (all)")
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it works")
    parser.add_argument("--open", type=_counts, help="levels of open orders for part 4, like 0,1000,3000")
    parser.add_argument("--into", type=Path, help="where performance.md, .json and .png are written (nowhere)")
    return parser.parse_args(arguments)


def _parts(text: str) -> list[int]:
    numbers = sorted({*_counts(text)})
    if unknown := [number for number in numbers if number not in _PARTS]:
        raise argparse.ArgumentTypeError(f"there is no part {unknown[0]}: they are 1 to {max(_PARTS)}")
    return numbers


def _counts(text: str) -> list[int]:
    with suppress(ValueError):
        counts = [int(one) for one in text.split(",")]
        if min(counts) >= 0:
            return counts
    raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 0,1000")


if __name__ == "__main__":
    end(main())
