"""One base for everything that a team refuses or cannot do.

It is mapped once to problem+json (`services/gateway/problems.py`) and once to Temporal's `ApplicationError`
(`activities/failures.py`); nothing else translates errors.
"""

from typing import ClassVar


class ShopError(Exception):
    """A refusal or a failure that has a name.

    `code` is stable and English, `status` is the HTTP status that says it best, `retryable` tells whether the same
    request may succeed later. The message is for engineers; customers read the catalogue's text for `code`.
    """

    code: ClassVar[str] = "internal-error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False


class Refused(ShopError):
    """A business answer, not a fault: asking again will not change it."""

    status: ClassVar[int] = 409


class NotFound(Refused):
    """No such thing, or not yours to see."""

    code: ClassVar[str] = "not-found"
    status: ClassVar[int] = 404


class Unavailable(ShopError):
    """Something this needs is away for now; nothing was lost, try again after `retry_after_seconds`."""

    code: ClassVar[str] = "unavailable"
    status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True
    retry_after_seconds: int = 2


class DatabaseUnavailable(Unavailable):
    """A database did not answer in time, or refused a transaction again and again."""

    code: ClassVar[str] = "database-unavailable"
