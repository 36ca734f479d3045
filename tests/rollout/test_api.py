"""API processes are replaced behind a balancer while customers order: nobody is refused. There is no engine."""

import asyncio
import signal
from functools import partial
from pathlib import Path

import httpx2
import pytest

from deploy.apt import find_program
from deploy.stack import HOST
from services.order.catalogue import Catalogue
from services.shared.database import Database
from services.shared.migrations import upgrade
from services.shared.settings import TEAMS
from tests.audit.acknowledgements import Acknowledgements
from tests.bench.stage import PRODUCT_ID
from tests.e2e.shop import LIMITS
from tests.issuer import running_issuer
from tests.missing import need
from tests.rollout.balancer import balancer
from tests.rollout.cluster import UNREADY_SECONDS, api_deployment, api_ports, balancing
from tests.rollout.customers import Customers

RATE = 20.0


async def test_no_order_is_refused_while_every_api_process_is_replaced(
    pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    await need(pytestconfig, "HAProxy", partial(find_program, "haproxy", package="haproxy"))
    for team in TEAMS:
        await asyncio.to_thread(upgrade, f"sqlite+aiosqlite:///{tmp_path / team}.db", team)
    orders = Database(f"sqlite+aiosqlite:///{tmp_path / 'order'}.db")
    await Catalogue(orders).put(product_id=PRODUCT_ID, product_name="녹차", product_price=1000)
    await orders.close()
    ports = api_ports()
    program, url = await balancer(tmp_path, ports)
    settings = {
        "STREET12_DATA_DIR": str(tmp_path),
        "STREET12_MAX_PENDING_PAYMENTS": "100000",
        "STREET12_POOL_TRANSACTION_SECONDS": "60",  # a busy machine's disk is not what is at stake
        "STREET12_API_REQUEST_SECONDS": "60",
        "STREET12_CODEC_ENCRYPT": "false",
        "TEMPORAL_ADDRESS": f"{HOST}:1",
    }
    enough = asyncio.Event()
    async with (
        running_issuer() as auth,
        api_deployment(settings | auth, ports, tmp_path, unready_seconds=UNREADY_SECONDS) as apis,
        balancing(program, tmp_path),
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60.0, limits=LIMITS) as http,
    ):
        with Acknowledgements(tmp_path / "acknowledgements.jsonl") as log:
            customers = Customers(http, log)
            async with asyncio.TaskGroup() as group:
                group.create_task(customers.order(RATE, enough))
                replaced = await apis.roll("1", signal.SIGTERM)
                enough.set()
    assert [one.status for one in replaced] == [0, 0]
    assert customers.failures == []
    assert len(customers.orders) == len(set(customers.orders.values())) == len(customers.requests) > 0
