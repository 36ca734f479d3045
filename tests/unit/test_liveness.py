"""When a process counts as lost, and what becomes of it: the rule by itself, and tried with tiny children."""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.liveness import Liveness, Pulse
from deploy.probes import LIVENESS, READINESS, STARTUP, FileProbe, HttpProbe, Probe
from deploy.supervisor import ChildFailed, Patience, Program, Supervisor
from services.shared.health import LIVENESS_SECONDS
from tests.children import IMPATIENT, READY, STUBBORN, Log, is_alive, program

QUICK = FileProbe(
    period_seconds=0.02, timeout_seconds=0.02, failure_threshold=3, younger_than_seconds=0.1, grace_seconds=0.1
)
SOON = replace(STARTUP, period_seconds=0.1)
NEVER_LOST = replace(QUICK, younger_than_seconds=3600, failure_threshold=1_000_000)
LOOKS = 7
"""How many find a file of QUICK's unchanged until it is lost: five make it 0.1 s old, which three must find."""

TOUCH = "open(sys.argv[2], 'w').close()\n"
FIRST_WORDS = 'print("here is"'
TOUCHES_ONCE = READY.replace(FIRST_WORDS, TOUCH + FIRST_WORDS)
STUBBORN_FAMILY = STUBBORN.replace(
    FIRST_WORDS,
    f"import subprocess; subprocess.Popen(['sleep', '60'])\n{TOUCH}{FIRST_WORDS}",
)
HANGS_THEN_IS_SLOW = f"""
import pathlib, signal, time
runs = pathlib.Path("runs")
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
if runs.read_text() == "xx":
    print("hangs", flush=True)
    signal.pause()
if runs.read_text() != "x":
    time.sleep(0.5)
{TOUCHES_ONCE}"""


def watched(
    name: str, code: str, directory: Path, probe: FileProbe, *, startup: HttpProbe = SOON, grace_seconds: float = 20.0
) -> Program:
    """A child that is watched over; what it is to touch is its second argument."""
    file = directory / f"{name}.alive"
    child = program(name, code, str(file), grace_seconds=grace_seconds)
    url = child.ready_url.removesuffix(READINESS.path)
    return replace(child, directory=directory, liveness=Liveness(url=url, file=file, startup=startup, probe=probe))


@asynccontextmanager
async def beating(file: Path) -> AsyncGenerator[None]:
    """While inside, a file is touched as by an event loop that turns: by this one, which the supervisor shares."""

    async def beat(touch: Callable[[], None]) -> None:
        while True:
            touch()
            await asyncio.sleep(0.01)

    heart = asyncio.create_task(beat(file.touch))
    try:
        yield
    finally:
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)


def looks(sentence: str) -> int:
    """How many looks a sentence of the log tells of."""
    told = re.search(r"has not shown life for \S+ s \((\d+) probes\) and is restarted$", sentence)
    assert told is not None, sentence
    return int(told[1])


