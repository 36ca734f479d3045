"""What a log line holds, and what it never does."""

import io
import logging

import pytest

from services.shared.logs import configure_logs
from services.shared.settings import LogSettings


@pytest.mark.parametrize("format", ["terminal", "json"])
def test_a_logged_failure_shows_no_local_value(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        configure_logs("test", LogSettings.model_validate({"format": format}))
        try:
            secret = "sk_" + "live_1"
            raise ValueError(len(secret))
        except ValueError:
            logging.getLogger("test").exception("it failed")
    finally:
        root.handlers[:], root.level = before
    assert "it failed" in written.getvalue()
    assert "ValueError" in written.getvalue()
    assert "sk_live_1" not in written.getvalue()
