"""The drill itself: what it holds against a restore, and that it puts back just what it says."""

from pathlib import Path

from services.order.comparison import Code
from tests.restores.cast import Cast, Part
from tests.restores.copies import restore
from tests.restores.drill import compare
from tests.restores.expectations import RESTORES
from tests.restores.remedies import REMEDIES
from tests.restores.runs import Found

CAST = Cast("tea", ids={Part.ARRIVED: "order_1", Part.CALLED_OFF: "order_2"})
EXPECTED = {Part.ARRIVED: frozenset({Code.VIEW_BEHIND})}


def found(subject: str, code: Code, outcome: str) -> Found:
    return Found(subject, code, outcome, "so it is")


BEHIND = found("order_1", Code.VIEW_BEHIND, "repaired")


def test_what_is_found_as_promised_is_not_wrong() -> None:
    assert compare(EXPECTED, [BEHIND], CAST, "run 1") == []


def test_what_is_not_found_is_wrong() -> None:
    assert compare(EXPECTED, [], CAST, "run 1") == [f"run 1 did not find view-behind of: {Part.ARRIVED}"]


def test_what_is_found_beside_it_is_wrong() -> None:
    false_alarm, of_stock = (
        found("order_2", Code.COUPON_MISSING, "flagged"),
        found("tea", Code.STOCK_NOT_SOLD, "flagged"),
    )
    assert compare(EXPECTED, [BEHIND, false_alarm, of_stock], CAST, "run 1") == [
        "run 1 found stock-not-sold of: tea",
        f"run 1 found coupon-missing of: {Part.CALLED_OFF}",
    ]


def test_what_is_dealt_with_otherwise_is_wrong() -> None:
    wrong = [f"run 1: view-behind of: {Part.ARRIVED} is reported (so it is)"]
    assert compare(EXPECTED, [BEHIND._replace(outcome="reported")], CAST, "run 1") == wrong


def test_a_restore_replaces_a_database_with_its_log_and_nothing_else(tmp_path: Path) -> None:
    newest, backup, to = tmp_path / "newest", tmp_path / "backup", tmp_path / "restored"
    for directory, names in {newest: ("order.db", "order.db-wal", "temporal.db"), backup: ("order.db",)}.items():
        directory.mkdir()
        for name in names:
            (directory / name).write_text(f"{name} of {directory.name}")
    restore(newest, backup, ["order.db"], to)
    kept = {file.name: file.read_text() for file in to.iterdir()}
    assert kept == {"order.db": "order.db of backup", "temporal.db": "temporal.db of newest"}


def test_each_restore_has_a_remedy() -> None:
    assert [restored.name for restored in RESTORES] == list(REMEDIES)
