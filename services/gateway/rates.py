"""How many requests are taken from one caller, or from one address that sends no token. Who sends more is told when to
come back; everybody is told how many are left (draft-ietf-httpapi-ratelimit-headers-10)."""

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv6Address, ip_address
from typing import Any, ClassVar, NamedTuple

import structlog
from fastapi import Request
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.storage.redis.bridge import RedisBridge
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.operations import PROBES
from services.gateway.problems import shop_problem
from services.shared.errors import Unavailable
from services.shared.settings import RateSettings

Who = Callable[[Request], Awaitable[str | None]]
"""The name of the caller whose token is valid; nothing where there is none."""
_CONNECTIONS = 8
_UNCOUNTED = PROBES - {"/metrics"}  # which cost a query each, and are asked for by few
_log = structlog.get_logger(__name__)


class TooManyRequests(Unavailable):
    """The caller, or their address, has sent as many requests as it may. Nothing was begun."""

    code: ClassVar[str] = "too-many-requests"
    status: ClassVar[int] = 429

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__()
        self.retry_after_seconds = retry_after_seconds


class _Policy:
    """So many requests in so many seconds, for each of whom it is about."""

    def __init__(self, name: str, rate: str) -> None:
        self.name = name
        self._item: RateLimitItem = parse(rate)
        self.quota, self.seconds = self._item.amount, self._item.get_expiry()
        self.header = f'"{name}";q={self.quota};w={self.seconds}'.encode()

    def key(self, whose: str) -> str:
        """Under what the requests of one are counted; it does not tell who that is."""
        return self._item.key_for(self.name, hashlib.sha256(whose.encode()).hexdigest()[:32])


class _Count(NamedTuple):
    """Whether a request was taken, and how many were, this one included, in the window before and in this one."""

    taken: bool
    before: int
    before_fades: float
    """Seconds until none of those before counts any more: their weight is what is left of their window."""
    now: int
    now_fades: float


@dataclass(frozen=True)
class Standing:
    """Where somebody stands after a request."""

    policy: _Policy
    count: _Count

    @cached_property
    def _more_in(self) -> float:
        """Seconds until one more request is taken than now."""
        count, seconds = self.count, self.policy.seconds
        fades = [count.before_fades % (seconds / count.before)] if count.before else []
        return max(0.0, min([*fades, count.now_fades - seconds]))

    @property
    def refusal(self) -> TooManyRequests | None:
        """Why the request is not taken, if it is not."""
        return None if self.count.taken else TooManyRequests(int(self._more_in) + 1)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What is told with every answer."""
        count = self.count
        weight = math.floor(count.before * count.before_fades / self.policy.seconds)
        left = max(0, self.policy.quota - weight - count.now)
        standing = f'"{self.policy.name}";r={left};t={max(1, math.ceil(self._more_in))}'
        return [(b"ratelimit-policy", self.policy.header), (b"ratelimit", standing.encode())]


class _Memory(MemoryStorage):
    """The library's own, for `most` keys: of more, those counted first are forgotten.

    The library looks through all keys at each request, which it takes 0.1 s to do for a million. Keys expire in about
    the order in which they came, so it is enough to look at the first.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self.expirations = OrderedDict[str, float]()  # of a plain dict, the first is slow to find

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        self.storage[key] += amount
        self.expirations.setdefault(key, time.time() + expiry)
        while (first := next(iter(self.expirations))) != key and (
            len(self.expirations) > self._most or self.expirations[first] <= time.time()
        ):
            del self.expirations[first], self.storage[first]
        return self.storage[key]

    async def take(self, policy: _Policy, key: str) -> _Count:
        taken = await self.acquire_sliding_window_entry(key, policy.quota, policy.seconds)
        return _Count(taken, *await self.get_sliding_window(key, policy.seconds))


