"""Keeps child processes running: starts them and waits until they are ready, passes on what they print, starts them
again when they die or hang, and stops them.

A child leads a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone; and the kernel kills it
when the supervisor dies, however that dies, so that the next start finds its ports free (on Linux).
"""

import asyncio
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from deploy.liveness import Liveness

Say = Callable[[str, str], None]
"""Takes a tag and a line of the log."""

_PR_SET_PDEATHSIG = 1
_LONGEST_LINE = 1 << 20
_libc = ctypes.CDLL(None)


class ChildFailed(Exception):
    """A child did not come up. The message names it and ends with the last that it said."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run, and how to tell that it is ready: `GET ready_url` answers 200, or `answers` says so."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    directory: Path = Path()
    ready_url: str = ""
    answers: Callable[[], Awaitable[bool]] | None = None
    """For a program that does not speak HTTP."""
    liveness: Liveness | None = None
    """How it shows that it does not hang, where it does: a process that is lost is ended, and started again."""
    grace_seconds: float = 35.0
    """How long it may take to stop before it is killed."""
    silent_stop: bool = False
    """Whether what it says while it stops is of no interest to anybody."""

    @property
    def tag(self) -> str:
        return self.name.removeprefix("worker-")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How a supervisor bears with its children. Times are in seconds."""

    first_pause: float = 0.25
    """Before a child that died is started again; it doubles with each death …"""
    longest_pause: float = 15.0
    steady_after: float = 20.0
    """… and begins anew once the child has run this long."""
    deaths_before_ready: int = 3
    ready_within: float = 60.0
    poll: float = 0.05


