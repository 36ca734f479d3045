"""A MariaDB server for tests, and what becomes of them on a machine that has none: told loudly, and failed in CI."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.apt import ProgramUnavailable
from deploy.mariadb import MariaDb, find_server, prepare
from deploy.stack import take_ports
from deploy.supervisor import Patience, Supervisor

MISSING = pytest.StashKey[str]()


async def need_mariadb(config: pytest.Config) -> None:
    """Skips the test where there is no MariaDB and none can be installed; fails it under `CI=true`."""
    if MISSING not in config.stash:
        try:
            await find_server()
        except ProgramUnavailable as error:
            config.stash[MISSING] = str(error)
        else:
            return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs MariaDB: {config.stash[MISSING]}", pytrace=False)
    pytest.skip(f"no MariaDB: {config.stash[MISSING]}")


@asynccontextmanager
async def running_mariadb(data_dir: Path) -> AsyncGenerator[MariaDb]:
    """A server of the tests' own. One that is killed is started again."""
    server = await prepare(data_dir, port=take_ports({"": 0})[""])
    supervisor = Supervisor(_ignore, patience=Patience(longest_pause=0.25))
    try:
        await supervisor.start(server.program())
        yield server
    finally:
        await supervisor.stop(asyncio.Event())


def _ignore(_tag: str, _line: str) -> None:
    """The server's log is of no interest."""
