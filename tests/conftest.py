"""The payment simulator, for whoever pays; and what the whole run has to say."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.mariadb import MISSING
from tests.payments import Dawdling, running_simulator


@pytest.fixture
def dawdling() -> Dawdling:
    """How long a slow payment takes: as long as the test says."""
    return Dawdling()


@pytest.fixture
async def simulator(tmp_path: Path, dawdling: Dawdling) -> AsyncIterator[str]:
    """The URL of a simulator of the test's own."""
    async with running_simulator(tmp_path / "payments.db", dawdling) as url:
        yield url


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say that half of the promises were not looked at."""
    missing = config.stash.get(MISSING, None)
    if missing is not None:
        terminalreporter.section("MYSQL WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(missing)
