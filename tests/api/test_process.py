"""`python api.py` as a process of its own."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import httpx2
import pytest

from services.shared.migrations import upgrade
from services.shared.settings import TEAMS
from tests.api.world import MINJI, OPERATOR, ORDER
from tests.issuer import running_issuer

ROOT = Path(__file__).parents[2]
EVENTS = {"Accept": "text/event-stream"}


async def _start(**settings: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "api.py"),
        cwd=ROOT,
        env={**os.environ, "TEMPORAL_ADDRESS": "127.0.0.1:1", "STREET12_CODEC_ENCRYPT": "false", **settings},
        stderr=asyncio.subprocess.PIPE,
    )


async def _end(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(30):
        _, errors = await process.communicate()
    return process.returncode, errors.decode()


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
    async with running_issuer() as auth:
        status, said = await _end(await _start(**auth | settings))
    assert status == 1
    assert said.startswith(sentence)
    assert said.count("\n") == 1


async def test_a_taken_port_ends_it_with_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with running_issuer() as auth:
            status, said = await _end(await _start(**auth, STREET12_API_PORT=port, STREET12_DATA_DIR=str(tmp_path)))
    assert status == 1
    assert said.count("\n") == 1
    assert "Traceback" not in said


async def test_sigterm_ends_it_cleanly_even_while_the_engine_is_away_and_a_timeline_is_followed(tmp_path: Path) -> None:
    for team in TEAMS:
        await asyncio.to_thread(upgrade, f"sqlite+aiosqlite:///{tmp_path / team}.db", team)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with running_issuer() as auth:
        process = await _start(**auth, STREET12_API_PORT=str(port), STREET12_DATA_DIR=str(tmp_path))
        try:
            async with asyncio.timeout(30), httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                while not await _is_ready(http):  # noqa: ASYNC110  (another process: no event to wait for)
                    await asyncio.sleep(0.05)
                async with http.stream("GET", await _new_timeline(http), headers={**MINJI, **EVENTS}) as answer:
                    lines = answer.aiter_lines()
                    while await anext(lines) != "event: OrderReceived":
                        pass
                    process.send_signal(signal.SIGTERM)
                    assert len([line async for line in lines]) == 2  # and a proper end
            status, said = await _end(process)
        finally:
            if process.returncode is None:
                process.kill()
    assert (status, "Traceback" in said, "graceful" in said) == (0, False, False), said


async def _new_timeline(http: httpx2.AsyncClient) -> str:
    """The address of a new order's timeline."""
    tea = {"productName": "보성 녹차", "productPrice": 4500}
    await http.put(f"/products/{ORDER['productId']}", json=tea, headers=OPERATOR)
    answer = await http.post("/orders", json=ORDER, headers={**MINJI, "Idempotency-Key": "first"})
    assert answer.status_code == 202, answer.text
    return f"{answer.headers['location']}/events"


async def _is_ready(http: httpx2.AsyncClient) -> bool:
    try:
        return (await http.get("/readyz")).status_code == 200
    except httpx2.ConnectError:
        return False
