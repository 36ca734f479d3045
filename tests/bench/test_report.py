"""What a run is written as: tables between marks in the document, all figures as JSON, and a picture."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from tests.bench.__main__ import main
from tests.bench.chart import NOT_MEASURED, draw, picture
from tests.bench.quiet import Load, Machine
from tests.bench.report import BEGIN, END, NoPlaceForTables, Part, Report, Table, number, rewrite, rewritten

_TABLE = Table(title="Rates", columns=["", "shop | bare"], rows=[["a second", "12"]], note="A note.")
_PART = Part(
    number=4, title="Open orders", tables=[_TABLE], figures={"open": [0, 10], "ratio: 0": [1.0], "ratio: 10": [0.9]}
)
_MACHINE = Machine(cores=2, processor="a processor", memory_gib=8, python="3.11.7")


def a_report(*parts: Part, others: float = 0.0, quick: bool = False) -> Report:
    load = Load(average_before=[0.1, 0.2, 0.3], before=others, during=[others])
    return Report(began="today", machine=_MACHINE, load=load, parts=[*parts], quick=quick)


def test_tables_take_the_place_of_the_earlier_ones_and_of_nothing_else() -> None:
    document = f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nWhat a person wrote.\n"
    once = rewritten(document, "new")
    assert once == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nWhat a person wrote.\n"
    assert rewritten(once, "new") == once


@pytest.mark.parametrize("document", ["", BEGIN, END, f"{END}\n{BEGIN}"])
def test_a_document_without_a_place_for_tables_is_left_as_it_is(document: str, tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text(document)
    with pytest.raises(NoPlaceForTables):
        rewrite(file, "new")
    assert file.read_text() == document


def test_a_table_is_written_so_that_a_cell_stays_a_cell() -> None:
    assert _TABLE.markdown() == ("**Rates**\n\n|  | shop \\| bare |\n| --- | ---: |\n| a second | 12 |\n\nA note.")


def test_a_report_is_the_same_after_it_was_kept() -> None:
    report = a_report(_PART)
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_a_busy_machine_is_said_in_the_headline() -> None:
    assert "not quiet" not in a_report(_PART).markdown()
    assert "**The machine was not quiet" in a_report(_PART, others=0.5).markdown()


def test_a_quick_check_says_that_its_figures_mean_nothing() -> None:
    assert "mean nothing" in a_report(_PART, quick=True).headline()


def test_a_part_that_failed_is_named_in_the_document() -> None:
    report = a_report(_PART)
    report.failed[1] = "RuntimeError: no answer"
    assert "Part 1 came to no end: RuntimeError: no answer" in report.markdown()


def test_a_picture_shows_what_was_measured_and_names_what_was_not() -> None:
    shown = picture(a_report(_PART, others=0.5))
    measured = [
        place.get_title(loc="left")
        for place in shown.axes
        if NOT_MEASURED not in [text.get_text() for text in place.texts]
    ]
    assert measured == ["New orders beside open ones: filled shop / empty shop"]
    [open_orders] = [place for place in shown.axes if place.get_title(loc="left") in measured]
    assert [label.get_text() for label in open_orders.get_xticklabels()] == ["0 open", "10 open"]
    assert [text.get_text() for text in open_orders.texts] == ["1.00", "0.90"]
    assert any("not quiet" in text.get_text() for text in shown.texts)
    plt.close(shown)


def test_a_picture_is_kept_as_a_png(tmp_path: Path) -> None:
    draw(a_report(), tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "told"), [(0.123, "0.12"), (9.99, "9.99"), (12.34, "12.3"), (12345.6, "12,346"), (float("nan"), "")]
)
def test_a_number_has_the_digits_that_count(value: float, told: str) -> None:
    assert number(value) == told


@pytest.mark.parametrize("wrong", [["--only", "9"], ["--only", "one"], ["--open", "-1"]])
def test_what_cannot_be_measured_is_refused_before_anything_is(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err
