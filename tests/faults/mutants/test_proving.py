"""A proof counts as red for the right reason alone, and leaves nothing behind."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from deploy.local import ROOT
from tests.audit.findings import Breach, Finding, findings_table, promise
from tests.e2e.shop import eventually
from tests.faults.mutants.mutant import DoesNotFit, Edit, Harness, Mutant, Proof, Tests
from tests.faults.mutants.proving import Verdict, copy_tree, prove
from tests.faults.mutants.trial import Outcome, each_once


@dataclass(frozen=True)
class Program(Proof):
    """Some Python, and how long it may take. What it says is broken is."""

    program: str
    limit_seconds: float = 60  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def arguments(self) -> Sequence[str]:
        return ["-c", self.program]

    def red(self, output: str) -> list[str]:
        return output.split()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ".venv").symlink_to(ROOT / ".venv")
    (tree / "tmp").mkdir()
    return tree


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("print('something')", Verdict.GREEN),
        ("print('a'); print('b'); raise SystemExit(1)", Verdict.RED),
        ("raise SystemExit(1)", Verdict.BROKEN),
        ("print('a'); raise SystemExit(2)", Verdict.BROKEN),
        ("import os, signal; print('a', flush=True); os.kill(os.getpid(), signal.SIGKILL)", Verdict.BROKEN),
    ],
)
def test_red_is_who_says_what_is_broken(tree: Path, program: str, verdict: Verdict) -> None:
    result = prove(Program(program), tree, tree / "log")
    assert result.verdict is verdict
    assert result.log.read_text().split() == [*result.broken]


async def test_what_hangs_proves_nothing_and_nothing_of_it_is_left(tree: Path) -> None:
    hangs = "import os, time; print(os.getpid(), os.fork(), flush=True); time.sleep(600)"
    result = prove(Program(hangs, limit_seconds=1), tree, tree / "log")
    assert result.verdict is Verdict.HUNG
    pids = {int(word) for word in result.broken if word.isdigit()} - {0}
    assert len(pids) == 2

    async def gone() -> bool:
        return not any(_runs(pid) for pid in pids)

    await eventually(gone, "the proof's processes to end")


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_of_tests_those_that_failed_are_named_but_not_those_that_could_not_be_run() -> None:
    said = "FAILED tests/a.py::test_one[x - y] - assert 1 == 2\nERROR tests/a.py::test_two - OSError\n"
    assert Tests(("tests/a.py",)).red(said) == ["test_one[x - y]"]


def test_of_the_harness_all_that_it_saw_is_named() -> None:
    @promise(lambda _: ["one", "two"])
    def all_is_well(_: str) -> Iterator[Breach]:
        """All is well, and | stays so."""
        yield Breach(subject="one", wrong="it is not")

    @promise(lambda _: ["one"])
    def nothing_is_lost(_: str) -> Iterator[Breach]:
        """Nothing is lost."""
        return iter(())

    breach = Breach(subject="order_1", wrong="0 for 1")
    findings = [
        Finding(invariant=all_is_well, looked_at=1200, breaches=[breach] * 7, excused=[]),
        Finding(invariant=nothing_is_lost, looked_at=1, breaches=[], excused=[breach]),
    ]
    said = StringIO()
    console = Console(file=said, width=1000)
    console.print("Surprises: 2")
    console.print(findings_table(findings))
    assert Harness(seed=1).red(said.getvalue()) == ["Surprises", "all is well"]


def test_everything_is_proved_once_without_mutants() -> None:
    run, other = Harness(seed=1), Harness(seed=2)
    one = Mutant(name="one", guards="", edits=(), proofs=(Tests.of("a", "b"), run))
    two = Mutant(name="two", guards="", edits=(), proofs=(Tests.of("b", "c"), run, other))
    assert each_once([one, two]) == [Tests.of("a", "b", "c"), run, other]


def test_a_mutant_that_nothing_was_asked_about_is_not_caught() -> None:
    assert not Outcome(mutant=Mutant(name="one", guards="", edits=(), proofs=())).caught


def test_a_copy_is_changed_and_the_tree_is_not(tmp_path: Path) -> None:
    was = (ROOT / "worker.py").read_text()
    copy_tree(tmp_path / "copy", [Edit(file="worker.py", old='if __name__ == "__main__":\n', new="if False:\n")])
    assert "if False:\n" in (tmp_path / "copy" / "worker.py").read_text()
    assert (ROOT / "worker.py").read_text() == was
    assert os.access(tmp_path / "copy" / ".venv" / "bin" / "python", os.X_OK)
    with pytest.raises(DoesNotFit, match=r"nothing\.py holds 0 times"):
        copy_tree(tmp_path / "other", [Edit(file="nothing.py", old="a", new="b")])
