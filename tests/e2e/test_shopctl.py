"""The command line against the whole shop, as an operator uses it: it finds the shop, and says what it did."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from deploy.local import ROOT
from tests.e2e.shop import Shop


@dataclass(frozen=True)
class Said:
    status: int
    output: str
    errors: str

    @property
    def answer(self) -> dict[str, Any]:
        assert (self.status, self.errors) == (0, "")
        return json.loads(self.output)


async def run(shop: Shop, module: str, *arguments: str) -> Said:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "STREET12_DATA_DIR": str(shop.data_dir)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return Said(process.returncode, output.decode(), errors.decode())


async def shopctl(shop: Shop, *arguments: str) -> Said:
    return await run(shop, "deploy.shopctl", *arguments)


async def test_an_order_is_placed_once_followed_cancelled_and_put_back(shop: Shop) -> None:
    product = await shop.product(on_hand=5)
    stocked = await shopctl(shop, "restock", product, "2", "--json")
    assert stocked.answer["onHand"] == 7

    wish = ("order", product, "--qty", "2", "--as", "shopctl", "--key", f"key-{product}", "--json")
    order = (await shopctl(shop, *wish)).answer
    again = await shopctl(shop, *wish)
    assert json.loads(again.output)["orderId"] == order["orderId"]
    assert "nothing was ordered a second time" in again.errors

    watching = asyncio.create_task(shopctl(shop, "watch", order["orderId"], "--as", "shopctl", "--json"))
    await shop.until(order["orderId"], "DeliveryStarted")
    canceled = await shopctl(shop, "cancel", order["orderId"])
    assert canceled.status == 0, canceled.errors
    watched = await watching
    assert watched.status == 0, watched.errors
    types = [json.loads(line)["type"] for line in watched.output.splitlines()]
    assert types == await shop.timeline(order["orderId"])
    assert types[-1] == "OrderCanceled"
    shown = (await shopctl(shop, "show", order["orderId"], "--json")).answer
    assert (shown["orderStatus"], shown["cancelReason"]) == ("OrderCanceled", "operator")
    assert [event["type"] for event in shown["events"]] == types
    assert await shop.stock(product) == 7


async def test_a_refusal_of_the_real_shop_is_told_with_its_code(shop: Shop) -> None:
    product = await shop.product(on_hand=1)
    refused = await shopctl(shop, "order", product, "--qty", "2", "--as", "shopctl")
    assert (refused.status, refused.output) == (1, "")
    assert "409 out-of-stock" in refused.errors
    order = (await shopctl(shop, "order", product, "--as", "shopctl", "--json")).answer
    assert "404 not-found" in (await shopctl(shop, "show", order["orderId"], "--as", "stranger")).errors
    await shop.until(order["orderId"], "DeliveryStarted")
    stale = await shopctl(shop, "cancel", order["orderId"], "--if-version", "1")
    assert "412 precondition-failed" in stale.errors


async def test_a_token_for_curl_opens_what_its_role_may_see(shop: Shop) -> None:
    token = (await shopctl(shop, "token", "--as", "op", "--role", "operator")).output.strip()
    answer = await shop.http.get("/admission", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200


async def test_the_demo_goes_through_and_is_undone(shop: Shop) -> None:
    told = await run(shop, "deploy.demo")
    assert (told.status, told.errors) == (0, "")
    assert told.output.splitlines()[-1] == "Every step was undone."
