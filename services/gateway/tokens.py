"""Bearer tokens: which are good, and the issuer's keys by which that is told."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import aiohttp
import jwt
import structlog

from services.gateway.problems import Unauthorized
from services.shared.errors import Unavailable

ALGORITHMS = {"RS256": "RSA", "ES256": "EC"}
"""The algorithms that are accepted, and the kind of key that each takes: no key serves for two of them."""
_REQUIRED = ("exp", "iat", "aud", "iss", "sub")
_LEEWAY_SECONDS = 10
_SMALLEST_RSA = 2048
_LONGEST_TOKEN = 8192
_MOST_REMEMBERED = 10_000
"""Tokens: about 20 MB at most."""
_LARGEST_JWKS = 256 * 1024
_FETCH_SECONDS = 3.0
_MISSING_SECONDS = 1.0
"""The longest that a request whose key is not known waits for it: anybody can make up such a one."""
_log = structlog.get_logger(__name__)

Fetch = Callable[[], Awaitable[object]]
"""Brings the issuer's JSON Web Key Set. Raises whatever ails it."""


class InvalidToken(Unauthorized):
    """The token is forged, stale, meant for somebody else, or none at all. Which of these, the caller is not told."""

    code: ClassVar[str] = "invalid-token"
    challenge: ClassVar[str] = f'{Unauthorized.challenge}, error="invalid_token"'


class KeysUnavailable(Unavailable):
    """The issuer has not been reached since this process started: no token can be told to be good."""

    code: ClassVar[str] = "keys-unavailable"


@dataclass(frozen=True)
class _Key:
    key: jwt.PyJWK
    listed_at: float


