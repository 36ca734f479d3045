"""Who is calling: the bearer token, and what its role may do.

Dependencies are asynchronous though they wait for nothing: others are sent to a thread, each time.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from services.gateway.parts import Parts
from services.gateway.problems import BadRequest, Forbidden, Unauthorized
from services.gateway.tokens import InvalidToken
from services.shared.errors import ShopError

USER_ID = re.compile(r"[!-~](?:[ -~]{0,126}[!-~])?")
_BEARER = re.compile(r"bearer +([!-~]+)", re.IGNORECASE)
_ONCE = ("Authorization", "Idempotency-Key")  # of two of these, nobody can say which one is meant
_scheme = HTTPBearer(
    bearerFormat="JWT", scheme_name="bearer", description="A token of the shop's issuer.", auto_error=False
)


class Role(StrEnum):
    """What a caller may do. A token that names none is a customer's."""

    CUSTOMER = "customer"
    OPERATOR = "operator"
    CARRIER = "carrier"


@dataclass(frozen=True)
class Caller:
    """Who is calling, as what, and until when that is known (seconds since 1970)."""

    user_id: str
    role: Role
    expires_at: float

    @property
    def sees(self) -> str | None:
        """Whose orders the caller sees: their own, or as an operator everybody's (nothing)."""
        return None if self.role is Role.OPERATOR else self.user_id


async def identify(request: Request) -> Caller:
    """The caller that the token names, read once a request.

    Raises `Unauthorized`, `InvalidToken`, `Forbidden`, `BadRequest`, `KeysUnavailable`.
    """
    found: Caller | ShopError | None = getattr(request.state, "caller", None)
    if found is None:
        try:
            found = await _read(request)
        except ShopError as error:
            found = error
        request.state.caller = found
    if isinstance(found, ShopError):
        raise found
    return found


async def caller_name(request: Request) -> str | None:
    """The name of a request's caller; nothing where the token is missing or worthless."""
    try:
        return (await identify(request)).user_id
    except ShopError:
        return None


async def _read(request: Request) -> Caller:
    for name in _ONCE:
        if len(request.headers.getlist(name)) > 1:
            raise BadRequest(name)
    if "authorization" not in request.headers:
        raise Unauthorized
    if (token := _BEARER.fullmatch(request.headers["authorization"])) is None:
        raise InvalidToken("no bearer token")
    shop: Parts = request.app.state.parts
    claims = await shop.tokens.read(token[1])
    if not USER_ID.fullmatch(claims.subject):
        raise InvalidToken("its subject cannot be a user")
    role = Role.CUSTOMER if claims.role is None else claims.role
    if not isinstance(role, str) or role not in {*Role}:
        raise Forbidden("no role of this shop")
    return Caller(claims.subject, Role(role), claims.expires_at)


class Only:
    """A dependency: the caller, who must have one of these roles. Raises what `identify` does."""

    def __init__(self, *roles: Role) -> None:
        self._roles = roles

    async def __call__(self, request: Request, _: Annotated[object, Security(_scheme)] = None) -> Caller:
        who = await identify(request)
        if who.role not in self._roles:
            raise Forbidden(who.role)
        return who


Buyer = Annotated[Caller, Depends(Only(Role.CUSTOMER, Role.OPERATOR))]
Operator = Annotated[Caller, Depends(Only(Role.OPERATOR))]
Carrier = Annotated[Caller, Depends(Only(Role.CARRIER))]
