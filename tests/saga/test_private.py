"""No line of a log, and no span, holds what is private: what customers say of themselves, how they pay, and secrets.

What goes wrong here goes wrong loudly: its lines are there, and name the order.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from temporalio.testing import WorkflowEnvironment

from activities.contract import ORDER_QUEUE
from services.order.book import OrderBook
from services.shared.database import Database
from services.shared.settings import PoolSettings
from tests.api.world import CARRIER
from tests.issuer import bearer
from tests.logged import Format, Lines, logged
from tests.saga.test_one_trace import Spans
from tests.saga.whole import Whole, whole_shop

NAME, ADDRESS, PHONE = "자포드 Beeblebrox", "Betelgeuse-Straße 42", "010-4242-2424"
PAYMENT_KEY, PASSWORD = "sk_test_" + "conspicuous", "hunter2" + "correcthorse"
WHO = bearer("zaphod")
TOKEN = WHO["Authorization"].removeprefix("Bearer ")
BODY: dict[str, Any] = {"productId": "tea", "qty": 1, "username": NAME, "address": ADDRESS, "phoneNo": PHONE}
PRIVATE = {
    "name": ["자포드", "Beeblebrox", "\\uc790\\ud3ec"],
    "address": ["Betelgeuse", "Straße"],
    "phone": ["4242-2424"],
    "payment method": ["pm_"],
    "token": [TOKEN, TOKEN.split(".")[1], TOKEN.split(".")[2], "eyJ"],
    "payment key": ["conspicuous"],
    "database password": ["hunter2"],
}


async def order(shop: Whole, key: str = "k1", **changes: Any) -> httpx2.Response:
    body = {**BODY, "paymentMethod": "pm_card_visa", **changes}
    return await shop.http.post("/orders", json=body, headers={**WHO, "Idempotency-Key": key})


async def accepted(shop: Whole, payment_method: str) -> str:
    answer = await order(shop, paymentMethod=payment_method)
    assert answer.status_code == 202, answer.text
    return answer.json()["orderId"]


async def said(lines: Lines, *what: str) -> None:
    """Wait until a line that holds all of this is there."""
    async with asyncio.timeout(30):
        while not any(all(part in line for part in what) for line in lines.getvalue().splitlines()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def all_goes_well(shop: Whole, lines: Lines) -> str:
    order_id = await accepted(shop, "pm_card_visa")
    await shop.until(order_id, "DeliveryStarted")
    await shop.http.post(f"/deliveries/{order_id}/events", json={"event": "Delivered"}, headers=CARRIER)
    return order_id


async def it_is_cancelled(shop: Whole, lines: Lines) -> str:
    order_id = await accepted(shop, "pm_card_visa")
    await shop.until(order_id, "DeliveryStarted")
    await shop.http.post(f"/orders/{order_id}/cancel", headers=WHO)
    await shop.until(order_id, "OrderCanceled")
    return order_id


async def the_payment_is_declined(shop: Whole, lines: Lines) -> str:
    order_id = await accepted(shop, "pm_nobody_knows_this")
    await shop.until(order_id, "PaymentDeclined")
    return order_id


async def the_provider_is_out_of_order(shop: Whole, lines: Lines) -> str:
    order_id = await accepted(shop, "pm_sim_outage")
    await said(lines, "Completing activity as failed", "pay_order")
    await shop.until(order_id, "DeliveryStarted")
    return order_id


async def a_refund_is_refused(shop: Whole, lines: Lines) -> str:
    order_id = await accepted(shop, "pm_sim_refundRefused")
    await shop.until(order_id, "DeliveryStarted")
    await shop.http.post(f"/orders/{order_id}/cancel", headers=WHO)
    async with asyncio.timeout(30):
        while not (await shop.parts.book.get(order_id)).view.needs_attention:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return order_id


async def the_request_is_wrong(shop: Whole, lines: Lines) -> str:
    wrong: list[dict[str, Any]] = [{"qty": ADDRESS}, {"phoneNo": NAME}, {PHONE: NAME}, {"username": [NAME]}]
    for changes in [*wrong, {"productId": ADDRESS}]:
        assert (await order(shop, "k0", **changes)).status_code in (404, 422)
    headers = {**WHO, "Idempotency-Key": "k1", "Content-Type": "application/json"}
    broken = await shop.http.post("/orders", content=f'{{"username": "{NAME}", '.encode(), headers=headers)
    assert broken.status_code == 400
    assert (await shop.http.get(f"/orders?{PHONE}={NAME}", headers=WHO)).status_code == 422
    assert (await shop.http.get(f"/orders/{NAME}", headers=WHO)).status_code == 422
    cut = {"Authorization": WHO["Authorization"][:-4]}
    assert (await shop.http.get("/orders", headers=cut)).status_code == 401
    await said(lines, "request refused", "invalid-request")
    return await accepted(shop, "pm_card_visa")


async def the_schema_is_another(shop: Whole, lines: Lines) -> str:
    """An INSERT and an activity meet a table that is not theirs: the drivers' errors know every value."""
    order_id = await accepted(shop, "pm_card_visa")
    await shop.until(order_id, "DeliveryStarted")
    async with shop.parts.order_database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE payments RENAME COLUMN state TO what"))
    other = (await order(shop, "k2")).json()["orderId"]
    await said(lines, "Completing activity as failed", "pay_order", other)
    async with shop.parts.order_database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE orders RENAME COLUMN address TO place"))
    assert (await order(shop, "k3")).status_code in (500, 503)
    return order_id