class SigningKeys:
    """The issuer's public keys.

    Fetched when the process starts and each `refresh_seconds`; besides when a token names one that is not known, at
    most once in `cooldown_seconds`. One that the issuer no longer lists is good for another `retire_seconds`, so that
    what was signed with it before a rotation is. While the issuer is away, those of its last good answer are.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        refresh_seconds: float = 300.0,
        cooldown_seconds: float = 10.0,
        retire_seconds: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._refresh_seconds = refresh_seconds
        self._cooldown_seconds = cooldown_seconds
        self._retire_seconds = retire_seconds
        self._clock = clock
        self._keys: dict[tuple[str, str], _Key] = {}
        self._asked_at = -float("inf")
        self._away = False
        self._asking: asyncio.Task[None] | None = None

    async def keep_fresh(self) -> None:
        """Fetch the keys now and from time to time, for ever; soon again while there are none."""
        while True:
            await self._asked()
            await asyncio.sleep(self._refresh_seconds if self._keys else 1.0)

    async def key(self, key_id: str, algorithm: str) -> jwt.PyJWK:
        """The key that a token names. Raises `InvalidToken` where the issuer has none, `KeysUnavailable`."""
        if (found := self._keys.get((key_id, algorithm))) is None:
            if self._asking is not None or self._clock() - self._asked_at >= self._cooldown_seconds:
                await asyncio.wait([self._asked()], timeout=_MISSING_SECONDS)
            self.must_be_known()
            if (found := self._keys.get((key_id, algorithm))) is None:
                raise InvalidToken("unknown key")
        return found.key

    def has(self, key: jwt.PyJWK) -> bool:
        """Whether this very key is good still."""
        return any(one.key is key for one in self._keys.values())

    def must_be_known(self) -> None:
        """Raises `KeysUnavailable` while there are no keys at all."""
        if not self._keys:
            raise KeysUnavailable

    def _asked(self) -> asyncio.Task[None]:
        """The fetch that is under way, or a new one: of many who miss a key, one asks."""

        def done(_: object) -> None:
            self._asking = None

        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(done)
        return self._asking

    async def _ask(self) -> None:
        self._asked_at = self._clock()
        try:
            listed = _usable_keys(await self._fetch())
            if not listed:
                raise ValueError("the issuer lists no key that can be used")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError) as error:
            if not self._away:
                _log.warning("the issuer's keys cannot be fetched", error=f"{type(error).__name__}: {error}")
            self._away = True
            return
        if self._away:
            _log.info("the issuer's keys are fetched again")
        self._away = False
        now = self._clock()
        kept = {name: one for name, one in self._keys.items() if now - one.listed_at < self._retire_seconds}
        self._keys = kept | {name: _Key(key, now) for name, key in listed.items()}


@dataclass(frozen=True)
class Claims:
    """What a good token says. `expires_at` is in seconds since 1970, `role` whatever the issuer wrote."""

    subject: str
    role: object
    expires_at: float


class Tokens:
    """Tells good tokens from others: signed by this issuer with RS256 or ES256, for this audience, and not stale."""

    def __init__(self, keys: SigningKeys, *, issuer: str, audience: str, role_claim: str = "role") -> None:
        self.keys = keys
        self._issuer = issuer
        self._audience = audience
        self._role_claim = role_claim
        self._good: OrderedDict[str, tuple[jwt.PyJWK, Claims]] = OrderedDict()

    async def read(self, token: str) -> Claims:
        """What a token says. Raises `InvalidToken`, `KeysUnavailable`.

        One that was found to be good is good until it expires or its key is not the issuer's any more: to verify it
        again for each request would cost as much as the rest of the way to a route.
        """
        if (known := self._good.get(token)) is not None:
            key, claims = known
            if time.time() < claims.expires_at and self.keys.has(key):
                return claims
            del self._good[token]
        key, claims = await self._verified(token)
        self._good[token] = key, claims
        if len(self._good) > _MOST_REMEMBERED:
            self._good.popitem(last=False)
        return claims

    async def _verified(self, token: str) -> tuple[jwt.PyJWK, Claims]:
        if len(token) > _LONGEST_TOKEN:
            raise InvalidToken("too long")
        try:
            header = jwt.get_unverified_header(token)
            key_id, algorithm = header.get("kid"), header.get("alg")
            if not isinstance(key_id, str) or algorithm not in ALGORITHMS:
                raise InvalidToken("no key id, or another algorithm")
            key = await self.keys.key(key_id, algorithm)
            payload: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": [*_REQUIRED]},
            )
            return key, Claims(payload["sub"], payload.get(self._role_claim), float(payload["exp"]))
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidToken(type(error).__name__) from error


def jwks_at(url: str) -> Fetch:
    """Fetches the key set from the issuer's address."""

    async def fetch() -> object:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_FETCH_SECONDS)) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise ValueError(f"the issuer answered {answer.status}")
            body = await answer.content.read(_LARGEST_JWKS + 1)
            while len(body) <= _LARGEST_JWKS and (more := await answer.content.read(_LARGEST_JWKS + 1 - len(body))):
                body += more
            if len(body) > _LARGEST_JWKS:
                raise ValueError("the issuer's answer is too long")
            return json.loads(body)

    return fetch


def _usable_keys(jwks: object) -> dict[tuple[str, str], jwt.PyJWK]:
    """Those keys of a set that tokens may be signed with, by their id and algorithm."""
    listed = cast(Mapping[str, object], jwks).get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(listed, list):
        raise ValueError("the issuer's answer is no key set")
    usable: dict[tuple[str, str], jwt.PyJWK] = {}
    for one in cast(list[object], listed):
        if (found := _usable(one)) is not None:
            name, key = found
            usable[name] = key
    return usable


def _usable(one: object) -> tuple[tuple[str, str], jwt.PyJWK] | None:
    if not isinstance(one, dict):
        return None
    given = cast(dict[str, Any], one)
    key_id = given.get("kid")
    algorithm = next((name for name, kind in ALGORITHMS.items() if kind == given.get("kty")), None)
    if not isinstance(key_id, str) or algorithm is None or given.get("use", "sig") != "sig":
        return None
    if given.get("alg", algorithm) != algorithm or (algorithm == "ES256" and given.get("crv") != "P-256"):
        return None
    try:
        key = jwt.PyJWK(given, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if algorithm == "RS256" and key.key.key_size < _SMALLEST_RSA:
        return None
    return (key_id, algorithm), key