class _Shared:
    """A Redis that several processes count in. Keys expire by themselves."""

    # The library's two scripts in one round trip: take a request, and see how many there were.
    _TAKE = b"""
        local function take(KEYS, ARGV) %b end
        local function look(KEYS, ARGV) %b end
        local taken = take(KEYS, ARGV)
        local seen = look(KEYS, {ARGV[2]})
        return {taken and 1 or 0, tonumber(seen[1] or 0), seen[2], tonumber(seen[3] or 0), seen[4]}
    """ % (RedisBridge.SCRIPT_ACQUIRE_SLIDING_WINDOW, RedisBridge.SCRIPT_SLIDING_WINDOW)

    def __init__(self, url: str) -> None:
        # Few connections: a burst must not spend its time on opening them. One that Redis had closed is opened anew.
        options: dict[str, Any] = {"max_connections": _CONNECTIONS, "timeout": None, "retry": Retry(NoBackoff(), 1)}
        pool = BlockingConnectionPool.from_url(url, **options)  # pyright: ignore[reportUnknownMemberType]
        self._redis = Redis.from_pool(pool)
        self._script: Any = self._redis.register_script(self._TAKE)

    async def take(self, policy: _Policy, key: str) -> _Count:
        """Raises what Redis, its client and the network raise."""
        now = f"street12:{{{key}}}"
        found: list[int] = await self._script([f"{now}/-1", now], [policy.quota, policy.seconds, 1])
        taken, before, before_fades, count, fades = found
        return _Count(bool(taken), before, max(0, before_fades) / 1000, count, max(0, fades) / 1000)

    async def close(self) -> None:
        await self._redis.aclose()


class Rates:
    """Counts requests over a sliding window, so that a window's border lets no two bursts pass.

    In Redis where there is one, for all processes together. It has `seconds` for each request; when it does not answer,
    this process counts for itself and asks again only each `cooldown_seconds`, until that is answered. In memory, the
    requests of `most` callers and addresses are counted at once.
    """

    def __init__(
        self,
        settings: RateSettings,
        *,
        seconds: float = 0.1,
        cooldown_seconds: float = 5.0,
        most: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._caller, self._address = _Policy("caller", settings.caller), _Policy("address", settings.address)
        url = settings.redis_url
        self._shared = None if url is None else _Shared(url.get_secret_value())
        self._memory = _Memory(most)
        self._seconds, self._cooldown, self._clock = seconds, cooldown_seconds, clock
        self._away, self._next_trial = False, 0.0

    async def of_caller(self, name: str) -> Standing:
        """Count a request of a caller. Never raises."""
        return await self._count(self._caller, name)

    async def of_address(self, host: str) -> Standing:
        """Count a request from an address without a caller. Never raises."""
        return await self._count(self._address, _network(host))

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._shared is not None:
            await self._shared.close()

    async def _count(self, policy: _Policy, whose: str) -> Standing:
        key = policy.key(whose)
        count = await self._count_together(policy, key) or await self._memory.take(policy, key)
        return Standing(policy, count)

    async def _count_together(self, policy: _Policy, key: str) -> _Count | None:
        trial = self._away
        if self._shared is None or (trial and self._clock() < self._next_trial):
            return None
        self._next_trial = self._clock() + self._cooldown  # of those who come meanwhile, none tries, too
        try:
            async with asyncio.timeout(self._seconds):
                count = await self._shared.take(policy, key)
        except (RedisError, OSError, TimeoutError) as error:
            self._next_trial = self._clock() + self._cooldown
            if not self._away:
                # Its kind alone: the text may hold what the address of Redis holds.
                _log.warning("requests are counted by this process alone", error=type(error).__name__)
            self._away = True
            return None
        if trial:
            self._away = False
            _log.info("requests are counted in Redis again")
        return count


class RateLimits:
    """Middleware: refuses who sends too many requests, with 429, and tells everybody how many are left.

    Callers are counted by the name that `who` finds, others by their address. Health is not counted.
    Stands inside `Guard`, which gives refusals their request id and counts them.
    """

    def __init__(self, app: ASGIApp, *, rates: Rates, who: Who) -> None:
        self._app, self._rates, self._who = app, rates, who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNCOUNTED:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        name = await self._who(request)
        if name is None:
            standing = await self._rates.of_address(request.client.host if request.client else "")
        else:
            standing = await self._rates.of_caller(name)

        async def send_with_standing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *standing.headers]
            await send(message)

        refusal = standing.refusal
        app = self._app if refusal is None else shop_problem(request, refusal)
        await app(scope, receive, send_with_standing)


def _network(host: str) -> str:
    """Whose an address is, as far as it tells: a customer has a whole /64 of IPv6. What is no address is one's."""
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or int(address) >> 64)
