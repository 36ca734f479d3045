"""What the OpenAPI document says holds: a machine tries all that it allows, and much of what it forbids.

Timelines are read as JSON here: as server-sent events those of open orders have no end (`test_stream.py`).
"""

from itertools import count
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from schemathesis import APIOperation
from schemathesis.specs.openapi import stateful

from services.order.acceptance import Acceptance, Accepted, NewOrder
from services.order.statuses import DeliveryStatus, EventType, OrderState, OrderStatus, PayStatus
from services.order.tables import Order
from services.shared.clock import utc_now
from tests.api.machine import tried
from tests.api.test_access import NOBODY, RULES, operations
from tests.api.world import DECLINED, LEASE, PLACED, Shop

MYSELF = {"userId": "minji"}
OFTEN = {"generation": {"max-examples": 30}}
ALONG_THE_LINKS: dict[str, Any] = {
    "enabled": True,
    "max-steps": 12,
    "inference": {"algorithms": []},
    "generation": {"max-examples": 50, "with-security-parameters": False},
}
COVERAGE = {"enabled": False, "coverage": {"enabled": True}}
DECLINED_QTY, PRICE = 100, 9_000_000
STARTED = OrderState(
    order_status=OrderStatus.DELIVERY_STARTED,
    pay_status=PayStatus.PAID,
    delivery_status=DeliveryStatus.STARTED,
    needs_attention=True,
)


class Prompt(Acceptance):
    """Takes an order as far as it goes before it says so, that nothing depends on who is faster."""

    def __init__(self, shop: Shop) -> None:
        ids = (f"order_{number:026}" for number in count(1))
        super().__init__(shop.parts.order_database, shop.parts.admission, lease=LEASE, new_id=lambda: next(ids))
        self._shop = shop

    async def accept(
        self, *, user_id: str, idempotency_key: str, request: NewOrder, traceparent: str | None = None
    ) -> Accepted:
        accepted = await super().accept(
            user_id=user_id, idempotency_key=idempotency_key, request=request, traceparent=traceparent
        )
        if not accepted.replayed:
            await self._proceed(accepted.order)
        return accepted

    async def _proceed(self, order: Order) -> None:
        shop, order_id = self._shop, order.order_id
        if order.qty == DECLINED_QTY:
            await shop.record(order_id, DECLINED, EventType.PAYMENT_DECLINED)
            return
        await shop.record(order_id, PLACED, EventType.ORDER_PLACED)
        await shop.parts.coupons.issue(order_id=order_id, user_id=order.user_id, amount=order.amount)
        await shop.parts.deliveries.start(order_id=order_id, product_id=order.product_id, qty=order.qty)
        await shop.record(order_id, STARTED, EventType.COUPON_ISSUED, EventType.DELIVERY_STARTED)


@pytest.fixture
async def busy(shop: Shop) -> Shop:
    """The shop with the product of the examples, orders that get under way at once, and a compensation to settle."""
    shop.exchange(acceptance=Prompt(shop))
    shop.engine.stuck.add("refund_payment")
    await shop.parts.reports.begin("reconciliation_1", utc_now())
    await shop.parts.catalogue.put(product_id="2001", product_name="gram", product_price=PRICE)
    await shop.parts.warehouse.open_if_new("2001", 1_000)
    return shop


def callers(shop: Shop) -> dict[str, dict[str, str]]:
    """Who calls what: who may; of several a customer, and an operator where it is the second name of a list."""
    found = {
        operation["operationId"]: RULES[call][-1 if operation.get("deprecated") else 0]
        for call, operation in operations(shop).items()
    }
    return {operation: who for operation, who in found.items() if who is not NOBODY}


async def test_the_document_holds_whatever_is_sent(busy: Shop) -> None:
    known = {**MYSELF, "reconciliationId": "reconciliation_1"}
    report = await tried(busy.app, callers(busy), known=known, phases={"fuzzing": OFTEN, "stateful": OFTEN})
    assert report.faults == []
    assert report.accepted == {operation["operationId"] for operation in operations(busy).values()}


def is_an_order(operation: APIOperation[Any, Any, Any, Any], *_: object) -> bool:
    return operation.label == "POST /orders"


async def test_every_link_of_an_order_leads_somewhere(busy: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    # Left to itself it begins with cancels, of orders that it makes up.
    monkeypatch.setattr(stateful, "is_likely_root_transition", is_an_order)
    links = {
        (operation["operationId"], link["operationId"])
        for operation in operations(busy).values()
        for answer in operation["responses"].values()
        for link in answer.get("links", {}).values()
    }
    report = await tried(
        busy.app,
        callers(busy),
        known={**MYSELF, "productId": "2001", "productPrice": PRICE},
        phases={"enabled": False, "stateful": ALONG_THE_LINKS},
    )
    assert report.faults == []
    for end in (0, 1):
        assert {link[end] for link in report.followed} == {link[end] for link in links}


class Item(BaseModel):
    number: Annotated[int, Field(ge=1, le=9)]


@pytest.mark.parametrize(
    ("status", "answer", "check"),
    [
        (418, {}, "status_code_conformance"),
        (500, {}, "not_a_server_error"),
        (200, {"number": 10}, "response_schema_conformance"),
        (422, {}, "positive_data_acceptance"),
    ],
)
async def test_an_answer_that_the_document_does_not_have_is_found(status: int, answer: Any, check: str) -> None:
    app = FastAPI()

    @app.post("/items", response_model=Item)
    async def put_item(body: Item) -> Response:  # pyright: ignore[reportUnusedFunction]
        return JSONResponse(answer, status)

    report = await tried(app, {}, known={}, phases=COVERAGE)
    assert any(fault.startswith(check) for fault in report.faults)


async def test_a_shop_that_takes_what_its_document_forbids_is_found(busy: Shop) -> None:
    schemas = busy.app.openapi()["components"]["schemas"]
    schemas["MovementRequest"]["properties"]["qty"]["maximum"] = 5
    report = await tried(busy.app, callers(busy), known={}, phases=COVERAGE)
    assert any(fault.startswith("negative_data_rejection") for fault in report.faults)
