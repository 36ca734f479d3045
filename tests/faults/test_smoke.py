"""A short run: nobody's order is lost, doubled or left half done, whatever is killed, suspended, cut off or full."""

import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.faults.plan import Plan
from tests.faults.report import show
from tests.faults.run import run
from tests.faults.schedule import Kind
from tests.mariadb import need_mariadb
from tests.missing import MISSING

SEED = 12


async def test_a_short_run_keeps_every_promise(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    await need_mariadb(pytestconfig)
    said = StringIO()
    told, plan = Console(file=said, width=160), Plan.of(SEED, "smoke")
    outcome = await run(plan, tmp_path / "run", told)
    show(outcome, told)
    assert outcome.kept, said.getvalue()
    assert len(outcome.tally.accepted) > plan.orders / 2, said.getvalue()
    seen = {struck.fault.kind for struck in outcome.tally.struck}
    assert seen == set(Kind) - ({Kind.DISK_FULL} if outcome.no_disk else set()), said.getvalue()
    shutil.rmtree(tmp_path / "run")
    if outcome.no_disk:
        pytestconfig.stash.setdefault(MISSING, {})["a full disk"] = outcome.no_disk
        assert outcome.complete, f"CI needs to mount a disk: {outcome.no_disk}"
