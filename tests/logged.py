"""What a process would log, line by line."""

import io
import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import structlog

from services.shared.logs import configure_logs
from services.shared.settings import LogSettings

Format = Literal["json", "terminal"]


class Lines(io.StringIO):
    """What was written."""

    def parsed(self) -> list[dict[str, Any]]:
        """Each line of JSON; raises where one is none."""
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        """The lines that say so."""
        return [line for line in self.parsed() if line["event"] == event]


@contextmanager
def logged(format: Format = "json") -> Generator[Lines]:
    """Everything that is logged meanwhile, as the process `test` would write it."""
    root, structured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    written = Lines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", written)
        try:
            configure_logs("test", LogSettings(format=format))
            structlog.configure(cache_logger_on_first_use=False)  # the loggers are those of other tests, too
            yield written
        finally:
            structlog.configure(**structured)
            root.handlers[:] = handlers
            root.setLevel(level)
