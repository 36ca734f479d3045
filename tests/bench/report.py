"""What one run of the benchmark found out, as it is printed, kept and written into the document."""

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel
from rich.table import Table as Shown

from tests.bench.quiet import Load, Machine

BEGIN, END = "<!-- measured: written by `make bench` -->", "<!-- /measured -->"
Figures = dict[str, list[float]]
"""What was measured, by name, a value a round where there were rounds: what the chart is drawn from."""


class NoPlaceForTables(Exception):
    """The document has no pair of marks between which the tables belong."""


class Table(BaseModel):
    """A table of texts. The first column names the rows."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    def shown(self) -> Shown:
        """For a terminal."""
        table = Shown(title=self.title, title_justify="left", caption=self.note or None, caption_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For the document."""
        lines = [
            f"**{self.title}**",
            "",
            _line(self.columns),
            _line(["---", *["---:"] * (len(self.columns) - 1)]),
            *map(_line, self.rows),
        ]
        return "\n".join([*lines, "", self.note] if self.note else lines)


class Part(BaseModel):
    """What one part of the benchmark found out."""

    number: int
    title: str
    tables: list[Table]
    figures: Figures
    seconds: float = 0.0
    """How long it took."""


class Report(BaseModel):
    """What one run found out, on which machine, and whether anything else kept that busy."""

    began: str
    machine: Machine
    load: Load
    quick: bool = False
    """Whether it was only seen that everything works: the figures then mean nothing."""
    parts: list[Part] = []
    failed: dict[int, str] = {}
    """The parts that came to no end, and why."""

    def part(self, number: int) -> Part | None:
        return next((part for part in self.parts if part.number == number), None)

    def headline(self) -> str:
        """Where and when, and whether the figures can be relied on."""
        rough = "**A quick check, whose figures mean nothing.** " if self.quick else ""
        took = sum(part.seconds for part in self.parts) / 60
        return f"{rough}{self.began}, {self.machine.told()}, in {took:.0f} minutes. {self.load.told()}"

    def markdown(self) -> str:
        """All tables, for the document."""
        blocks = [self.headline()]
        for part in self.parts:
            blocks += [f"### {part.number}. {part.title}", *(table.markdown() for table in part.tables)]
        blocks += [f"Part {number} came to no end: {why}" for number, why in self.failed.items()]
        return "\n\n".join(blocks)


def rewritten(document: str, tables: str) -> str:
    """The document with these tables in the place of the earlier ones. Raises `NoPlaceForTables`."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoPlaceForTables(f"The document needs the lines {BEGIN} and {END}, in this order.")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def rewrite(document: Path, tables: str) -> None:
    """Put the tables into the document; one that is not there is begun. Raises `NoPlaceForTables`."""
    text = document.read_text() if document.exists() else f"{BEGIN}\n{END}\n"
    document.write_text(rewritten(text, tables))


def number(value: float) -> str:
    """A figure with three digits that count; nothing for what is not one."""
    if math.isnan(value):
        return ""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
