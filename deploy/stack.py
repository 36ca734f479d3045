"""What a shop on one machine occupies: its ports, its data directory, and the file that tells where it runs."""

import errno
import fcntl
import json
import os
import random
import socket
import sqlite3
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import SettingsConfigDict

from services.shared import settings

HOST = "127.0.0.1"
_SQLITE_HEADER = b"SQLite format 3\0"
_QUICK_CHECK_BELOW = 64 << 20
_LETTING_GO_SECONDS = 1.0
"""How long the processes of a shop that was just killed may take to be gone."""
_SettingsT = TypeVar("_SettingsT", bound=settings.Settings)
Port = Annotated[int, Field(ge=0, le=65535)]


class StackError(Exception):
    """Why the shop cannot run here, in one sentence for the person who started it."""


class StackSettings(settings.Settings):
    """Where the one-machine shop lives (`STREET12_…`). Port 0 takes any free one."""

    model_config = SettingsConfigDict(env_prefix="STREET12_")

    api_port: Port = 8000
    temporal_port: Port = 7233
    temporal_ui_port: Port = 8233
    payment_port: Port = 12111
    codec_port: Port = 8081
    database: Literal["sqlite", "mysql"] = "sqlite"
    """What the teams' databases run on that have no URL of their own."""
    data_dir: Path = Path(".local")
    this_machine: settings.ThisMachine = ()


class Urls(BaseModel):
    """Where the running shop answers."""

    api: str
    temporal: str
    temporalUi: str
    payments: str
    codec: str
    metrics: dict[str, str] = Field(default_factory=dict[str, str])
    """Of each process of the shop's own, by its name."""


class Stack(BaseModel):
    """What `stack.json` says of the running shop."""

    urls: Urls
    processes: dict[str, int]

    def write(self, data_dir: Path) -> None:
        """Replace the file at once: a reader sees the old one or the new one."""
        new = stack_file(data_dir).with_suffix(".new")
        new.write_text(json.dumps(self.model_dump(), indent=2) + "\n")
        new.replace(stack_file(data_dir))

    @staticmethod
    def read(data_dir: Path) -> "Stack":
        """Raises `StackError` when no shop runs on this data directory."""
        try:
            return Stack.model_validate_json(stack_file(data_dir).read_text())
        except (OSError, ValidationError):
            raise StackError(f"No shop runs on {data_dir}: start one with `make run`.") from None


def stack_file(data_dir: Path) -> Path:
    """Where `Stack` stands while a shop runs."""
    return data_dir / "stack.json"


def read_settings(kind: type[_SettingsT], **given: Any) -> _SettingsT:
    """As `services.shared.settings.read_settings`, but raises `StackError`."""
    try:
        return settings.read_settings(kind, **given)
    except settings.WrongSetting as error:
        raise StackError(str(error)) from None


def take_ports(wanted: Mapping[str, int]) -> dict[str, int]:
    """The port for each setting, 0 replaced by a free one; they differ. Raises `StackError` when one is taken."""
    ports: dict[str, int] = {}
    with ExitStack() as held:
        for setting, port in sorted(wanted.items(), key=lambda item: item[1] == 0):
            if port and port in ports.values():
                other = next(name for name, value in ports.items() if value == port)
                raise StackError(f"{other} and {setting} are both {port}: each needs a port of its own.")
            ports[setting] = _bind(held, setting, port) if port else _bind_any(held)
    return ports


@contextmanager
def data_directory(data_dir: Path) -> Generator[Path]:
    """The data directory, made where it is missing and held for this process alone. Raises `StackError`."""
    try:
        if data_dir.exists() and not data_dir.is_dir():
            raise StackError(f"STREET12_DATA_DIR is {data_dir}, which is not a directory: choose another.")
        (data_dir / "run").mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "run" / "lock").open("a+")
    except OSError as error:
        raise StackError(
            f"The data directory {data_dir} cannot be written to ({error.strerror}):"
            " set STREET12_DATA_DIR to one that can."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise StackError(
                f"Another shop is running on {data_dir} (process {lock.read().strip() or 'unknown'}):"
                " stop it, or set STREET12_DATA_DIR to another directory."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield data_dir.absolute()


def check_database(file: Path) -> None:
    """Raises `StackError` when a database file is there and damaged."""
    if not file.exists():
        return
    try:
        with file.open("rb") as content:
            header = content.read(len(_SQLITE_HEADER))
        whole = header in (b"", _SQLITE_HEADER)
        if whole and file.stat().st_size < _QUICK_CHECK_BELOW:  # a few tens of milliseconds at most
            with closing(sqlite3.connect(file)) as database:
                whole = database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.OperationalError as error:
        whole = error.sqlite_errorcode == sqlite3.SQLITE_BUSY  # somebody is just looking into it
    except (OSError, sqlite3.DatabaseError):
        whole = False
    if not whole:
        raise StackError(f"{file} is not a sound SQLite database: move it away, or put a backup in its place.")


def _bind(held: ExitStack, setting: str, port: int) -> int:
    listener = held.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deadline = time.monotonic() + (_LETTING_GO_SECONDS if setting else 0)
    while True:
        try:
            listener.bind((HOST, port))
            listener.listen(1)
            return port
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            if not taken or time.monotonic() > deadline:
                why = "is taken by another program" if taken else f"cannot be used ({error.strerror})"
                raise StackError(f"Port {port} {why}: free it, or set {setting} to another one.") from None
        time.sleep(0.05)


def _bind_any(held: ExitStack) -> int:
    # Below the range from which outgoing connections take theirs: the port of a server that is just being restarted
    # is not snatched by one, and a connection attempt never meets itself.
    for port in random.sample(range(20_000, 32_000), 100):
        try:
            return _bind(held, "", port)
        except StackError:
            continue
    raise StackError("No free port was found between 20000 and 32000.")
