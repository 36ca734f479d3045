"""A supervisor of the tests' own, and what it says."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from deploy.supervisor import Supervisor
from tests.children import IMPATIENT, Log


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
async def supervisor(log: Log) -> AsyncGenerator[Supervisor]:
    supervisor = Supervisor(log, patience=IMPATIENT)
    yield supervisor
    hurry = asyncio.Event()
    hurry.set()
    await supervisor.stop(hurry)
