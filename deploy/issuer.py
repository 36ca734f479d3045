"""Signs tokens for the one-machine shop, for whoever asks and as whatever they ask for. Never for a real one.

And shows there, without a token, what the Web UI's link to an order leads to.
"""

import hashlib
import json
import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import APIRouter, Depends
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from jwt.algorithms import RSAAlgorithm
from pydantic import StringConstraints

from deploy.this_machine import is_this_machine
from services.gateway.caller import USER_ID, Role
from services.gateway.contract import ShopRoute
from services.gateway.fields import OrderId
from services.gateway.parts import Parts, parts
from services.gateway.schemas import EventAnswer, OrderAnswer, Request, Wire
from services.shared.errors import NotFound

ISSUER, AUDIENCE = "street12-local", "street12"
JWKS_PATH = "/dev/jwks.json"
LIFETIME_SECONDS = 3600
_ALGORITHM = "RS256"  # read at a quarter of what ES256 costs


class TokenRequest(Request):
    sub: Annotated[str, StringConstraints(pattern=f"^{USER_ID.pattern}$")]
    role: Role = Role.CUSTOMER


class TokenAnswer(Wire):
    access_token: str
    token_type: str
    expires_in: int


class ShownOrder(OrderAnswer):
    timeline: list[EventAnswer]


class Issuer:
    """Signs with a key of its own."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self.private_key = key
        self._public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        self.key_id = hashlib.sha256(json.dumps(self._public, sort_keys=True).encode()).hexdigest()[:16]

    @staticmethod
    def of(data_dir: Path) -> "Issuer":
        """The issuer of a data directory: the same after each start, and of each process."""
        if not _file(data_dir).exists():
            Issuer.new().keep_in(data_dir)
        key = serialization.load_pem_private_key(_file(data_dir).read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return Issuer(key)

    @staticmethod
    def new() -> "Issuer":
        """An issuer with a fresh key."""
        return Issuer(rsa.generate_private_key(65537, 2048))

    def token(self, sub: str, role: Role = Role.CUSTOMER, **claims: Any) -> str:
        """A token; `claims` take the place of its usual ones."""
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "role": role, "iat": now, "exp": now + LIFETIME_SECONDS}
        return jwt.encode(usual | claims, self.private_key, _ALGORITHM, headers={"kid": self.key_id})

    def keep_in(self, data_dir: Path) -> None:
        """Make this the issuer of a data directory, unless it has one. Its owner alone can read the key."""
        file = _file(data_dir)
        pem = self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        own = file.with_suffix(f".{os.getpid()}")  # so that another process finds a whole one or none
        with open(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
            output.write(pem)
        with suppress(FileExistsError):
            os.link(own, file)
        own.unlink()

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set."""
        return {"keys": [self._public | {"kid": self.key_id, "alg": _ALGORITHM, "use": "sig"}]}


def dev_routes(issuer: Issuer, own_addresses: Collection[str] = ()) -> APIRouter:
    """`POST /dev/tokens` for people, `/dev/orders/{orderId}` for their browsers, and the issuer's keys for the API.

    `own_addresses` are this machine's beside the loopback.
    """
    router = APIRouter(prefix="/dev", tags=["one machine only"], route_class=ShopRoute)

    async def of_this_machine(request: HttpRequest) -> None:
        named, client = request.url.hostname or "", request.client
        if not is_this_machine(named, client and client.host, own_addresses):
            raise NotFound(named)

    @router.post("/tokens", dependencies=[Depends(of_this_machine)])
    async def make_token(body: TokenRequest) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        """A token for anybody, good for an hour."""
        answer = TokenAnswer(
            access_token=issuer.token(body.sub, body.role), token_type="Bearer", expires_in=LIFETIME_SECONDS
        )
        return JSONResponse(answer.model_dump(by_alias=True), headers={"Cache-Control": "no-store"})

    @router.get("/orders/{orderId}", dependencies=[Depends(of_this_machine)])
    async def show_order(  # pyright: ignore[reportUnusedFunction]
        order_id: OrderId, shop: Annotated[Parts, Depends(parts)]
    ) -> JSONResponse:
        """An order with its timeline, as an operator reads them: where the Web UI's link to it leads."""
        order = OrderAnswer.of(await shop.book.get(order_id))
        events = [EventAnswer.of(event, to_operator=True) for event in await shop.book.timeline(order_id)]
        answer = ShownOrder(**dict(order), timeline=events)
        return JSONResponse(answer.model_dump(mode="json", by_alias=True), headers={"Cache-Control": "no-store"})

    @router.get(JWKS_PATH.removeprefix("/dev"), include_in_schema=False)
    async def list_keys() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        return issuer.jwks()

    return router


def _file(data_dir: Path) -> Path:
    return data_dir / "run" / "issuer.pem"
