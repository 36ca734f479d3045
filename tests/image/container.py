"""A role in a container that may do no more than a cluster lets it, and what can be seen of it from outside."""

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.image.engine import Engine, Failed

_RESTRICTED = (
    *(
        "--read-only",
        "--read-only-tmpfs=false",
        "--tmpfs",
        "/tmp",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
    ),
    *("--network=host", "--memory", "512m"),
)
_STATE = "{{.State.Running}} {{.State.ExitCode}} {{.State.Pid}}"
_TERM = 1 << (signal.SIGTERM - 1)


@dataclass(frozen=True)
class Container:
    """One that was started, until it is removed."""

    engine: Engine
    name: str

    @staticmethod
    async def run(
        engine: Engine,
        image: str,
        name: str,
        *role: str,
        settings: Mapping[str, str] | None = None,
        mounts: Sequence[str] = (),
    ) -> "Container":
        """Start a role. Raises `Failed`."""
        volumes = [part for mount in mounts for part in ("--volume", mount)]
        await engine(
            *("podman", "run", "--detach", "--name", name, *_RESTRICTED, *_environment(settings), *volumes, image),
            *role,
        )
        return Container(engine, name)

    @staticmethod
    async def finish(
        engine: Engine, image: str, *role: str, settings: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Run a role to its end: its exit status, and what it said. Raises `Failed` where it comes to none."""
        command = ("podman", "run", "--rm", *_RESTRICTED, *_environment(settings), image, *role)
        status, said, complained = await engine.outcome(*command, within=120.0)
        return status, said + complained

    async def state(self) -> tuple[bool, int, int]:
        """Whether it runs, its exit status, and its process as this machine counts them."""
        running, status, pid = (await self.engine("podman", "inspect", "--format", _STATE, self.name)).split()
        return running == "true", int(status), int(pid)

    async def ended(self, *, within: float = 120.0) -> int:
        """Its exit status, once it has ended by itself."""
        return int(await self.engine("podman", "wait", self.name, within=within))

    async def stop(self, seconds: int) -> int:
        """Ask it to end, kill it where it has not after so many seconds, and answer its exit status."""
        await self.engine("podman", "stop", "--time", str(seconds), self.name)
        return (await self.state())[1]

    async def signal(self, name: str) -> None:
        await self.engine("podman", "kill", "--signal", name, self.name)

    async def inside(self, script: str) -> str:
        """What a shell in it prints, whatever comes of it."""
        return await self.engine("podman", "exec", self.name, "sh", "-c", f"{script}; true")

    async def is_healthy(self) -> bool:
        """What the image's HEALTHCHECK says."""
        return await self.engine.succeeds("podman", "healthcheck", "run", self.name)

    async def handles_sigterm(self) -> bool:
        """Whether its process has said to the kernel that it wants to handle SIGTERM."""
        running, status, pid = await self.state()
        if not running:
            raise Failed(f"{self.name} has ended with {status}: {await self.said()}")
        return bool(_caught_by(pid) & _TERM)

    async def said(self) -> str:
        """The last lines of its log."""
        return await self.engine("sh", "-c", 'podman logs --tail 20 "$1" 2>&1', "sh", self.name)


def _environment(settings: Mapping[str, str] | None) -> list[str]:
    return [part for name, value in (settings or {}).items() for part in ("--env", f"{name}={value}")]


def _caught_by(pid: int) -> int:
    """The signals that the shop's process handles; none while it is the container's runtime still."""
    if b"deploy" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        return 0
    told = Path(f"/proc/{pid}/status").read_text()
    return sum(int(mask, 16) for mask in re.findall("^SigCgt:\t([0-9a-f]+)", told, flags=re.MULTILINE))


async def until(look: Callable[[], Awaitable[bool]], what: str, *, within: float = 90.0) -> None:
    """Wait for what another process does, of which nobody tells us. Raises `Failed` after so many seconds."""
    try:
        async with asyncio.timeout(within):
            while not await look():  # noqa: ASYNC110  (another process: no event to wait for)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Failed(f"waited in vain for {what}") from None


def must(condition: object, what: str) -> None:
    """Raises `Failed` unless it is so."""
    if not condition:
        raise Failed(f"not so: {what}")
