"""A Redis server for tests."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NotConnected

from deploy.apt import find_program
from deploy.stack import HOST
from deploy.supervisor import Program, Supervisor
from tests.missing import need

PASSWORD = "s3cret"


async def need_redis(config: pytest.Config) -> str:
    """Where the server's program is. Skips where there is none and none can be installed; fails under `CI=true`."""
    return await need(config, "Redis", partial(find_program, "redis-server", package="redis-server"))


def url_of(port: int, password: str = PASSWORD) -> str:
    """The URL of a server of the tests' own."""
    return f"redis://:{password}@{HOST}:{port}/0"


@asynccontextmanager
async def running_redis(binary: str, directory: Path, port: int) -> AsyncGenerator[Redis]:
    """A server of the tests' own, which keeps nothing, and a client of it."""
    client = Redis(host=HOST, port=port, password=PASSWORD, decode_responses=True)

    async def answers() -> bool:
        try:
            await client.get("")
        except NotConnected:
            return False
        return True

    program = Program(
        name="redis",
        command=[
            *(binary, "--port", str(port), "--bind", HOST, "--requirepass", PASSWORD),
            *("--save", "", "--appendonly", "no", "--dir", str(directory)),
        ],
        environment=os.environ,
        answers=answers,
        silent_stop=True,
    )
    supervisor = Supervisor(_ignore)
    try:
        await supervisor.start(program)
        yield client
    finally:
        await client.aclose()
        await supervisor.stop(asyncio.Event())


def _ignore(_tag: str, _line: str) -> None:
    """The server's log is of no interest."""
