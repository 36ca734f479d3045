"""`python api.py` as a process of its own."""

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from deploy.stack import HOST, take_ports
from services.shared.migrations import upgrade
from services.shared.settings import TEAMS
from tests.api.world import MINJI, OPERATOR, ORDER
from tests.issuer import running_issuer
from tests.programs import Started, started

EVENTS = {"Accept": "text/event-stream"}


@asynccontextmanager
async def _api(**settings: str) -> AsyncGenerator[Started]:
    port = take_ports({"": 0})[""]
    own = {
        "TEMPORAL_ADDRESS": f"{HOST}:1",
        "STREET12_CODEC_ENCRYPT": "false",
        "STREET12_API_PORT": str(port),
    }
    async with (
        running_issuer() as auth,
        started("api.py", settings=own | auth | settings, port=port, stderr=asyncio.subprocess.PIPE) as api,
    ):
        yield api


async def _end(api: Started) -> tuple[int | None, str]:
    async with asyncio.timeout(30):
        _, errors = await api.process.communicate()
    return api.process.returncode, errors.decode()


@asynccontextmanager
async def _ready_api(data_dir: Path, **settings: str) -> AsyncGenerator[Started]:
    """On databases of its own, and without an engine."""
    for team in TEAMS:
        await asyncio.to_thread(upgrade, f"sqlite+aiosqlite:///{data_dir / team}.db", team)
    async with _api(STREET12_DATA_DIR=str(data_dir), **settings) as api, asyncio.timeout(60):
        while await api.readiness() != 200:  # noqa: ASYNC110  (another process: no event to wait for)
            await asyncio.sleep(0.05)
        yield api


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"STREET12_API_PORT": "many"}, "The setting STREET12_API_PORT is 'many':"),
        ({"STREET12_AUTH_ISSUER": ""}, "The setting STREET12_AUTH_ISSUER is not set:"),
        ({"STREET12_CODEC_ENCRYPT": ""}, "The setting STREET12_CODEC_KEYS is not set: without a key,"),
        ({"STREET12_AUTH_JWKS_URL": "file:///keys"}, "The setting STREET12_AUTH_JWKS_URL is 'file:///keys':"),
    ],
)
async def test_a_wrong_setting_ends_it_with_one_sentence(settings: dict[str, str], sentence: str) -> None:
    async with _api(**settings) as api:
        status, said = await _end(api)
    assert status == 1
    assert said.startswith(sentence)
    assert said.count("\n") == 1


async def test_a_taken_port_ends_it_with_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with _api(STREET12_API_PORT=port, STREET12_DATA_DIR=str(tmp_path)) as api:
            status, said = await _end(api)
    assert status == 1
    assert said.count("\n") == 1
    assert "Traceback" not in said


async def test_sigterm_ends_it_cleanly_even_while_the_engine_is_away_and_a_timeline_is_followed(tmp_path: Path) -> None:
    async with _ready_api(tmp_path) as api:
        async with api.http.stream("GET", await _new_timeline(api.http), headers={**MINJI, **EVENTS}) as answer:
            lines = answer.aiter_lines()
            while await anext(lines) != "event: OrderReceived":
                pass
            api.process.send_signal(signal.SIGTERM)
            assert len([line async for line in lines]) == 2  # and a proper end
        status, said = await _end(api)
    assert (status, "Traceback" in said, "graceful" in said) == (0, False, False), said


async def test_after_sigterm_it_is_unready_at_once_and_serves_until_its_time_is_over_or_the_next_signal(
    tmp_path: Path,
) -> None:
    async with _ready_api(tmp_path, STREET12_API_UNREADY_SECONDS="3600") as api:
        path = await _new_timeline(api.http)
        async with api.http.stream("GET", path, headers={**MINJI, **EVENTS}) as answer:
            lines = answer.aiter_lines()
            while await anext(lines) != "event: OrderReceived":
                pass
            api.process.send_signal(signal.SIGTERM)
            while await api.readiness() != 503:  # noqa: ASYNC110  (another process: no event to wait for)
                await asyncio.sleep(0.01)
            for key in ("second", "third"):
                order = await api.http.post("/orders", json=ORDER, headers={**MINJI, "Idempotency-Key": key})
                assert (order.status_code, order.headers["connection"]) == (202, "close")
            api.process.send_signal(signal.SIGTERM)
            assert len([line async for line in lines]) == 2  # and a proper end
        status, said = await _end(api)
    assert (status, "Traceback" in said, "graceful" in said) == (0, False, False), said


async def _new_timeline(http: httpx2.AsyncClient) -> str:
    """The address of a new order's timeline."""
    tea = {"productName": "보성 녹차", "productPrice": 4500}
    await http.put(f"/products/{ORDER['productId']}", json=tea, headers=OPERATOR)
    answer = await http.post("/orders", json=ORDER, headers={**MINJI, "Idempotency-Key": "first"})
    assert answer.status_code == 202, answer.text
    return f"{answer.headers['location']}/events"
