"""Callers and addresses are held to their rate, told how much of it is left, and never held up by Redis."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import structlog
from fastapi import FastAPI, Request
from limits.aio.storage import memory
from pydantic import SecretStr

import api
from deploy.stack import HOST, take_ports
from services.gateway import rates
from services.gateway.guard import Guard
from services.gateway.operations import Metrics
from services.gateway.problems import install_problems
from services.gateway.rates import RateLimits, Rates
from services.shared.errors import NotFound
from services.shared.settings import RateSettings, WrongSetting, read_settings
from tests.api.world import MINJI, Shop, is_problem
from tests.redis import PASSWORD, need_redis, running_redis, url_of

BY_MINJI, BY_HANEUL = {"X-Who": "minji"}, {"X-Who": "haneul"}
TWO = RateSettings(caller="2/minute", address="3/minute")


@dataclass
class Clock:
    """A time that passes when a test says so, in a window that began a moment ago."""

    now: float = 1_800_000_000.5

    def time(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of what is counted in memory, and of when Redis is asked again."""
    clock = Clock()
    monkeypatch.setattr(rates, "time", SimpleNamespace(time=clock.time))
    monkeypatch.setattr(memory, "time", SimpleNamespace(time=clock.time))
    return clock


async def who(request: Request) -> str | None:
    """The caller whom a request claims to come from."""
    return request.headers.get("x-who")


@dataclass
class Counter:
    """One API process: an app behind the limits, behind the guard."""

    rates: Rates
    reached: list[str] = field(default_factory=list[str])
    app: FastAPI = field(default_factory=FastAPI)

    def __post_init__(self) -> None:
        @self.app.get("/{path}")
        async def anything(path: str) -> str:  # pyright: ignore[reportUnusedFunction]
            self.reached.append(path)
            if path == "nothing":
                raise NotFound
            return path

        install_problems(self.app)
        self.app.add_middleware(RateLimits, rates=self.rates, who=who)
        self.app.add_middleware(Guard, metrics=Metrics(), largest_body=1000, max_requests=1000, request_seconds=60.0)

    async def get(
        self, headers: dict[str, str] | None = None, *, host: str = "192.0.2.1", path: str = "/tea"
    ) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.app, client=(host, 4711))
        async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
            return await client.get(path, headers=headers)

    async def statuses(self, number: int, headers: dict[str, str] | None = None) -> list[int]:
        return [(await self.get(headers)).status_code for _ in range(number)]


def standing(answer: httpx2.Response) -> tuple[str, int, int]:
    """What an answer tells: of which policy, how many are left, in how many seconds there are more."""
    name, left, more = answer.headers["ratelimit"].split(";")
    return name, int(left.removeprefix("r=")), int(more.removeprefix("t="))


async def test_a_caller_is_refused_who_has_sent_as_many_as_it_may() -> None:
    counter = Counter(Rates(TWO))
    assert await counter.statuses(2, BY_MINJI) == [200, 200]
    refused = await counter.get(BY_MINJI)
    is_problem(refused, 429, "too-many-requests")
    assert int(refused.headers["retry-after"]) >= standing(refused)[2] >= 1
    assert len(counter.reached) == 2


async def test_one_caller_takes_nothing_from_another_at_the_same_address() -> None:
    counter = Counter(Rates(TWO))
    assert await counter.statuses(3, BY_MINJI) == [200, 200, 429]
    assert await counter.statuses(3, BY_HANEUL) == [200, 200, 429]
    assert await counter.statuses(4) == [200, 200, 200, 429]


async def test_every_answer_tells_the_policy_and_what_is_left_of_it() -> None:
    counter = Counter(Rates(TWO))
    answers = [await counter.get(BY_MINJI, path=path) for path in ("/tea", "/nothing", "/tea")]
    assert [answer.status_code for answer in answers] == [200, 404, 429]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"caller";q=2;w=60'}
    assert [standing(answer)[:2] for answer in answers] == [('"caller"', 1), ('"caller"', 0), ('"caller"', 0)]
    assert (await counter.get()).headers["ratelimit-policy"] == '"address";q=3;w=60'


@pytest.mark.parametrize("rate", ["1/second", "7/minute", "600/minute", "1000/hour"])
async def test_who_comes_back_when_told_to_is_taken(rate: str, clock: Clock) -> None:
    counting, refused = Rates(RateSettings(caller=rate)), 0
    while refused < 20:
        refusal = (await counting.of_caller("minji")).refusal
        if refusal is not None:
            refused += 1
            clock.now += refusal.retry_after_seconds
            assert (await counting.of_caller("minji")).refusal is None
        clock.now += 0.0137


