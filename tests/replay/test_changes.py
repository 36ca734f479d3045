"""Changes of the workflow, made in a copy of it: those that would strand open orders are caught, the others are not.

docs/changing-workflows.md refers to these as examples.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.replay import against
from tests.replay.histories import HISTORIES, release

_ROOT = Path(__file__).parents[2]
_COPIED = ("activities", "services", "workflows")

_ARRIVAL = "        self._tell(work_of([_ARRIVAL], steps.START_DELIVERY.queue))\n"
_THANKS = """\
await workflow.execute_activity(
                "thank_customer", self._order.order_id, start_to_close_timeout=steps.COMPLETION_ATTEMPT
            )
"""


@dataclass(frozen=True)
class Edit:
    """A change of one file's text."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Change:
    """What somebody changes, and a path that meets it."""

    what: str
    path: str
    edits: tuple[Edit, ...]


INCOMPATIBLE = [
    Change(
        "another order of the steps",
        "open",
        (
            Edit(
                "workflows/steps.py",
                "SAGA = (PAY_ORDER, ISSUE_COUPON, START_DELIVERY, ADJUST_STOCK)",
                "SAGA = (PAY_ORDER, START_DELIVERY, ISSUE_COUPON, ADJUST_STOCK)",
            ),
        ),
    ),
    Change(
        "another order of the undos",
        "cancel-under-way-by-customer",
        (
            Edit(
                "workflows/steps.py",
                "COMPENSATION_ORDER = (ISSUE_COUPON, START_DELIVERY, ADJUST_STOCK, PAY_ORDER)",
                "COMPENSATION_ORDER = (PAY_ORDER, ISSUE_COUPON, START_DELIVERY, ADJUST_STOCK)",
            ),
        ),
    ),
    Change(
        "one more activity",
        "delivered",
        (Edit("workflows/order.py", _ARRIVAL, f"{_ARRIVAL}        if True:\n            {_THANKS}"),),
    ),
]
COMPATIBLE = [
    Change(
        "the same activity, for new orders only",
        "delivered",
        (
            Edit(
                "workflows/order.py",
                _ARRIVAL,
                f'{_ARRIVAL}        if workflow.patched("thank-customer"):\n            {_THANKS}',
            ),
        ),
    ),
    Change(
        "other retries, budgets and words",
        "cancel-under-way-by-customer",
        (
            Edit("workflows/steps.py", "retry=_retry(0.5, 60)", "retry=_retry(5, 600)"),
            Edit("workflows/steps.py", "UNDO_BUDGET = timedelta(days=7)", "UNDO_BUDGET = timedelta(days=70)"),
            Edit("workflows/order.py", "the carrier's *Delivered*", "the carrier"),
        ),
    ),
]


@pytest.mark.parametrize("change", INCOMPATIBLE, ids=lambda change: change.what)
def test_a_change_that_would_strand_open_orders_is_caught(change: Change, tmp_path: Path) -> None:
    replayed = _replay_with(change, tmp_path)
    assert replayed.returncode == 1
    assert "NondeterminismError: " in replayed.stdout


@pytest.mark.parametrize("change", COMPATIBLE, ids=lambda change: change.what)
def test_a_change_that_open_orders_do_not_meet_passes(change: Change, tmp_path: Path) -> None:
    replayed = _replay_with(change, tmp_path)
    assert (replayed.returncode, replayed.stderr) == (0, "")
    assert replayed.stdout.endswith(": replays\n")


def _replay_with(change: Change, copy: Path) -> "subprocess.CompletedProcess[str]":
    """Replay the history of the path that the change names, as it was recorded, with a changed copy of the code."""
    for package in _COPIED:
        shutil.copytree(_ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "migrations"))
    for edit in change.edits:
        changed = copy / edit.file
        before = changed.read_text()
        assert edit.old in before, f"{edit.file} does not hold what this test changes: {edit.old}"
        changed.write_text(before.replace(edit.old, edit.new))
    return subprocess.run(
        [sys.executable, against.__file__, HISTORIES / release() / f"{change.path}.json"],
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
