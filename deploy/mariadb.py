"""A MariaDB server of one's own, as a process: for the tests, and for the shop on one machine.

It listens on 127.0.0.1 and a socket alone, keeps everything in one directory, and ends with the process that started
it.
"""

import asyncio
import ctypes
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomysql  # pyright: ignore[reportMissingTypeStubs]

HOST = "127.0.0.1"
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_SOCKET_PATH_LIMIT = 107
_PR_SET_PDEATHSIG = 1
_SYSTEM_PATH = os.pathsep.join(("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"))
_READY = "street12-ready"
_POLICY = Path("/usr/sbin/policy-rc.d")
_libc = ctypes.CDLL(None)


class MariaDbUnavailable(Exception):
    """There is no MariaDB server on this machine and none can be installed."""


class MariaDbFailed(Exception):
    """The server is installed and does not start."""


@dataclass(frozen=True)
class MariaDb:
    """A server that runs."""

    host: str
    port: int
    socket: Path
    pid: int

    async def create_database(self, name: str, user: str) -> str:
        """Make a database, unless it is there, and a user who may use it and no other; answers the URL.

        The user gets a new password each time: URLs that were given out before open no new connection.
        """
        for word in (name, user):
            if not word.isidentifier() or not word.isascii():
                raise ValueError(f"not a plain name: {word!r}")
        password = secrets.token_urlsafe(24)
        if not await self.execute(f"SELECT 1 FROM information_schema.schemata WHERE schema_name = '{name}'"):
            await self.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        await self.execute(
            f"CREATE OR REPLACE USER '{user}'@'{self.host}' IDENTIFIED BY '{password}'",
            "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES"
            f" ON `{name}`.* TO '{user}'@'{self.host}'",
        )
        return f"mysql+aiomysql://{user}:{password}@{self.host}:{self.port}/{name}?charset=utf8mb4"

    async def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as the administrator, over the socket; answers the rows of the last one."""
        connect: Any = aiomysql.connect  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        connection: Any = await connect(unix_socket=str(self.socket), user=_administrator(), autocommit=True)
        try:
            async with connection.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
                return list(await cursor.fetchall())
        finally:
            connection.close()


@asynccontextmanager
async def running_mariadb(data_dir: Path, *, install: bool = True) -> AsyncGenerator[MariaDb]:
    """A server on the files in `data_dir` (made when they are not there), until the block is left.

    Raises `MariaDbUnavailable` where there is none, `MariaDbFailed` where it does not start.
    """
    server = await _find("mariadbd", install=install)
    data_dir = await _prepare(data_dir)
    with tempfile.TemporaryDirectory(prefix="street12-") as short:
        path = data_dir / "s.sock"
        if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
            path = Path(short) / "s.sock"
            if os.geteuid() == 0:
                shutil.chown(short, "mysql", "mysql")
        log = data_dir / "server.log"
        port = _free_port()
        process = await asyncio.create_subprocess_exec(
            server,
            "--no-defaults",
            f"--datadir={data_dir}",
            f"--bind-address={HOST}",
            f"--port={port}",
            f"--socket={path}",
            f"--pid-file={data_dir / 'pid'}",
            f"--log-error={log}",
            "--skip-name-resolve",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which then stops this in its turn
            preexec_fn=_die_with(os.getpid()),
            **_identity(),
        )
        try:
            running = MariaDb(host=HOST, port=port, socket=path, pid=process.pid)
            await _wait_until_up(running, process, log)
            yield running
        finally:
            await _stop(process)


async def _find(program: str, *, install: bool) -> str:
    found = _which(program)
    if found is None and install:
        await _install()
        found = _which(program)
    if found is None:
        raise MariaDbUnavailable(f"{program} is not on this machine; install the package mariadb-server")
    return found


def _which(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=_SYSTEM_PATH)


async def _install() -> None:
    apt = _which("apt-get")
    if os.geteuid() != 0 or apt is None:
        raise MariaDbUnavailable(
            "there is no MariaDB server on this machine, and installing it takes root and apt-get;"
            " install the package mariadb-server"
        )
    with _no_services():
        for arguments in (("update",), ("install", "--yes", "--no-install-recommends", "mariadb-server")):
            print(f"MariaDB is missing: apt-get {' '.join(arguments)} …", file=sys.stderr, flush=True)
            process = await asyncio.create_subprocess_exec(
                apt,
                "-qq",
                *arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )
            output, _ = await process.communicate()
            if process.returncode != 0:
                tail = "\n".join(output.decode(errors="replace").splitlines()[-10:])
                raise MariaDbUnavailable(f"apt-get {arguments[0]} ended with {process.returncode}:\n{tail}")


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


async def _prepare(data_dir: Path) -> Path:
    """Make the data directory, and the system tables in it where they are missing; answers where it is."""
    data_dir, ready = _make_directory(data_dir)
    if not await _may_use(data_dir):
        raise MariaDbFailed(f"the user mysql cannot reach {data_dir}: a directory above it is closed to others")
    if ready:
        return data_dir
    process = await asyncio.create_subprocess_exec(
        await _find("mariadb-install-db", install=False),
        "--no-defaults",
        f"--datadir={data_dir}",
        "--auth-root-authentication-method=socket",
        f"--auth-root-socket-user={_administrator()}",
        "--skip-test-db",
        "--skip-name-resolve",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        **_identity(),
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise MariaDbFailed(f"mariadb-install-db: {output.decode(errors='replace')[-2000:]}")
    _mark_ready(data_dir)
    return data_dir


def _make_directory(data_dir: Path) -> tuple[Path, bool]:
    """Where it is, and whether there are system tables in it already."""
    data_dir = data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(data_dir, "mysql", "mysql")
    data_dir.chmod(0o700)
    return data_dir, (data_dir / _READY).exists()


def _mark_ready(data_dir: Path) -> None:
    # Only now: a first time that was cut off is repeated.
    (data_dir / _READY).touch()


async def _may_use(data_dir: Path) -> bool:
    process = await asyncio.create_subprocess_exec(
        "test", "-w", str(data_dir), "-a", "-x", str(data_dir), cwd="/", **_identity()
    )
    return await process.wait() == 0


def _identity() -> dict[str, Any]:
    """Run a program as the user mysql where this is root.

    Changed before the program starts: a change of user later would clear the parent-death signal.
    """
    return {"user": "mysql", "group": "mysql", "extra_groups": []} if os.geteuid() == 0 else {}


def _administrator() -> str:
    """The one account that may do everything: this system user's, recognised by the socket, without a password."""
    return "root" if os.geteuid() == 0 else getpass.getuser()


def _die_with(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the signal was asked for
            os._exit(1)

    return prepare


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


async def _wait_until_up(running: MariaDb, process: asyncio.subprocess.Process, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if process.returncode is not None or time.monotonic() > deadline:
            raise MariaDbFailed(f"mariadbd did not start (it ended with {process.returncode}):\n{_tail(log)}")
        try:
            await asyncio.wait_for(running.execute("SELECT 1"), timeout=5)
        except (aiomysql.OperationalError, OSError):
            await asyncio.sleep(0.05)
        else:
            return


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else ""


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(asyncio.shield(process.wait()), timeout=_STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
