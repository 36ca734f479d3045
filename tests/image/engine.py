"""Containers without a daemon: Debian's buildah, podman and runc, which keep everything in a directory of their own."""

import asyncio
import os
import shutil
import tempfile
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.apt import find_program

_PROGRAMS = {"buildah": "buildah", "podman": "podman", "runc": "runc", "mmdebstrap": "mmdebstrap"}
# What containers may do to a release's processes at most, and what is said of images by their short names.
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{work}/tmp"
volume_path = "{work}/volumes"
"""
_REGISTRIES = """
unqualified-search-registries = ["docker.io"]
short-name-mode = "permissive"
"""
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{images}"
runroot = "{work}/run"
"""


class Failed(Exception):
    """A command did not do what it was to do; the message is the last that it said."""


@dataclass(frozen=True)
class Engine:
    """Runs buildah and podman. Images stay in `images`, all else is gone when it is closed."""

    images: Path
    environment: dict[str, str]

    async def __call__(self, *command: str, within: float = 900.0) -> str:
        """What a command prints. Raises `Failed` where it does not end with status 0, or not in time (seconds)."""
        status, said, complained = await self.outcome(*command, within=within)
        if status != 0:
            last = "\n".join((said + complained).splitlines()[-20:])
            raise Failed(f"{' '.join(command)} ended with {status}:\n{last}")
        return said.strip()

    async def outcome(self, *command: str, within: float = 900.0) -> tuple[int, str, str]:
        """The exit status of a command, what it printed, and what it complained of. Raises `Failed`: not in time."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
            cwd="/",
        )
        try:
            async with asyncio.timeout(within):
                said, complained = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise Failed(f"{' '.join(command[:2])} did not end within {within:.0f} s") from None
        assert process.returncode is not None
        return process.returncode, said.decode(errors="replace"), complained.decode(errors="replace")

    async def has(self, image: str) -> bool:
        """Whether there is such an image."""
        return await self.succeeds("podman", "image", "exists", image)

    async def succeeds(self, *command: str) -> bool:
        """Whether a command ends with status 0."""
        return (await self.outcome(*command))[0] == 0


@asynccontextmanager
async def running_engine(images: Path) -> AsyncGenerator[Engine]:
    """An engine; what it still runs in the end is killed. Raises `ProgramUnavailable`."""
    for program, package in _PROGRAMS.items():
        await find_program(program, package=package)
    os.makedirs(images, exist_ok=True)
    # Always the same, because the engine notes it beside the images; and short, because a socket's path is.
    work = Path(tempfile.gettempdir(), f"street12-image-{zlib.crc32(os.fsencode(images)):08x}")
    os.makedirs(work, mode=0o700, exist_ok=True)
    files = {
        "CONTAINERS_CONF": _CONTAINERS,
        "CONTAINERS_REGISTRIES_CONF": _REGISTRIES,
        "CONTAINERS_STORAGE_CONF": _STORAGE,
    }
    environment = dict(os.environ)
    for variable, text in files.items():
        file = work / f"{variable.lower()}"
        file.write_text(text.format(work=work, images=images) if "{" in text else text)
        environment[variable] = str(file)
    engine = Engine(images, environment)
    try:
        yield engine
    finally:
        await engine.succeeds("podman", "rm", "--all", "--force", "--time", "0")
        await engine.succeeds("buildah", "rm", "--all")  # a build forgets one now and then, and that stays mounted
        await engine.succeeds("umount", str(images / "overlay"))  # or nobody could remove the directory
        shutil.rmtree(work, ignore_errors=True)
