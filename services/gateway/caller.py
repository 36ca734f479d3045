"""Who is calling. The one dependency that tokens will replace.

Dependencies are asynchronous though they wait for nothing: others are sent to a thread, each time.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Header, Request

from services.gateway.problems import BadRequest, Forbidden, Unauthorized

_USER_ID = re.compile(r"[!-~](?:[ -~]{0,126}[!-~])?")
_ONCE = ("X-User-Id", "X-Role", "Idempotency-Key")  # of two of these, nobody can say which one is meant


class Role(StrEnum):
    """What a caller may do."""

    CUSTOMER = "customer"
    OPERATOR = "operator"
    CARRIER = "carrier"


@dataclass(frozen=True)
class Caller:
    """Who is calling, and as what."""

    user_id: str
    role: Role

    @property
    def sees(self) -> str | None:
        """Whose orders the caller sees: their own, or as an operator everybody's (nothing)."""
        return None if self.role is Role.OPERATOR else self.user_id


async def caller(
    request: Request,
    x_user_id: Annotated[str | None, Header()] = None,
    x_role: Annotated[str, Header()] = Role.CUSTOMER,
) -> Caller:
    """The caller that the headers name. Raises `Unauthorized`, `BadRequest`."""
    for name in _ONCE:
        if len(request.headers.getlist(name)) > 1:
            raise BadRequest(name)
    if x_user_id is None or not _USER_ID.fullmatch(x_user_id):
        raise Unauthorized("X-User-Id")
    if x_role not in {*Role}:
        raise BadRequest("X-Role")
    return Caller(x_user_id, Role(x_role))


def only(*roles: Role) -> Callable[[Caller], Awaitable[Caller]]:
    """A dependency: the caller, who must have one of these roles. Raises `Forbidden`."""

    async def allowed(who: Annotated[Caller, Depends(caller)]) -> Caller:
        if who.role not in roles:
            raise Forbidden(who.role)
        return who

    return allowed


AnyCaller = Annotated[Caller, Depends(caller)]
Buyer = Annotated[Caller, Depends(only(Role.CUSTOMER, Role.OPERATOR))]
Operator = Annotated[Caller, Depends(only(Role.OPERATOR))]
Carrier = Annotated[Caller, Depends(only(Role.CARRIER))]
