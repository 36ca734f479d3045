"""Programs of the operating system that the shop or its tests run: found, or where missing installed with apt."""

import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from asyncio import create_subprocess_exec
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

_SYSTEM_PATH = os.pathsep.join(("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"))
_POLICY = Path("/usr/sbin/policy-rc.d")


class ProgramUnavailable(Exception):
    """A program is not on this machine and cannot be installed, or it failed. The message says what to do, or why."""


async def find_program(program: str, *, package: str) -> str:
    """Where a program is, its package installed where it is missing and may be. Raises `ProgramUnavailable`."""
    async with _one_at_a_time():
        if (found := which(program)) is None:
            await _install(program, package)
            found = which(program)
    if found is None:
        raise ProgramUnavailable(f"there is no {program} on this machine; install the package {package}")
    return found


def which(program: str) -> str | None:
    """Where a program is; also one that is not on the PATH of a plain user."""
    return shutil.which(program) or shutil.which(program, path=_SYSTEM_PATH)


async def run(*command: str, environment: dict[str, str] | None = None, directory: Path = Path("/")) -> None:
    """Run a command to its end. Raises `ProgramUnavailable`."""
    process = await create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=directory,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        last = "\n".join(output.decode(errors="replace").splitlines()[-10:])
        raise ProgramUnavailable(f"{Path(command[0]).name} ended with {process.returncode}:\n{last}")


async def _install(program: str, package: str) -> None:
    apt = which("apt-get")
    if os.geteuid() != 0 or apt is None:
        raise ProgramUnavailable(
            f"there is no {program} on this machine, and installing it takes root and apt-get;"
            f" install the package {package}"
        )
    with _no_services():
        for arguments in (("update",), ("install", "--yes", "--no-install-recommends", package)):
            print(f"{program} is missing: apt-get {' '.join(arguments)} …", file=sys.stderr, flush=True)
            await run(apt, "-qq", *arguments, environment={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


@asynccontextmanager
async def _one_at_a_time() -> AsyncGenerator[None]:
    """Keep out others of this user: apt has one lock, and what is being installed looks as if it were there."""
    with (Path(tempfile.gettempdir()) / f"street12-apt-{os.getuid()}.lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _no_services() -> Generator[None]:
    """Keep packages from starting their services: only the private process is wanted."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