async def test_a_windows_border_lets_no_two_bursts_pass(clock: Clock) -> None:
    counter = Counter(Rates(TWO))
    clock.now += 59 - clock.now % 60  # the last second of a window
    assert await counter.statuses(3, BY_MINJI) == [200, 200, 429]
    clock.now += 2
    assert 429 in await counter.statuses(2, BY_MINJI)


async def test_health_is_not_counted_but_the_metrics_are_which_cost_a_query() -> None:
    counter = Counter(Rates(TWO))
    for probe in ["/livez", "/readyz"] * 3:
        answer = await counter.get(path=probe)
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers
    assert [(await counter.get(path="/metrics")).status_code for _ in range(4)] == [200, 200, 200, 429]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("made", "up", True),
    ],
)
async def test_an_address_is_one_of_ipv4_or_a_network_of_ipv6(one: str, other: str, same: bool) -> None:
    counter = Counter(Rates(TWO))
    await counter.get(host=one)
    assert standing(await counter.get(host=other))[1] == (1 if same else 2)


async def test_a_million_addresses_do_not_fill_the_memory() -> None:
    counting = Rates(RateSettings(), most=100)
    for number in range(1000):
        await counting.of_address(f"192.0.{number // 250}.{number % 250}")
    counted: Any = vars(counting)["_memory"]
    assert len(counted.storage) <= 101
    assert len(counted.expirations) <= 101
    assert not counted.locks


async def test_who_is_gone_is_forgotten(clock: Clock) -> None:
    counting = Rates(RateSettings())
    for number in range(100):
        await counting.of_caller(f"user-{number}")
    clock.now += 121
    await counting.of_caller("minji")
    assert len(vars(counting)["_memory"].storage) == 1


async def test_the_shop_counts_callers_by_their_token_and_others_by_their_address(shop: Shop) -> None:
    app = api.create_app(shop.parts, rates=TWO)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop") as client,
    ):
        forged = {"Authorization": f"{MINJI['Authorization'][:-9]}forged-it"}
        callers = [await client.get("/orders", headers=MINJI) for _ in range(3)]
        others = [await client.get("/orders", headers=forged) for _ in range(4)]
    assert [answer.status_code for answer in callers] == [200, 200, 429]
    assert [answer.status_code for answer in others] == [401, 401, 401, 429]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CALLER", "many"),
        ("CALLER", "0/minute"),
        ("ADDRESS", "10/fortnight"),
        ("ADDRESS", "10/minute;20/hour"),
        ("REDIS_URL", f"http://:{PASSWORD}@redis:6379"),
        ("REDIS_URL", f"redis://:{PASSWORD}@redis:66666"),
        ("REDIS_URL", f"redis://:p@{PASSWORD}@redis:6379"),
        ("REDIS_URL", f"redis://:{PASSWORD}/p@redis:6379"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"STREET12_RATE_{name}", value)
    with pytest.raises(WrongSetting, match=f"^The setting STREET12_RATE_{name} .*it must be .*[.]$") as wrong:
        read_settings(RateSettings)
    assert PASSWORD not in str(wrong.value)


