"""Time, handed to whoever needs it so that tests can hold it still."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present moment, always with its time zone."""
    return datetime.now(UTC)
