"""A MariaDB server of one's own, as a program for the supervisor: for the shop on one machine, and for the tests.

It listens on 127.0.0.1 and a socket alone, keeps everything in one directory, and runs as whoever starts it.
"""

import asyncio
import os
import pwd
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomysql  # pyright: ignore[reportMissingTypeStubs]
from sqlalchemy import URL

from deploy.apt import ProgramUnavailable, find_program, run, which
from deploy.stack import HOST
from deploy.supervisor import Program

SQL_MODE = (
    "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
    "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
)
"""How strict MySQL 8.4 is unless told otherwise: what it would refuse is refused here, too."""
_SOCKET_PATH_LIMIT = 107
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Access:
    """The URLs of one database: `owner` may do everything, `user` may read and write rows and nothing else."""

    owner: str
    user: str


@dataclass(frozen=True, kw_only=True)
class MariaDb:
    """A server: where its files are and where it answers while its `program` runs."""

    binary: str
    data_dir: Path
    port: int
    options: tuple[str, ...] = ()
    """What it is started with besides."""

    @property
    def socket(self) -> Path:
        """Where the administrator connects: in the data directory, unless the kernel finds that path too long."""
        inside = self.data_dir / "s.sock"
        if len(os.fsencode(inside)) <= _SOCKET_PATH_LIMIT:
            return inside
        return Path(tempfile.gettempdir()) / f"street12-{os.getuid()}-{zlib.crc32(os.fsencode(inside)):08x}.sock"

    def program(self) -> Program:
        """What to run."""
        return Program(
            name="mariadb",
            command=[
                self.binary,
                "--no-defaults",
                "--silent-startup",
                "--log-warnings=0",  # not each client that was killed
                "--table-open-cache=400",  # the files that 1024 descriptors allow
                f"--user={_administrator()}",  # root is taken only when named; it grants FILE to nobody
                f"--datadir={self.data_dir}",
                f"--bind-address={HOST}",
                f"--port={self.port}",
                f"--socket={self.socket}",
                f"--pid-file={self.data_dir / 'pid'}",
                "--skip-name-resolve",
                f"--sql-mode={SQL_MODE}",
                *self.options,
            ],
            environment=_own_tmpdir(self.data_dir),
            directory=self.data_dir,
            answers=self.answers,
            silent_stop=True,
        )

    async def answers(self) -> bool:
        """Whether the server is up."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self.execute("SELECT 1")
        except (aiomysql.OperationalError, OSError):
            return False
        return True

    async def create_database(self, name: str) -> Access:
        """Make a database, unless it is there, and a user of the same name who may use it and no other.

        The user gets a new password each time: with one that was given out before, no new connection can be opened.
        """
        if not name.isidentifier() or not name.isascii():
            raise ValueError(f"not a plain name: {name!r}")
        password = secrets.token_urlsafe(24)
        await self.execute(
            "SET SESSION sql_notes = 0",
            f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            f"CREATE OR REPLACE USER '{name}'@'{HOST}' IDENTIFIED BY '{password}'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{name}`.* TO '{name}'@'{HOST}'",
        )
        user = _url(name).set(username=name, password=password, host=HOST, port=self.port)
        return Access(owner=self.owner_url(name), user=user.render_as_string(hide_password=False))

    def owner_url(self, name: str) -> str:
        """The URL by which the administrator uses a database, over the socket: good at every start."""
        owner = _url(name).set(username=_administrator(), host="localhost")
        return owner.update_query_dict({"unix_socket": str(self.socket)}).render_as_string(hide_password=False)

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
            await connection.ensure_closed()


async def prepare(data_dir: Path, *, port: int, options: Sequence[str] = ()) -> MariaDb:
    """A server on the files in `data_dir` (absolute), ready to be run: installed and set up where it is not yet.

    Raises `ProgramUnavailable`.
    """
    binary = await find_server()
    if not is_prepared(data_dir):
        await _make_system_tables(data_dir)
    return MariaDb(binary=binary, data_dir=data_dir, port=port, options=tuple(options))


def is_prepared(data_dir: Path) -> bool:
    """Whether a server's files are there."""
    return data_dir.exists()


async def find_server() -> str:
    """Where the server's program is, installed where it is missing and may be. Raises `ProgramUnavailable`."""
    return await find_program("mariadbd", package="mariadb-server")


async def _make_system_tables(data_dir: Path) -> None:
    program = which("mariadb-install-db")
    if program is None:
        raise ProgramUnavailable("there is no mariadb-install-db beside mariadbd; install the package mariadb-server")
    new = data_dir.with_name(f"{data_dir.name}.new")  # a first time that was cut off is begun again
    _make_empty(new)
    await run(
        program,
        "--no-defaults",
        f"--user={_administrator()}",
        "--datadir=.",  # it cannot cope with a blank in the path
        # The one account that may do everything is this system user's: told by the socket, without a password.
        "--auth-root-authentication-method=socket",
        f"--auth-root-socket-user={_administrator()}",
        "--skip-test-db",
        "--skip-name-resolve",
        directory=new,
        environment=_own_tmpdir(data_dir),
    )
    new.rename(data_dir)


def _own_tmpdir(data_dir: Path) -> dict[str, str]:
    """The environment of a server on this data directory: one that starts deletes what others keep in a shared /tmp."""
    tmpdir = data_dir.with_name(f"{data_dir.name}.tmp")
    tmpdir.mkdir(mode=0o700, exist_ok=True)
    return {**os.environ, "TMPDIR": str(tmpdir)}


def _make_empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)


def _url(name: str) -> URL:
    return URL.create("mysql+aiomysql", database=name, query={"charset": "utf8mb4"})


def _administrator() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
