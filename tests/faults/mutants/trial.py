"""How the mutants are tried, one after the other, once everything has been seen to be green without them."""

import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.mutants.mutant import DoesNotFit, Edit, Mutant, Proof, Tests
from tests.faults.mutants.proving import Result, Verdict, copy_tree, prove


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a mutant. `unfit` says why it could not be tried."""

    mutant: Mutant
    results: Sequence[Result] = ()
    unfit: str = ""

    @property
    def caught(self) -> bool:
        """Whether every one of its proofs noticed."""
        return bool(self.results) and all(result.verdict is Verdict.RED for result in self.results)


def each_once(mutants: Iterable[Mutant]) -> list[Proof]:
    """All proofs of some mutants, each once; all tests together, because they can run in one session."""
    proofs = dict.fromkeys(proof for mutant in mutants for proof in mutant.proofs)
    nodes = dict.fromkeys(node for proof in proofs if isinstance(proof, Tests) for node in proof.nodes)
    others = [proof for proof in proofs if not isinstance(proof, Tests)]
    return [Tests(tuple(nodes)), *others] if nodes else others


def not_green(proofs: Iterable[Proof], place: Path, done: Callable[[], None]) -> list[Result]:
    """Run proofs on the code as it is; answers what came of those that are not green. `done` is told of each."""
    with _copy(place, ()) as tree:
        return [result for result in _results(proofs, tree, place, done) if result.verdict is not Verdict.GREEN]


def tried(mutant: Mutant, place: Path, done: Callable[[], None]) -> Outcome:
    """Take a safeguard away in a copy, and run its proofs there. Their logs stay in that place."""
    try:
        with _copy(place, mutant.edits) as tree:
            return Outcome(mutant=mutant, results=_results(mutant.proofs, tree, place, done))
    except DoesNotFit as error:
        return Outcome(mutant=mutant, unfit=str(error))


def _results(proofs: Iterable[Proof], tree: Path, place: Path, done: Callable[[], None]) -> list[Result]:
    results: list[Result] = []
    for number, proof in enumerate(proofs):
        results.append(prove(proof, tree, place / f"{number}.log"))
        done()
    return results


@contextmanager
def _copy(place: Path, edits: Iterable[Edit]) -> Generator[Path]:
    tree = place / "tree"
    try:
        copy_tree(tree, edits)
        yield tree
    finally:
        shutil.rmtree(tree)
