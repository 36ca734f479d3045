"""Tokens for tests: an issuer whose word the API under test takes."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from deploy.issuer import AUDIENCE, ISSUER, JWKS_PATH, LIFETIME_SECONDS, Issuer
from services.gateway.caller import Role

TEST_ISSUER = Issuer.new()


@cache
def _token(sub: str, role: Role) -> str:
    # Kept by tests for as long as all of them run, which on a slow machine is longer than such a token is good for.
    return TEST_ISSUER.token(sub, role, exp=int(time.time()) + 24 * LIFETIME_SECONDS)


def bearer(sub: str, role: Role = Role.CUSTOMER, **claims: Any) -> dict[str, str]:
    """The header of a caller; `claims` take the place of a token's usual ones."""
    token = TEST_ISSUER.token(sub, role, **claims) if claims else _token(sub, role)
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def running_issuer() -> AsyncGenerator[dict[str, str]]:
    """The issuer's keys behind an address, and the settings of an API process that takes its word."""

    async def list_keys(_: web.Request) -> web.Response:
        return web.json_response(TEST_ISSUER.jwks())

    app = web.Application()
    app.router.add_get(JWKS_PATH, list_keys)
    async with TestServer(app) as server:
        yield {
            "STREET12_AUTH_ISSUER": ISSUER,
            "STREET12_AUTH_AUDIENCE": AUDIENCE,
            "STREET12_AUTH_JWKS_URL": str(server.make_url(JWKS_PATH)),
        }