class Child:
    """One program and the process that runs it now."""

    def __init__(self, program: Program, say: Say, patience: Patience, spawned: Callable[[], None]) -> None:
        self.program = program
        self.pid: int | None = None
        self._say = say
        self._patience = patience
        self._spawned = spawned
        self._last_lines: deque[str] = deque(maxlen=12)
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self.keeper: asyncio.Task[int] | None = None

    async def start(self, http: httpx2.AsyncClient) -> None:
        """Keep the program running from now on; returns once it is ready. Raises `ChildFailed`."""
        self.keeper = asyncio.create_task(self._keep())
        answering = asyncio.create_task(self._answers(http))
        try:
            async with asyncio.timeout(self._patience.ready_within):
                await asyncio.wait({self.keeper, answering}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise self._failed(f"was not ready within {self._patience.ready_within:g} s") from None
        finally:
            answering.cancel()
        if self.keeper.done():
            raise self._failed(f"ended ({_outcome(self.keeper.result())})")

    async def finish(self) -> None:
        """Run the program once, to its end. Raises `ChildFailed` unless it ends with exit code 0."""
        self.keeper = asyncio.create_task(self._run())
        code = await asyncio.shield(self.keeper)
        if code != 0:
            raise self._failed(f"failed ({_outcome(code)})")

    async def stop(self, hurry: asyncio.Event) -> None:
        """End the process: asked to first, killed when its grace is over or `hurry` is set."""
        self._stopping.set()
        if self.keeper is None:
            return
        self._signal(signal.SIGTERM)
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait(
            {self.keeper, hurrying}, timeout=self.program.grace_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        hurrying.cancel()
        if not self.keeper.done():
            self._say("shop", f"{self.program.name} has not stopped by itself and is killed")
            self._signal(signal.SIGKILL)
            await asyncio.wait({self.keeper})

    async def _keep(self) -> int:
        patience, pause, deaths = self._patience, self._patience.first_pause, 0
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            code = await self._run()
            if self._stopping.is_set():
                return code
            deaths += 1
            if not self._ready.is_set() and deaths >= patience.deaths_before_ready:
                return code
            if clock() - started >= patience.steady_after:
                pause = patience.first_pause
            again = f"ended ({_outcome(code)}); it is started again in {pause:g} s"
            self._say("shop", f"{self.program.name} {again}")
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                    return code
            pause = min(2 * pause, patience.longest_pause)

    async def _run(self) -> int:
        supervisor = os.getpid()
        if self.program.liveness is not None:
            self.program.liveness.forget()
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *self.program.command,
                cwd=self.program.directory,
                env=dict(self.program.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=_LONGEST_LINE,
                start_new_session=True,
                preexec_fn=lambda: die_with(supervisor),
            )
        except OSError as error:
            self._note(f"{self.program.command[0]} cannot be run: {error.strerror}")
            return 127
        self.pid = process.pid
        self._spawned()
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        assert process.stdout is not None
        watching = asyncio.create_task(self._watch())
        await self._pass_on(process.stdout)
        code = await process.wait()
        watching.cancel()
        return code

    async def _watch(self) -> None:
        """End the process once it is lost, as kubelet does; whoever keeps it running starts it again."""
        liveness = self.program.liveness
        if liveness is None:
            return
        await self._ready.wait()  # until then, whoever starts the program waits and is told
        how = await liveness.lost()
        if self._stopping.is_set():  # asked to end already, and with a grace of its own
            return
        self._say("shop", f"{self.program.name} {how} and is restarted")
        self._signal(signal.SIGTERM)
        await asyncio.sleep(liveness.probe.grace_seconds)
        self._signal(signal.SIGKILL)

    async def _pass_on(self, output: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await output.readline()
            except ValueError:  # longer than _LONGEST_LINE, and dropped by readline
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            if text and not (self._stopping.is_set() and self.program.silent_stop):
                self._note(text)

    async def _answers(self, http: httpx2.AsyncClient) -> None:
        while not await self._is_ready(http):  # noqa: ASYNC110  (another process, which tells nobody)
            await asyncio.sleep(self._patience.poll)
        self._ready.set()

    async def _is_ready(self, http: httpx2.AsyncClient) -> bool:
        with suppress(httpx2.HTTPError):
            if self.program.answers is not None:
                return await self.program.answers()
            return (await http.get(self.program.ready_url)).status_code == 200
        return False

    def _note(self, line: str) -> None:
        self._last_lines.append(line)
        self._say(self.program.tag, line)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                send = os.killpg if number == signal.SIGKILL else os.kill  # nothing of its own may stay behind
                send(self._process.pid, number)

    def _failed(self, how: str) -> ChildFailed:
        said = "".join(f"\n  {line}" for line in self._last_lines)
        return ChildFailed(f"{self.program.name} {how}." + (f" The last it said:{said}" if said else ""))


class Supervisor:
    """A group of children. Programs started by one call belong together; groups are stopped last one first."""

    def __init__(
        self, say: Say, *, spawned: Callable[[], None] = lambda: None, patience: Patience | None = None
    ) -> None:
        self._say = say
        self._spawned = spawned
        self._patience = patience or Patience()
        self._groups: list[list[Child]] = []
        self._jobs: list[Child] = []

    @property
    def pids(self) -> dict[str, int]:
        """The process that runs each program now, or ran it last."""
        children = [child for group in self._groups for child in group]
        return {child.program.name: child.pid for child in children if child.pid is not None}

    async def start(self, *programs: Program) -> None:
        """Keep the programs running from now on; returns once all are ready. Raises `ChildFailed`."""
        group = [self._child(program) for program in programs]
        self._groups.append(group)
        async with httpx2.AsyncClient(trust_env=False, timeout=2.0) as http:
            await together(*(child.start(http) for child in group))

    async def finish(self, job: Program) -> None:
        """Run a program once, to its end. Raises `ChildFailed` unless it succeeds."""
        child = self._child(job)
        self._jobs.append(child)
        await child.finish()

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stop every child, the latest group first; `hurry` kills those that are not done."""
        for group in [self._jobs, *reversed(self._groups)]:
            await asyncio.gather(*(child.stop(hurry) for child in group))

    def _child(self, program: Program) -> Child:
        return Child(program, self._say, self._patience, self._spawned)


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Do it all at once; the first failure ends the rest and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for one in work:
                tasks.create_task(one)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def die_with(parent: int) -> None:
    """Between fork and exec: have the kernel kill this process when its parent dies, however that dies (on Linux)."""
    # Runs in the child between fork and exec. The kernel sends the signal when the parent's *thread* ends, so children
    # are started from the main one.
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _outcome(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"exit code {code}, {signal.Signals(-code).name}"
    return f"exit code {code}"
