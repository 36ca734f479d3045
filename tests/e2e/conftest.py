"""One shop for all tests here, started as its user starts it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator

import httpx2
import pytest

from deploy.local import ROOT
from deploy.stack import Stack, stack_file
from tests.e2e.shop import Shop, eventually, processes_with

PORTS = ("STREET12_API_PORT", "STREET12_TEMPORAL_PORT", "STREET12_TEMPORAL_UI_PORT", "STREET12_PAYMENT_PORT")


@pytest.fixture(scope="session")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Shop]:
    """Runs until the last test is over; must then end when asked to, with exit status 0 and nothing left behind."""
    data_dir = tmp_path_factory.mktemp("shop")
    log = data_dir.with_name("shop.log")
    own = {name: value for name, value in os.environ.items() if not name.startswith("STREET12_")}
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.local"),
            cwd=ROOT,
            env={**own, **dict.fromkeys(PORTS, "0"), "STREET12_DATA_DIR": str(data_dir)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:

        async def opened() -> bool:
            if process.returncode is not None:
                pytest.fail(f"the shop did not open: {log.read_text()}")
            return stack_file(data_dir).exists()

        await eventually(opened, "the shop to open")
        urls = Stack.read(data_dir).urls
        async with (
            httpx2.AsyncClient(base_url=urls.api, trust_env=False, timeout=15.0) as http,
            httpx2.AsyncClient(base_url=urls.payments, trust_env=False, timeout=15.0) as payments,
        ):
            assert (await http.get("/readyz")).status_code == 200
            yield Shop(process.pid, data_dir, http, payments)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            status = await process.wait()
        said = log.read_text()
        assert status == 0, said
        assert "is killed" not in said, said
        assert not stack_file(data_dir).exists()
        assert not processes_with(f"STREET12_DATA_DIR={data_dir}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
