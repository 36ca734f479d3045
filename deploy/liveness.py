"""Tells when a process that runs here is lost, by the probes that a cluster asks."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2

from deploy.probes import LIVENESS, STARTUP, FileProbe, HttpProbe


@dataclass(frozen=True, kw_only=True)
class Liveness:
    """How a program shows that it lives."""

    url: str
    """Where it answers `startup`, without the path."""
    file: Path
    """What it touches while its event loop turns."""
    startup: HttpProbe = STARTUP
    probe: FileProbe = LIVENESS

    def forget(self) -> None:
        """To be called before the program is started: the file of the process before is no sign of life."""
        with suppress(OSError):  # then it cannot be touched either, which will be seen
            self.file.unlink(missing_ok=True)

    async def lost(self) -> str:
        """Watches over a process that was just started; returns, once it is lost, what it has failed to do."""
        if not await self._has_started():
            return f"has not answered within {self.startup.budget_seconds:g} s of its start"
        clock = asyncio.get_running_loop().time
        pulse = Pulse(self.probe, clock())
        while not pulse.is_lost:
            await asyncio.sleep(self.probe.period_seconds)  # from look to look: a late one makes up for none
            pulse.look(self._touched(), clock())
        return f"has not shown life for {pulse.silent_seconds:.3g} s ({pulse.looks} probes)"

    async def _has_started(self) -> bool:
        async with httpx2.AsyncClient(trust_env=False) as http:
            for _ in range(self.startup.failure_threshold):
                answered, _ = await asyncio.gather(self._answers(http), asyncio.sleep(self.startup.period_seconds))
                if answered:
                    return True
        return False

    async def _answers(self, http: httpx2.AsyncClient) -> bool:
        with suppress(httpx2.HTTPError, TimeoutError):
            async with asyncio.timeout(self.startup.timeout_seconds):
                return (await http.get(f"{self.url}{self.startup.path}")).status_code == 200
        return False

    def _touched(self) -> int | None:
        with suppress(OSError):
            return self.file.stat().st_mtime_ns
        return None


class Pulse:
    """What the looks at a liveness file have shown of one process.

    A file that has changed since the look before was touched meanwhile. So its age is counted from the look that found
    it changed, on this process's own clock, which comes out within the same budget. By the time of day, which kubelet
    compares with, a file is old when the machine has been asleep, and stays young for an hour when somebody sets the
    clock back by one; the clock here (`time.monotonic`) sleeps with the machine, and nobody sets it.
    """

    def __init__(self, probe: FileProbe, now: float) -> None:
        self.looks = 0
        """Since the last one that found the file changed."""
        self.silent_seconds = 0.0
        """At the last look, since that one."""
        self._probe = probe
        self._alive_at = now
        self._touched: int | None = None
        self._failures = 0

    def look(self, touched: int | None, now: float) -> None:
        """Take in a look: when the file was touched last by whatever clock, nothing where there is none."""
        if touched is not None and touched != self._touched:
            self._touched, self._alive_at, self.looks = touched, now, 0
        else:
            self.looks += 1
        self.silent_seconds = now - self._alive_at
        is_alive = touched is not None and self.silent_seconds < self._probe.younger_than_seconds
        self._failures = 0 if is_alive else self._failures + 1

    @property
    def is_lost(self) -> bool:
        return self._failures >= self._probe.failure_threshold
