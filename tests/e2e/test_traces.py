"""A shop that traces, as its user starts it: one trace goes through all of its processes, and their logs name it."""

import json
from pathlib import Path

from tests.collector import collecting
from tests.e2e.conftest import ROOM
from tests.e2e.shop import Wish, eventually, open_shop

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PROCESSES = {"street12-api", "street12-worker-order", "street12-worker-marketing", "street12-worker-delivery"}


async def test_one_trace_goes_through_all_processes(tmp_path: Path) -> None:
    data_dir = tmp_path / "shop"
    async with collecting() as collector:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "STREET12_LOG_FORMAT": "json",
        }
        async with open_shop(data_dir, ROOM | settings) as shop:
            wish = Wish(await shop.product())
            answer = await shop.post(wish, traceparent=f"00-{TRACE}-{PARENT}-01")
            order_id = answer.json()["orderId"]
            await shop.until(order_id, "DeliveryStarted")

            async def all_told() -> bool:
                return collector.services(TRACE) == PROCESSES

            async def who() -> str:
                return f"only {collector.services(TRACE)}"

            await eventually(all_told, "spans of each process", who)
    log = data_dir.with_name("shop.log").read_text()
    [accepted] = [json.loads(line[line.index("{") :]) for line in log.splitlines() if '"order accepted"' in line]
    assert (accepted["process"], accepted["order_id"], accepted["trace_id"]) == ("api", order_id, TRACE)
    assert accepted["request_id"] == answer.headers["x-request-id"]
