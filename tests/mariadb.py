"""A MariaDB server for tests."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.mariadb import MariaDb, find_server, prepare
from deploy.stack import take_ports
from deploy.supervisor import Patience, Supervisor
from tests.missing import need


async def need_mariadb(config: pytest.Config) -> None:
    """Skips the test where there is no MariaDB and none can be installed; fails it under `CI=true`."""
    await need(config, "MySQL", find_server)


@asynccontextmanager
async def running_mariadb(data_dir: Path, *options: str) -> AsyncGenerator[MariaDb]:
    """A server of the tests' own, started with these options besides. One that is killed is started again."""
    server = await prepare(data_dir, port=take_ports({"": 0})[""], options=options)
    supervisor = Supervisor(_ignore, patience=Patience(longest_pause=0.25))
    try:
        await supervisor.start(server.program())
        yield server
    finally:
        await supervisor.stop(asyncio.Event())


def _ignore(_tag: str, _line: str) -> None:
    """The server's log is of no interest."""