@pytest.mark.parametrize("every", [LIVENESS_SECONDS, 2 * LIVENESS_SECONDS, 14.9])
@pytest.mark.parametrize("offset", [0.0, 0.1, 2.5, 4.9])
def test_a_process_that_touches_its_file_in_time_is_never_lost(every: float, offset: float) -> None:
    pulse = Pulse(LIVENESS, 0.0)
    for number in range(1, 1000):
        now = offset + number * LIVENESS.period_seconds
        pulse.look(int(now // every) + 1, now)
        assert not pulse.is_lost


@pytest.mark.parametrize("offset", [0.125, 1.0, 2.5, 4.875, 5.0])
def test_a_process_that_stops_is_lost_within_the_budget_wherever_the_looks_fall(offset: float) -> None:
    """It touches its file for the last time at 0; looks come each 5 s."""
    pulse = Pulse(LIVENESS, offset - LIVENESS.period_seconds)
    verdict = next(now for now in looks_from(offset) if seen(pulse, 7, now))
    assert LIVENESS.younger_than_seconds < verdict <= LIVENESS.budget_seconds == 30
    assert (pulse.silent_seconds, pulse.looks) == (25, 5)


def looks_from(offset: float) -> list[float]:
    return [offset + number * LIVENESS.period_seconds for number in range(20)]


def seen(pulse: Pulse, touched: int | None, now: float) -> bool:
    pulse.look(touched, now)
    return pulse.is_lost


def test_one_look_that_comes_late_counts_once() -> None:
    """As after a night with the lid closed, or after the supervisor stood still together with what it watches."""
    pulse = Pulse(LIVENESS, 0.0)
    assert not seen(pulse, 1, 5.0)
    assert not seen(pulse, 1, 30_000.0)
    assert not seen(pulse, 1, 30_005.0)
    assert not seen(pulse, 2, 30_010.0)
    assert (pulse.silent_seconds, pulse.looks) == (0.0, 0)
    assert [seen(pulse, 2, 30_010.0 + seconds) for seconds in (15, 20, 25)] == [False, False, True]


def test_it_is_lost_after_failures_in_a_row_alone() -> None:
    pulse = Pulse(LIVENESS, 0.0)
    found = [None, None, 1, None, None, 2, None, None, None]
    assert [seen(pulse, touched, 5.0 * number) for number, touched in enumerate(found, 1)] == [False] * 8 + [True]


def test_a_clock_that_is_set_kills_nobody_and_covers_for_nobody() -> None:
    hour = 3600 * 10**9
    pulse = Pulse(LIVENESS, 0.0)
    for number, touched in enumerate((5 * hour, 4 * hour, 3 * hour, 2 * hour, 9 * hour), 1):
        assert not seen(pulse, touched, 20.0 * number)
    assert [seen(pulse, 9 * hour, 100.0 + seconds) for seconds in (15, 20, 25)] == [False, False, True]


def test_the_command_of_the_manifests_tells_a_young_file_from_an_old_one_and_from_none(tmp_path: Path) -> None:
    file = tmp_path / "alive"
    command = LIVENESS.command(str(file))

    def status() -> int:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode

    assert status() == 1
    file.touch()
    old = time.time() - LIVENESS.younger_than_seconds
    os.utime(file, (old + 600, old + 600))  # however long the command takes to begin
    assert status() == 0
    os.utime(file, (old - 1, old - 1))
    assert status() == 1


@pytest.mark.parametrize("probe", [STARTUP, READINESS, LIVENESS])
def test_an_answer_comes_before_the_next_question(probe: Probe) -> None:
    assert probe.timeout_seconds <= probe.period_seconds


def test_a_process_may_miss_two_touches_before_its_file_is_old() -> None:
    assert LIVENESS.younger_than_seconds >= 3 * LIVENESS_SECONDS


async def test_a_child_that_hangs_is_restarted_and_one_that_lives_is_left_alone(
    supervisor: Supervisor, log: Log, tmp_path: Path
) -> None:
    lives = watched("api", READY, tmp_path, QUICK)
    hangs = watched("worker-order", TOUCHES_ONCE, tmp_path, QUICK)
    assert lives.liveness is not None
    async with beating(lives.liveness.file):
        await supervisor.start(lives, hangs)
        first = supervisor.pids
        await log.said("here is", times=2 + 2)
        assert supervisor.pids["api"] == first["api"]
    assert supervisor.pids["worker-order"] != first["worker-order"]
    told = [line for line in log.lines if line.startswith("shop: ")][:2]
    assert told[0].startswith("shop: worker-order has not shown life for 0.")
    assert looks(told[0]) <= LOOKS
    assert told[1] == "shop: worker-order ended (exit code 0); it is started again in 0.01 s"


async def test_a_child_that_does_not_end_when_told_is_killed_with_all_of_its_own(
    supervisor: Supervisor, log: Log, tmp_path: Path
) -> None:
    await supervisor.start(watched("api", STUBBORN_FAMILY, tmp_path, QUICK))
    first = supervisor.pids["api"]
    await log.said("here is", times=2)  # not before the last of them has let go of the output
    assert not is_alive(first)
    hung = next(number for number, line in enumerate(log.lines) if "has not shown life" in line)
    ended = "shop: api ended (exit code -9, SIGKILL); it is started again in 0.01 s"
    assert log.lines[hung + 1 : hung + 3] == ["api: asked to stop", ended]


async def test_the_file_of_the_process_before_is_no_sign_of_life(
    supervisor: Supervisor, log: Log, tmp_path: Path
) -> None:
    never_touches = watched("api", READY, tmp_path, QUICK)
    assert never_touches.liveness is not None
    never_touches.liveness.file.touch()
    await supervisor.start(never_touches)
    assert looks(await log.said("has not shown life")) == QUICK.failure_threshold
    assert not never_touches.liveness.file.exists()


async def test_a_child_that_hangs_as_it_starts_again_is_restarted_and_one_that_is_slow_has_its_time(
    supervisor: Supervisor, log: Log, tmp_path: Path
) -> None:
    await supervisor.start(watched("api", HANGS_THEN_IS_SLOW, tmp_path, NEVER_LOST))
    os.kill(supervisor.pids["api"], signal.SIGKILL)
    await log.said("hangs")
    await log.said("here is", times=2)
    told = [line for line in log.lines if "restarted" in line]
    assert told == ["shop: api has not answered within 3 s of its start and is restarted"]


async def test_until_a_program_was_ready_once_whoever_starts_it_decides(log: Log, tmp_path: Path) -> None:
    supervisor = Supervisor(log, patience=Patience(ready_within=0.5))
    soon = replace(STARTUP, period_seconds=0.01, failure_threshold=1)
    with pytest.raises(ChildFailed, match=r"^api was not ready within 0\.5 s\."):
        await supervisor.start(watched("api", "import signal; signal.pause()", tmp_path, QUICK, startup=soon))
    await supervisor.stop(asyncio.Event())
    assert log.lines == []


async def test_a_hung_child_whose_shop_is_stopped_has_the_probes_grace(log: Log, tmp_path: Path) -> None:
    supervisor = Supervisor(log, patience=IMPATIENT)
    slow_to_kill = replace(QUICK, grace_seconds=0.5)
    await supervisor.start(watched("api", STUBBORN_FAMILY, tmp_path, slow_to_kill, grace_seconds=3600))
    await log.said("asked to stop")
    async with asyncio.timeout(20):
        await supervisor.stop(asyncio.Event())
    assert not is_alive(supervisor.pids["api"])
    assert len([line for line in log.lines if line.startswith("shop: ")]) == 1, log.lines


async def test_a_child_that_drains_is_not_judged(log: Log, tmp_path: Path) -> None:
    """What it touches may have ended before it does: its own grace is what holds then."""
    supervisor = Supervisor(log, patience=IMPATIENT)
    drains = watched("api", STUBBORN, tmp_path, QUICK, grace_seconds=1)
    assert drains.liveness is not None
    async with beating(drains.liveness.file):
        await supervisor.start(drains)
        stopping = asyncio.create_task(supervisor.stop(asyncio.Event()))
        await log.said("asked to stop")
    await stopping
    assert [line for line in log.lines if line.startswith("shop: ")] == [
        "shop: api has not stopped by itself and is killed"
    ]
