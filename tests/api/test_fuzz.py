"""Thousands of hostile requests: each gets a proper answer, none is told too much, and what is refused is not kept."""

import asyncio
import json
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
from starlette.types import ASGIApp, Message

from services.gateway.wording import WORDING
from services.order.acceptance import Acceptance
from services.order.admission import Admission
from services.order.circuit import AdmissionRules
from tests.api.hostile import SAID, TOLD, Attacker, Sent
from tests.api.world import LEASE, OPERATOR, Shop, is_problem

REQUESTS, BATCH, SEED = 2_000, 250, 12
OPENED = 2
"""Movements that the shop began with."""
DIRECTING = {"\u061c", "\u200e", "\u200f", *"\u202a\u202b\u202c\u202d\u202e", *"\u2066\u2067\u2068\u2069"}


async def answer(app: ASGIApp, sent: Sent) -> httpx2.Response:
    """What the app answers to a client that takes no more than the first part of a stream."""
    parts = [*sent.body] or [b""]
    gone = asyncio.Event()
    status, headers, body = 0, list[tuple[bytes, bytes]](), b""

    async def receive() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, headers, body
        if message["type"] == "http.response.start":
            status, headers = message["status"], message["headers"]
        else:
            body += message.get("body", b"")
            if body or not message.get("more_body", False):
                gone.set()

    path, _, query = sent.target.partition(b"?")
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": sent.method,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "headers": sent.headers,
        "client": ("192.0.2.1", 1234),
        "server": ("shop", 80),
    }
    async with asyncio.timeout(60):
        await app(scope, receive, send)
    return httpx2.Response(status, headers=headers, content=body)


@dataclass
class Ledger:
    """What was taken, by the answers alone, in the order in which it was."""

    products: dict[str, tuple[str, int]]
    stock: dict[str, int]
    orders: list[str] = field(default_factory=list[str])
    moved: set[tuple[Any, ...]] = field(default_factory=set[tuple[Any, ...]])

    def note(self, sent: Sent, answered: httpx2.Response) -> None:
        """Enter what was taken with this request."""
        found: dict[str, Any] = answered.json()
        if (sent.method, sent.path) == ("POST", "/orders"):
            replayed = "idempotent-replayed" in answered.headers
            assert (found["orderId"] in self.orders) == replayed
            if not replayed:
                self.orders.append(found["orderId"])
        elif sent.method == "PUT":
            self.products[found["productId"]] = (found["productName"], found["productPrice"])
        elif sent.path.endswith("/movements"):
            key = sent.header(b"idempotency-key")
            movement = (sent.header(b"authorization"), found["productId"], key) if key else (len(self.moved),)
            if movement not in self.moved:
                self.moved.add(movement)
                qty = int(json.loads(b"".join(sent.body))["qty"])
                self.stock[found["productId"]] = self.stock.get(found["productId"], 0) + qty


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def check_answer(sent: Sent, answered: httpx2.Response) -> None:
    """What every answer has to be, whatever was asked for."""
    request_id = answered.headers["x-request-id"].encode()
    told = b"".join(b"%b: %b\n" % header for header in answered.headers.raw) + answered.content
    told = told.replace(request_id, b"")
    assert answered.status_code < 500
    assert b"Traceback" not in told
    assert TOLD.encode() not in told.lower()
    assert "access-control-allow-origin" not in answered.headers
    if sent.method == "HEAD":
        assert answered.content == b""
    elif answered.status_code >= 300 and answered.status_code != 304:
        assert SAID.encode() not in told
        code = answered.json()["code"]
        is_problem(answered, answered.status_code, code)
        assert WORDING[code].status == answered.status_code


def check_texts(kept: Mapping[str, Any]) -> None:
    """What is kept can be read, whole and in its own direction."""
    for text in (value for value in kept.values() if isinstance(value, str)):
        assert text == unicodedata.normalize("NFC", text).strip() != ""
        assert not {unicodedata.category(character) for character in text} & {"Cc", "Cs", "Zl", "Zp"}
        assert not DIRECTING & {*text}


def check_kept(shop: Shop, directory: Path, ledger: Ledger) -> None:
    """What is in the databases is what was taken, and no more."""
    order, delivery = directory / "order.db", directory / "delivery.db"
    number = len(ledger.orders)
    assert sorted(rows(order, "select order_id from orders")) == sorted((order_id,) for order_id in ledger.orders)
    assert rows(order, "select count(*), count(distinct order_id) from idempotency_keys") == [(number, number)]
    assert rows(order, "select count(*) from order_views") == [(number,)]
    assert rows(order, "select count(*) from order_events") == [(number + len(shop.engine.told),)]
    products = rows(order, "select product_id, product_name, product_price from products")
    assert {product_id: (name, price) for product_id, name, price in products} == ledger.products
    assert dict(rows(delivery, "select product_id, on_hand from stock")) == ledger.stock
    assert rows(delivery, "select count(*) from stock_movements") == [(len(ledger.moved) + OPENED,)]
    assert rows(delivery, "select count(*) from deliveries") == [(0,)]


async def test_hostile_requests_get_proper_answers_and_leave_nothing_behind(shop: Shop, tmp_path: Path) -> None:
    admission = Admission(AdmissionRules(max_pending=REQUESTS))
    shop.exchange(admission=admission, acceptance=Acceptance(shop.parts.order_database, admission, lease=LEASE))
    attacker, statuses = Attacker(SEED), Counter[int]()
    ledger = Ledger({"tea": ("보성 녹차", 4500), "pot": ("백자 주전자", 90_000)}, {"tea": 10, "pot": 1})
    for number in range(1, REQUESTS + 1):
        sent, told = attacker.request(), len(shop.engine.told)
        answered = await answer(shop.app, sent)
        statuses[answered.status_code] += 1
        try:
            check_answer(sent, answered)
            if answered.status_code < 300 and sent.method not in ("GET", "HEAD"):
                ledger.note(sent, answered)
                attacker.order_ids = ledger.orders
            assert len(shop.engine.told) == told or answered.status_code == 202
            if number % BATCH == 0:
                check_kept(shop, tmp_path, ledger)
        except Exception as error:
            error.add_note(
                f"seed {SEED}, request {number}: {sent!r:.2000} -> {answered.status_code} {answered.text:.1000}"
            )
            raise
    for order_id in ledger.orders:
        read = await shop.client.get(f"/orders/{order_id}", headers=OPERATOR)
        check_texts(read.json())
    # Else it was stopped at the door.
    assert {200, 201, 202, 400, 401, 403, 404, 405, 406, 409, 413, 415, 422} <= statuses.keys()
    assert len(ledger.orders) > REQUESTS / 20
