"""Each mutant fits the code as it is, and names proofs that there are: so no safeguard slips out unnoticed."""

import ast
import subprocess
import sys
from collections import Counter

import pytest

from deploy.local import ROOT
from tests.faults.mutants.every import MUTANTS
from tests.faults.mutants.mutant import DoesNotFit, Edit, Harness, Mutant, Tests
from tests.faults.mutants.trial import each_once

HARNESS_NOTICES = 5
"""At the least, so many mutants are caught by the fault harness itself."""


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert [name for name, times in Counter(mutant.name for mutant in MUTANTS).items() if times > 1] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_and_leaves_it_readable(mutant: Mutant) -> None:
    files = {edit.file: (ROOT / edit.file).read_text() for edit in mutant.edits}
    for edit in mutant.edits:
        files[edit.file] = edit.changed(files[edit.file])
    for file, text in files.items():
        assert text != (ROOT / file).read_text()
        ast.parse(text)


def test_every_mutant_has_proofs() -> None:
    assert [mutant.name for mutant in MUTANTS if not mutant.proofs] == []


def test_every_test_that_is_to_notice_is_there() -> None:
    nodes = [node for proof in each_once(MUTANTS) if isinstance(proof, Tests) for node in proof.nodes]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *nodes]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert collected.returncode == 0, collected.stdout


def test_the_harness_itself_can_fail() -> None:
    assert sum(any(isinstance(proof, Harness) for proof in mutant.proofs) for mutant in MUTANTS) >= HARNESS_NOTICES


@pytest.mark.parametrize("text", ["nothing", "twice twice"])
def test_what_is_not_there_once_is_not_changed(text: str) -> None:
    with pytest.raises(DoesNotFit, match=r"code\.py holds [02] times"):
        Edit(file="code.py", old="twice", new="once").changed(text)
