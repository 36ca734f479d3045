"""What a mutant is: a safeguard, what takes it away, and what must notice."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FAILED = re.compile(r"^FAILED \S*?::(\w+(?:\[.*?\])?)(?: - .*)?$", re.MULTILINE)
# A line of the audit's table: name, promise, looked at, breaches, excused.
_BREACH = re.compile(r"^│ (\S[^│]*?) *│[^│]*│ *[\d,]+ *│ *[1-9][\d,]* *│", re.MULTILINE)
_SEEN = re.compile(r"^(Not settled|Surprises): [\d,]+$", re.MULTILINE)


class DoesNotFit(Exception):
    """The code that a mutant is to change is not as the mutant expects it; the message says where."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One place of the code, and what is to stand there. `old` must be there exactly once."""

    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Change the file. Raises `DoesNotFit`."""
        path = root / self.file
        path.write_text(self.changed(path.read_text() if path.exists() else ""))

    def changed(self, text: str) -> str:
        """The text with the change. Raises `DoesNotFit`."""
        if (times := text.count(self.old)) != 1:
            raise DoesNotFit(f"{self.file} holds {times} times, not once:\n{self.old}")
        return text.replace(self.old, self.new)


class Proof(ABC):
    """Something that is green, and must be red without the safeguard. It says so with exit status 1."""

    @property
    @abstractmethod
    def arguments(self) -> Sequence[str]:
        """What Python is to run."""

    @abstractmethod
    def red(self, output: str) -> list[str]:
        """What was broken, by its output; nothing where it came to no verdict."""

    @property
    @abstractmethod
    def limit_seconds(self) -> float:
        """After so long it is taken to hang, which proves nothing."""


@dataclass(frozen=True)
class Tests(Proof):
    """Tests, by their node ids."""

    __test__ = False  # for pytest, which takes it for a test by its name
    nodes: tuple[str, ...]

    @classmethod
    def of(cls, *nodes: str) -> "Tests":
        """Tests, by their node ids without the `tests/` in front."""
        return cls(tuple(f"tests/{node}" for node in nodes))

    @property
    def arguments(self) -> Sequence[str]:
        return ["-m", "pytest", "-x", "-q", "--color=no", "-p", "no:cacheprovider", *self.nodes]

    def red(self, output: str) -> list[str]:
        return _FAILED.findall(output)

    @property
    def limit_seconds(self) -> float:
        return 120 + 60 * len(self.nodes)


@dataclass(frozen=True, kw_only=True)
class Harness(Proof):
    """A run of the fault harness. Its seed says what goes wrong when."""

    seed: int
    tier: str = "smoke"
    patience: float = 60
    """Seconds that the last orders have in the end: many mutants leave some that never settle."""

    @property
    def arguments(self) -> Sequence[str]:
        size = ["--seed", str(self.seed), "--tier", self.tier]
        return ["-m", "tests.faults", *size, "--patience", str(self.patience)]

    def red(self, output: str) -> list[str]:
        return [*_SEEN.findall(output), *_BREACH.findall(output)]

    @property
    def limit_seconds(self) -> float:
        return 900


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A safeguard that is taken away."""

    name: str
    guards: str
    """What would be broken without it."""
    edits: tuple[Edit, ...]
    proofs: tuple[Proof, ...]
    """Each of these must notice."""
