"""What the engine keeps of orders: nothing of what customers told the shop can be read in its files, but by the key."""

import asyncio
import base64
import json
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx2
import pytest
from google.protobuf.json_format import ParseDict
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.common import RawValue

from deploy.history_key import codec_settings, key_file
from deploy.local import ROOT
from deploy.stack import Stack, StackError
from tests.e2e.conftest import ROOM
from tests.e2e.shop import OPERATOR, Order, Shop, Wish, eventually, open_shop

NAME, ADDRESS, PHONE = "얼룩말 Zebrowski", "Quagga-Allee 4711", "010-9917-7319"
PRODUCT, REASON = "Okapi 오카피 7741", "Tapir 서면 동의"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PAYS = ("pm_card_visa", "pm_card_chargeDeclined", "pm_sim_lostReply", "pm_sim_outage", "pm_sim_refundRefused")


async def order(shop: Shop, product_id: str, pay: str) -> Order:
    wish = Wish(product_id, 3, "quagga", pay)
    body = wish.body | {"username": NAME, "address": ADDRESS, "phoneNo": PHONE}
    headers = wish.headers | {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    answer = await shop.http.post("/orders", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return Order.model_validate(answer.json())


async def product(shop: Shop) -> str:
    body = {"productName": PRODUCT, "productPrice": 7_654_321}
    (await shop.http.put("/products/okapi", json=body, headers=OPERATOR)).raise_for_status()
    await shop.move_stock("okapi", 100)
    return "okapi"


async def in_trouble(shop: Shop, order: Order) -> None:
    """Cancel an order whose refund the provider refuses."""
    await shop.until(order.orderId, "DeliveryStarted")
    await shop.cancel(order)

    async def stuck() -> bool:
        return (await shop.order(order.orderId)).needsAttention

    await eventually(stuck, f"{order.orderId} to need attention")


async def skip_the_refund(shop: Shop, order: Order) -> None:
    body = {"step": "refund_payment", "action": "skip", "reason": REASON}
    (await shop.http.post(f"/orders/{order.orderId}/settlements", json=body, headers=OPERATOR)).raise_for_status()


def found(needles: Collection[str], data_dir: Path) -> set[str]:
    """Those that can be read in the engine's files: as they are, as JSON escapes them, or in base64."""
    files = sorted(data_dir.glob("temporal.db*"))
    assert files
    kept = b"".join(file.read_bytes() for file in files)
    return {needle for needle in needles if any(form in kept for form in forms(needle))}


def forms(needle: str) -> set[bytes]:
    escaped = json.dumps(needle)[1:-1]
    plain = {needle.encode(), escaped.encode(), escaped.upper().encode()}
    return plain | {middle for one in plain for middle in in_base64(one)}


def in_base64(text: bytes) -> set[bytes]:
    """What is there of a text in base64, whatever it begins after."""
    found: set[bytes] = set()
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + text)
        first = -(-before * 8 // 6)  # the first sign that is made of the text alone
        found.add(whole[first : (before + len(text)) * 8 // 6])
    return found | {one.translate(bytes.maketrans(b"+/", b"-_")) for one in found}


def test_the_search_finds_every_form() -> None:
    for said in (PRODUCT.encode(), json.dumps(PRODUCT).encode(), base64.b64encode(b"xy" + PRODUCT.encode() + b"z")):
        assert any(form in said for form in forms(PRODUCT))


async def test_nothing_of_what_customers_said_can_be_read_in_the_engines_files(tmp_path: Path) -> None:
    data_dir = tmp_path / "shop"
    async with open_shop(data_dir, ROOM) as shop:
        okapi = await product(shop)
        orders = dict(zip(PAYS, await asyncio.gather(*(order(shop, okapi, pay) for pay in PAYS)), strict=True))
        await shop.until(orders["pm_card_chargeDeclined"].orderId, "PaymentDeclined")
        for pay in ("pm_card_visa", "pm_sim_lostReply", "pm_sim_outage"):
            await shop.until(orders[pay].orderId, "DeliveryStarted")
        await shop.deliver(orders["pm_card_visa"].orderId)
        await shop.until(orders["pm_card_visa"].orderId, "Delivered")
        stuck = orders["pm_sim_refundRefused"]
        await in_trouble(shop, stuck)
        await skip_the_refund(shop, stuck)
        await shop.until(stuck.orderId, "OrderCanceled")
        coupons = [coupon.couponId for coupon in (await shop.coupons("quagga")).values()]

    said = {NAME, ADDRESS, PHONE, PRODUCT, REASON, TRACE, *PAYS, *coupons, "22,962,963", "22962963"}
    failed = {"Encoded failure"}
    assert found(said | failed, data_dir) == failed  # what failed did so here, and why stands nowhere
    assert found([one.orderId for one in orders.values()], data_dir) == {one.orderId for one in orders.values()}
    key_file(data_dir).unlink()
    with pytest.raises(StackError, match="are encrypted, and their key"):
        codec_settings(data_dir)


async def test_with_encryption_off_the_same_search_finds_it(tmp_path: Path) -> None:
    data_dir = tmp_path / "shop"
    async with open_shop(data_dir, ROOM | {"STREET12_CODEC_ENCRYPT": "false"}) as shop:
        okapi = await product(shop)
        declined, stuck = [await order(shop, okapi, pay) for pay in ("pm_card_chargeDeclined", "pm_sim_refundRefused")]
        await shop.until(declined.orderId, "PaymentDeclined")
        await in_trouble(shop, stuck)
    said = {PRODUCT, TRACE, "pm_card_chargeDeclined", "pm_sim_refundRefused", "22,962,963"}
    assert found(said, data_dir) == said

    async with open_shop(data_dir, ROOM | {"STREET12_CODEC_ACCEPT_PLAIN": "true"}) as shop:  # and then it is put on
        await skip_the_refund(shop, stuck)
        await shop.until(stuck.orderId, "OrderCanceled")
    assert not found({REASON}, data_dir)


async def test_operators_read_and_write_through_the_codec_server(tmp_path: Path) -> None:
    async with open_shop(tmp_path / "shop", ROOM) as shop:
        urls = Stack.read(shop.data_dir).urls
        stuck = await order(shop, await product(shop), "pm_sim_refundRefused")
        await in_trouble(shop, stuck)
        handle: Any = (await Client.connect(urls.temporal)).get_workflow_handle(stuck.orderId)
        async with httpx2.AsyncClient(base_url=urls.codec, trust_env=False, headers={"Origin": urls.temporalUi}) as ui:
            settings = (await ui.get(f"{urls.temporalUi}/api/v1/settings")).json()
            assert settings["Codec"]["Endpoint"] == urls.codec
            history = (await handle.fetch_history()).to_json_dict()
            [kept] = history["events"][0]["workflowExecutionStartedEventAttributes"]["input"]["payloads"]
            answer = (await ui.post("/decode", json={"payloads": [kept]}, headers={"X-Namespace": "default"})).json()
            assert PRODUCT in base64.b64decode(answer["payloads"][0]["data"]).decode()

            decision = {"undo": "refund_payment", "action": "skip", "actor": "op", "reason": REASON}
            data = base64.b64encode(json.dumps(decision).encode()).decode()
            plain = {"metadata": {"encoding": base64.b64encode(b"json/plain").decode()}, "data": data}
            [sealed] = (await ui.post("/encode", json={"payloads": [plain]})).json()["payloads"]
        shown = await temporal("workflow", "show", "-w", stuck.orderId, "-o", "json", *at(urls.temporal, urls.codec))
        assert (
            PRODUCT
            in base64.b64decode(
                json.loads(shown)["events"][0]["workflowExecutionStartedEventAttributes"]["input"]["payloads"][0][
                    "data"
                ]
            ).decode()
        )
        details = await temporal("workflow", "metadata", "-w", stuck.orderId, *at(urls.temporal, urls.codec))
        [link] = re.findall(r"the order: \[.*\]\((.*)\)", details)
        led_to = (await shop.http.get(link)).raise_for_status().json()
        assert (led_to["orderId"], led_to["timeline"][0]["type"]) == (stuck.orderId, "OrderReceived")
        (tmp_path / "order.json").write_text(shown)
        replay = await said_by(sys.executable, "-m", "tests.replay.against", str(tmp_path / "order.json"))
        assert "replays" in replay

        with pytest.raises(WorkflowUpdateFailedError):  # an operator's, who did not go by the codec server
            await handle.execute_update("settle", decision)
        await handle.execute_update("settle", RawValue(ParseDict(sealed, Payload())), result_type=RawValue)
        await shop.until(stuck.orderId, "OrderCanceled")


def at(address: str, codec: str) -> list[str]:
    return ["--address", address, "--codec-endpoint", codec]


async def temporal(*arguments: str) -> str:
    return await said_by(str(Path(sys.executable).with_name("temporal")), *arguments)


async def said_by(*command: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=own | {"TEMPORAL_CONFIG_FILE": os.devnull}, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0, output
    return output.decode()
