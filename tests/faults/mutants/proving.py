"""How a proof is run: in a copy of the working tree, so that the tree itself is never touched."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from deploy.local import ROOT
from tests.faults.mutants.mutant import Edit, Proof, Tests

_VENV = ".venv"
_TMP = "tmp"
_GOES_WITHIN_SECONDS = 30.0
# As wide as the audit's widest promise: what is broken over two lines could not be read back.
_WIDE = "1000"


class Verdict(StrEnum):
    """What came of a proof."""

    GREEN = "green"
    RED = "red"
    BROKEN = "came to no verdict"
    HUNG = "hung"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a proof: `broken` names what was, and all that was said is in the log."""

    verdict: Verdict
    broken: tuple[str, ...]
    seconds: float
    log: Path


def copy_tree(into: Path, edits: Iterable[Edit] = ()) -> None:
    """Copy all of the working tree that is, or may be, under version control, and change it. Raises `DoesNotFit`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():  # not what was deleted and is still listed
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)
    (into / _VENV).symlink_to(ROOT / _VENV)
    (into / _TMP).mkdir()
    for edit in edits:
        edit.apply(into)


def prove(proof: Proof, tree: Path, log: Path) -> Result:
    """Run a proof in a copied tree, to its end or its time limit. Nothing that it started outlives it."""
    began = time.monotonic()
    # Tests of MySQL are not to be passed over, but the harness may go without a disk.
    environment = {**os.environ, "COLUMNS": _WIDE, "CI": str(isinstance(proof, Tests)).lower()}
    environment["TMPDIR"] = str(tree / _TMP)  # data of runs that were red are kept, but no longer than the tree
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(tree / _VENV / "bin" / "python"), *proof.arguments],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(proof.limit_seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    said = log.read_text(errors="replace")
    broken = tuple(proof.red(said))
    if status is None:
        verdict = Verdict.HUNG
    elif status == 0:
        verdict = Verdict.GREEN
    else:
        verdict = Verdict.RED if status == 1 and broken else Verdict.BROKEN
    return Result(verdict=verdict, broken=broken, seconds=time.monotonic() - began, log=log)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a proof and all that it has left behind. What it supervises goes with it, by the kernel's own hand."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # so that it may end what it has started
        try:
            process.wait(_GOES_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
