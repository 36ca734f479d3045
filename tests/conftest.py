"""The payment simulator, for whoever pays; and what the whole run has to say."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from temporalio.worker._workflow import _WorkflowWorker  # pyright: ignore[reportPrivateUsage]

from tests.missing import MISSING
from tests.payments import Dawdling, running_simulator

# Left to itself, structlog draws tracebacks with every local, which takes seconds each.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(scope="session", autouse=True)
def _patient_sdk() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """The SDK interrupts a workflow task after two seconds. The sandbox, which loads the workflow's modules for each,
    can take longer on a busy machine, and is interrupted wherever it is then: in a destructor, too. What hangs is
    ended by pytest's own `faulthandler`.
    """
    with pytest.MonkeyPatch.context() as patch:
        begin = _WorkflowWorker.__init__

        def patient(self: _WorkflowWorker, **options: Any) -> None:
            begin(self, **options)
            self._deadlock_timeout_seconds = 60  # pyright: ignore[reportPrivateUsage]

        patch.setattr(_WorkflowWorker, "__init__", patient)
        yield


@pytest.fixture
def dawdling() -> Dawdling:
    """How long a slow payment takes: as long as the test says."""
    return Dawdling()


@pytest.fixture
async def simulator(tmp_path: Path, dawdling: Dawdling) -> AsyncIterator[str]:
    """The URL of a simulator of the test's own."""
    async with running_simulator(tmp_path / "payments.db", dawdling) as url:
        yield url


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over what this process missed, where it is one of several."""
    told: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["missing"] = session.config.stash.get(MISSING, dict[str, str]())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what one of several processes missed."""
    missing: dict[str, str] = getattr(node, "workeroutput", {}).get("missing", {})
    node.config.stash.setdefault(MISSING, dict[str, str]()).update(missing)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which promises were not looked at."""
    for name, why in config.stash.get(MISSING, dict[str, str]()).items():
        terminalreporter.section(f"{name.upper()} WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(why)