async def the_database_is_away(shop: Whole, lines: Lines) -> str:
    url = f"mysql+aiomysql://street12:{PASSWORD}@127.0.0.1:1/orders"
    away = Database(url, PoolSettings(transaction_seconds=2, attempts=2))
    order_id = await accepted(shop, "pm_card_visa")
    shop.app.state.parts = replace(shop.parts, book=OrderBook(away), catalogue=type(shop.parts.catalogue)(away))
    answer = await shop.http.get(f"/orders/{order_id}", headers=WHO)
    assert answer.status_code == 503
    await said(lines, "transaction given up by the database", order_id)
    await away.close()
    return order_id


async def something_breaks(shop: Whole, lines: Lines) -> str:
    order_id = await accepted(shop, "pm_card_visa")

    class Broken(OrderBook):
        async def get(self, order_id: str, *, user_id: str | None = None) -> Any:
            name, address, phone, token = NAME, ADDRESS, PHONE, TOKEN
            raise RuntimeError(f"{len(name + address + phone + token)} things are out of joint")

    shop.app.state.parts = replace(shop.parts, book=Broken(shop.parts.order_database))
    assert (await shop.http.get(f"/orders/{order_id}", headers=WHO)).status_code == 500
    await said(lines, "unexpected error", order_id)
    return order_id


async def a_workflow_cannot_be_read(shop: Whole, lines: Lines) -> str:
    order_id = await accepted(shop, "pm_card_visa")
    what = {"order_id": "order_x", "user_id": [NAME], "payment_method": {"pm_card": PHONE}, "address": ADDRESS}
    handle = await shop.client.start_workflow("OrderWorkflow", what, id="order_unreadable", task_queue=ORDER_QUEUE)
    await said(lines, "order_unreadable")
    await handle.terminate()
    return order_id


async def a_message_cannot_be_read(shop: Whole, lines: Lines) -> str:
    order_id = await accepted(shop, "pm_card_visa")
    await shop.until(order_id, "DeliveryStarted")
    handle = shop.client.get_workflow_handle(order_id)
    with pytest.raises(Exception):  # noqa: B017, PT011  (whichever the SDK takes)
        await handle.execute_update(  # pyright: ignore[reportUnknownMemberType]
            "cancel", {"reason": NAME, "actor": [PHONE]}, rpc_timeout=timedelta(seconds=5)
        )
    return order_id


WHAT = [
    *(all_goes_well, it_is_cancelled, the_payment_is_declined, the_provider_is_out_of_order, a_refund_is_refused),
    *(the_request_is_wrong, the_schema_is_another, the_database_is_away, something_breaks),
    *(a_workflow_cannot_be_read, a_message_cannot_be_read),
]


@asynccontextmanager
async def listening(
    engine: WorkflowEnvironment, directory: Path, settings: pytest.MonkeyPatch, format: Format, spans: Spans
) -> AsyncGenerator[tuple[Whole, Lines]]:
    settings.setattr(logging.getLogger("httpx2"), "disabled", True)  # the customer's own
    with logged(format) as lines:
        async with whole_shop(
            engine, directory, settings, tracer_provider=spans.provider, payment_key=PAYMENT_KEY
        ) as shop:
            yield shop, lines


@pytest.mark.parametrize("format", ["json", "terminal"])
@pytest.mark.parametrize("happening", WHAT, ids=lambda happening: happening.__name__)
async def test_nothing_private_is_told(
    engine: WorkflowEnvironment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    format: Format,
    happening: Callable[[Whole, Lines], Awaitable[str]],
) -> None:
    spans = Spans()
    async with listening(engine, tmp_path, monkeypatch, format, spans) as (shop, lines):
        order_id = await happening(shop, lines)
        written = lines
    printed = capfd.readouterr()
    told = {
        "the log": written.getvalue(),
        "standard output": printed.out + printed.err,
        # What somebody writes into an address is told to every proxy, too.
        "a span": re.sub('"url.(path|query)":.*', "", "\n".join(span.to_json() for span in spans.all())),
    }
    for place in ("the log", "a span"):
        assert order_id in told[place], "nothing was captured"
    for place, text_of_it in told.items():
        for kind, values in PRIVATE.items():
            found = [line for line in text_of_it.splitlines() if any(value in line for value in values)]
            assert not found, f"a {kind} stands in {place}: {found[0]}"
