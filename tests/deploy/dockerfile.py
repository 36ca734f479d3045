"""What deploy/Dockerfile says, read without an engine: its stages, and the repository's files that each takes."""

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deploy.local import ROOT

FILE = ROOT / "deploy" / "Dockerfile"
_NOT_SENT = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True)
class Instruction:
    keyword: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


@dataclass(frozen=True)
class Stage:
    base: str
    instructions: list[Instruction]


def read(text: str | None = None) -> dict[str, Stage]:
    """The stages by their names, in the order in which they are written."""
    lines = [line for line in (text or FILE.read_text()).splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, Stage] = {}
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        keyword, _, rest = line.strip().partition(" ")
        if keyword == "FROM":
            base, _, name = rest.split()
            found[name] = Stage(base, [])
        elif keyword and found:
            [*found.values()][-1].instructions.append(Instruction(keyword, rest.strip()))
    return found


def instructions(stage: str, *keywords: str) -> list[Instruction]:
    """What is done for a stage and for those that it is made from, first things first."""
    stages = read()
    one = stages[stage]
    before = instructions(one.base, *keywords) if one.base in stages else []
    return [*before, *(found for found in one.instructions if found.keyword in keywords)]


def environment(stage: str) -> dict[str, str]:
    """What processes of the image find in their environment, beside the PATH."""
    told = (word.partition("=") for env in instructions(stage, "ENV") for word in env.words)
    return {name: value for name, _, value in told if name != "PATH"}


def lay_out(stage: str, root: Path) -> Path:
    """Put the repository's files that a stage holds where it holds them, below `root`. What RUN makes is not there.

    Answers where its WORKDIR is.
    """
    workdir = PurePosixPath("/")
    for instruction in instructions(stage, "WORKDIR", "COPY"):
        if instruction.keyword == "WORKDIR":
            workdir = PurePosixPath(instruction.text)
            _at(root, workdir).mkdir(parents=True, exist_ok=True)
            continue
        flags = dict(word[2:].split("=") for word in instruction.words if word.startswith("--"))
        *sources, target = (word for word in instruction.words if not word.startswith("--"))
        whole = len(sources) == 1 and not target.endswith("/")
        for source in sources:
            came_from = _at(_laid_out(flags["from"], root), PurePosixPath(source)) if "from" in flags else ROOT / source
            _copy(came_from, _at(root, workdir / target), whole=whole)
    return _at(root, workdir)


def _laid_out(stage: str, root: Path) -> Path:
    aside = root.with_name(f"{root.name}.{stage}")
    if not aside.exists():
        lay_out(stage, aside)
    return aside


def _copy(source: Path, target: Path, *, whole: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=_NOT_SENT, dirs_exist_ok=True)
    elif source.exists():  # else a RUN made it
        target = target if whole else target / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _at(root: Path, inside: PurePosixPath) -> Path:
    return root / inside.relative_to("/") if inside.is_absolute() else root / inside
