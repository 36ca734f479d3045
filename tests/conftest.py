"""What the whole run has to say."""

import pytest

from tests.mariadb import MISSING


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say that half of the promises were not looked at."""
    missing = config.stash.get(MISSING, None)
    if missing is not None:
        terminalreporter.section("MYSQL WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(missing)
