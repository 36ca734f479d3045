"""A team's errors, as Temporal understands them. The only place where one becomes the other."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from services.shared.errors import Refused, ShopError

P = ParamSpec("P")
T = TypeVar("T")


def shop_errors(activity: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let an activity fail by a `ShopError`: its code becomes the failure's type, and only what helps is retried.

    A refusal is an answer, not an incident: as `BENIGN` it stays out of error logs and metrics.
    """

    @wraps(activity)
    async def translated(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await activity(*args, **kwargs)
        except ShopError as error:
            benign = isinstance(error, Refused)
            raise ApplicationError(
                f"{error.code}: {error}",
                type=error.code,
                non_retryable=not error.retryable,
                category=ApplicationErrorCategory.BENIGN if benign else ApplicationErrorCategory.UNSPECIFIED,
            ) from error

    return translated
