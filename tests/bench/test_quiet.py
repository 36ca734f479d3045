"""Whether somebody else's work is told from ours."""

import asyncio
import os
import sys

from tests.bench.quiet import BUSY_CORES, Load, others, processes

_WORK_SECONDS = 0.3
_TICKS = os.sysconf("SC_CLK_TCK")


def stat(parent: int, *, own: float, awaited: float = 0.0) -> str:
    """A process's line as the kernel writes it; its name may hold anything."""
    times = f"{int(own * _TICKS)} 0 {int(awaited * _TICKS)} 0"
    return f"1 (a name) with) S {parent} 1 1 0 -1 4194560 1 1 1 1 {times} 20 0 1"


def test_what_others_used_is_what_we_and_our_descendants_did_not() -> None:
    stats = {
        10: stat(1, own=1.0, awaited=0.5),  # this process, and children of it that are gone
        11: stat(10, own=2.0),
        12: stat(11, own=4.0),
        20: stat(1, own=8.0),  # somebody else's
    }
    assert others(20.0, stats, own=10) == 12.5


def test_a_machine_is_quiet_only_when_it_was_before_and_stayed_so() -> None:
    def load(before: float, *during: float) -> Load:
        return Load(average_before=[0.0] * 3, before=before, during=[*during])

    assert load(0.0).quiet
    assert load(0.0, 0.0, BUSY_CORES).quiet  # on average
    assert not load(BUSY_CORES, 0.0).quiet
    assert not load(0.0, BUSY_CORES, BUSY_CORES).quiet


async def test_what_a_child_used_is_ours_while_it_runs_and_when_it_is_gone() -> None:
    def ours() -> float:
        return -others(0.0, processes(), own=os.getpid())

    before = ours()
    work = f"import time\nwhile time.process_time() < {_WORK_SECONDS}: pass\nprint(flush=True)\ninput()"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", work), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    await child.stdout.readline()  # it has worked
    assert ours() - before >= _WORK_SECONDS - 2 / _TICKS
    child.stdin.write(b"\n")
    await child.wait()
    assert ours() - before >= _WORK_SECONDS - 2 / _TICKS