@pytest.mark.parametrize(
    "url", ["redis://redis", "redis://:p%40ss@redis:6379/1", "rediss://user:pass@[::1]:6380", "redis://10.0.0.1:6379/"]
)
def test_a_redis_url_is_taken_as_it_is(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_RATE_REDIS_URL", url)
    given = read_settings(RateSettings).redis_url
    assert given is not None
    assert given.get_secret_value() == url


# Redis -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
async def redis_server(pytestconfig: pytest.Config) -> str:
    return await need_redis(pytestconfig)


@pytest.fixture
def port() -> int:
    return take_ports({"": 0})[""]


@asynccontextmanager
async def processes(number: int, url: str, *, seconds: float = 30, **options: Any) -> AsyncGenerator[list[Counter]]:
    """So many API processes that share a Redis. Patient: the machine that runs the tests may be busy with others."""
    settings = TWO.model_copy(update={"redis_url": SecretStr(url)})
    async with AsyncExitStack() as stack:
        counters: list[Counter] = []
        for _ in range(number):
            counting = Rates(settings, seconds=seconds, **options)
            stack.push_async_callback(counting.close)
            counters.append(Counter(counting))
        yield counters


async def test_processes_that_share_a_redis_share_one_limit(redis_server: str, tmp_path: Path, port: int) -> None:
    async with running_redis(redis_server, tmp_path, port), processes(2, url_of(port)) as (one, other):
        answers = [await counter.get(BY_MINJI) for counter in (one, other, one, other)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        assert [standing(answer)[1] for answer in answers] == [1, 0, 0, 0]
        assert all(1 <= standing(answer)[2] <= 60 for answer in answers)
        assert 1 <= int(answers[2].headers["retry-after"]) <= 61


async def test_what_is_kept_in_redis_is_ours_expires_and_names_nobody(
    redis_server: str, tmp_path: Path, port: int
) -> None:
    async with running_redis(redis_server, tmp_path, port) as redis, processes(1, url_of(port)) as (counter,):
        await counter.get(BY_MINJI)
        await counter.get(host="192.0.2.77")
        keys: list[str] = await redis.keys()  # pyright: ignore[reportUnknownMemberType]
        assert len(keys) == 2
        for key in keys:
            assert key.startswith("street12:")
            assert "minji" not in key
            assert "192.0.2.77" not in key
            assert 0 < await redis.ttl(key) <= 120


async def test_a_request_costs_redis_one_command(redis_server: str, tmp_path: Path, port: int) -> None:
    async with running_redis(redis_server, tmp_path, port) as redis, processes(1, url_of(port)) as (counter,):
        await counter.get(BY_MINJI)  # opens a connection, loads the script

        async def commands() -> int:
            found: Any = await redis.info("commandstats")  # pyright: ignore[reportUnknownMemberType]
            return sum(found[name]["calls"] for name in found if name.startswith("cmdstat_eval"))

        before = await commands()
        await counter.statuses(5, BY_MINJI)
        assert await commands() - before == 5


async def test_a_redis_that_is_away_keeps_nobody_out_and_is_asked_again_later(
    redis_server: str, tmp_path: Path, port: int, clock: Clock
) -> None:
    async with processes(2, url_of(port), clock=clock.time) as (one, other):
        with structlog.testing.capture_logs() as logs:
            assert await one.statuses(3, BY_MINJI) == [200, 200, 429]
            assert await other.statuses(3, BY_MINJI) == [200, 200, 429]
            clock.now += 6
            await one.get(BY_MINJI)
        assert [log["log_level"] for log in logs] == ["warning", "warning"]
        assert PASSWORD not in str(logs)
        async with running_redis(redis_server, tmp_path, port) as redis:
            clock.now += 4
            await one.get(BY_MINJI)
            assert await redis.dbsize() == 0  # pyright: ignore[reportUnknownMemberType]
            clock.now += 2
            with structlog.testing.capture_logs() as logs:
                answers = [await counter.get(BY_HANEUL) for counter in (one, other, one)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert [log["log_level"] for log in logs] == ["info", "info"]


async def test_a_redis_that_is_silent_is_asked_once_and_then_let_be(port: int) -> None:
    asked: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: asked.append(writer), HOST, port)
    async with server, processes(1, url_of(port), seconds=0.05) as (counter,):
        async with asyncio.timeout(3):  # far less than Redis' client would wait by itself
            assert await counter.statuses(3, BY_MINJI) == [200, 200, 429]
        assert len(asked) == 1
        for writer in asked:
            writer.close()
            await writer.wait_closed()


async def test_a_late_answer_is_not_taken_for_the_next_one(
    redis_server: str, tmp_path: Path, port: int, clock: Clock
) -> None:
    async with (
        running_redis(redis_server, tmp_path, port) as redis,
        processes(1, url_of(port), clock=clock.time) as (counter,),
    ):
        await counter.get(BY_MINJI)
        vars(counter.rates)["_seconds"] = 0.05
        await redis.client_pause(300)  # pyright: ignore[reportUnknownMemberType]
        await counter.get(BY_HANEUL)
        vars(counter.rates)["_seconds"] = 30
        await redis.get("")  # is answered when the pause is over
        clock.now += 6
        assert standing(await counter.get(BY_MINJI))[1] == 0


async def test_of_a_wrong_password_nothing_is_told(redis_server: str, tmp_path: Path, port: int) -> None:
    async with (
        running_redis(redis_server, tmp_path, port),
        processes(1, url_of(port, "wr0ng")) as (counter,),
    ):
        with structlog.testing.capture_logs() as logs:
            assert await counter.statuses(3, BY_MINJI) == [200, 200, 429]
        assert [log["log_level"] for log in logs] == ["warning"]
        assert "wr0ng" not in str(logs)


async def test_the_shop_closes_its_connections(redis_server: str, tmp_path: Path, port: int, shop: Shop) -> None:
    app = api.create_app(shop.parts, rates=RateSettings(redis_url=SecretStr(url_of(port))))
    async with running_redis(redis_server, tmp_path, port) as redis:

        async def connections() -> int:
            found: Any = await redis.client_list()  # pyright: ignore[reportUnknownMemberType]
            return len(found)

        before = await connections()
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop") as client,
        ):
            await client.get("/orders", headers=MINJI)
            assert await connections() > before
        async with asyncio.timeout(10):
            while await connections() > before:
                pass  # the server needs a moment to notice
