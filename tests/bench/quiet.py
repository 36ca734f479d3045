"""Whether anything else keeps the machine busy while it is measured."""

import os
import platform
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

BUSY_CORES = 0.15
"""So much of a core used by others, on average, is not quiet any more. The kernel's own work for us is a part of it."""
_SAMPLE_SECONDS = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")
_WORKING = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, and steal: another machine on the same cores


class Machine(BaseModel):
    """What the figures were measured on: the absolute ones mean nothing elsewhere."""

    cores: int
    processor: str
    memory_gib: float
    python: str

    @staticmethod
    def here() -> "Machine":
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return Machine(
            cores=len(os.sched_getaffinity(0)),
            processor=names[0].partition(":")[2].strip() if names else platform.machine(),
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            python=platform.python_version(),
        )

    def told(self) -> str:
        return f"{self.cores} cores ({self.processor}), {self.memory_gib:g} GiB, Python {self.python}"


class Load(BaseModel):
    """How much of the machine others used, in cores: in the second before, and in the seconds during."""

    average_before: list[float]
    """The machine's own load averages."""
    before: float
    during: list[float] = []

    @property
    def quiet(self) -> bool:
        return max(self.before, statistics.fmean(self.during or [0.0])) < BUSY_CORES

    def told(self) -> str:
        averages = " ".join(f"{one:.1f}" for one in self.average_before)
        others = f"{self.before:.2f} cores in the second before (load average {averages})"
        if self.during:
            others += f", {statistics.fmean(self.during):.2f} during, {max(self.during):.2f} at most"
        if self.quiet:
            return f"Nothing else kept the machine busy: others used {others}."
        return f"**The machine was not quiet, so measure again**: others used {others}."


@contextmanager
def watched() -> Generator[Load]:
    """How much others use the machine from now on; every second is added while the block runs."""
    averages = list(os.getloadavg())
    load = Load(average_before=averages, before=_others(_SAMPLE_SECONDS))
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            load.during.append(_others(_SAMPLE_SECONDS))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield load
    finally:
        over.set()
        watching.join()


def others(busy: float, stats: Mapping[int, str], own: int) -> float:
    """Of the machine's busy seconds those that process `own` and its descendants did not use.

    `stats` is each process's line in `/proc/PID/stat`. What children used that are gone counts where they were awaited.
    """
    children: defaultdict[int, list[int]] = defaultdict(list)
    used: dict[int, float] = {}
    for pid, line in stats.items():
        fields = line.rpartition(")")[2].split()
        children[int(fields[1])].append(pid)
        used[pid] = sum(map(int, fields[11:15])) / _TICKS
    ours, left = 0.0, [own]
    while left:
        pid = left.pop()
        ours += used.get(pid, 0.0)
        left += children[pid]
    return busy - ours


def _others(seconds: float) -> float:
    before, began = _look(), time.monotonic()
    time.sleep(seconds)
    after, took = _look(), time.monotonic() - began
    return max(0.0, (after - before) / took)


def _look() -> float:
    return others(_busy_seconds(Path("/proc/stat").read_text().splitlines()), processes(), os.getpid())


def _busy_seconds(lines: Sequence[str]) -> float:
    fields = [int(one) for one in lines[0].split()[1:]]
    return sum(fields[one] for one in _WORKING) / _TICKS


def processes() -> dict[int, str]:
    """The line of each process in `/proc/PID/stat`."""
    stats: dict[int, str] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                stats[int(directory.name)] = (directory / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
    return stats
