"""The calls that are not about placing and reading orders: catalogue, stock, deliveries, coupons, settlements."""

import hashlib
import json
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import JSONResponse

from services.gateway.caller import Buyer, Carrier, Operator
from services.gateway.cursor import decode, encode
from services.gateway.parts import Parts, parts
from services.gateway.schemas import (
    AdmissionAnswer,
    Code,
    CouponAnswer,
    DeliveryAnswer,
    DeliveryEventRequest,
    Items,
    MovementRequest,
    OrderAnswer,
    Page,
    ProductAnswer,
    ProductRequest,
    SettlementRequest,
    StockAnswer,
)
from services.order.statuses import OrderStatus
from services.shared.ids import new_order_id
from workflows.client import NotDeliverable

router = APIRouter()
Shop = Annotated[Parts, Depends(parts)]


@router.get("/products")
async def list_products(shop: Shop) -> Items[ProductAnswer]:
    """The catalogue."""
    return Items(items=[ProductAnswer.of(product) for product in await shop.catalogue.list()])


@router.get("/products/{product_id}")
async def get_product(product_id: Code, shop: Shop) -> ProductAnswer:
    """One product of the catalogue."""
    return ProductAnswer.of(await shop.catalogue.get(product_id))


@router.put("/products/{product_id}")
async def put_product(product_id: Code, body: ProductRequest, shop: Shop, who: Operator) -> ProductAnswer:
    """Create or change a product. Orders that were accepted keep their price."""
    product = await shop.catalogue.put(
        product_id=product_id,
        product_name=body.product_name,
        product_price=body.product_price,
        currency=body.currency,
    )
    return ProductAnswer.of(product)


@router.get("/stocks/{product_id}")
async def get_stock(product_id: Code, shop: Shop, who: Operator) -> StockAnswer:
    """How many pieces there are."""
    return StockAnswer(product_id=product_id, on_hand=await shop.warehouse.on_hand(product_id))


@router.post("/stocks/{product_id}/movements", status_code=201)
async def move_stock(
    product_id: Code,
    body: MovementRequest,
    shop: Shop,
    who: Operator,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=64)] = None,
) -> StockAnswer:
    """Change the stock by hand. With an Idempotency-Key, once."""
    reference = _reference(who.user_id, product_id, idempotency_key) if idempotency_key else new_order_id()
    on_hand = await shop.warehouse.move(product_id=product_id, qty=body.qty, reason=body.reason, reference=reference)
    return StockAnswer(product_id=product_id, on_hand=on_hand)


def _reference(*parts: str) -> str:
    """A name for these parts together that no other parts have, however long they are."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@router.get("/admission")
async def get_admission(shop: Shop, who: Operator) -> AdmissionAnswer:
    """Whether orders are taken; if not, why and since when."""
    return AdmissionAnswer.of(await shop.admission.report(shop.order_database))


@router.get("/deliveries/{order_id}")
async def get_delivery(order_id: Code, shop: Shop, who: Buyer) -> DeliveryAnswer:
    """Where an order's goods are."""
    await shop.book.get(order_id, user_id=who.sees)
    return DeliveryAnswer.of(await shop.deliveries.of_order(order_id))


@router.post("/deliveries/{order_id}/events", status_code=202)
async def deliver(order_id: Code, body: DeliveryEventRequest, shop: Shop, who: Carrier) -> JSONResponse:
    """The carrier handed the goods over. Repeating it is harmless."""
    status = OrderStatus((await shop.book.get(order_id)).view.order_status)
    if status.final and status is not OrderStatus.DELIVERED:
        raise NotDeliverable(order_id)
    if status is not OrderStatus.DELIVERED:
        try:
            await shop.engine.delivered(order_id)
        except NotDeliverable:
            # The workflow may have ended a moment ago because this very event had arrived before.
            if (await shop.book.get(order_id)).view.order_status != OrderStatus.DELIVERED:
                raise
    return JSONResponse({"orderId": order_id, "deliveryStatus": "Delivered"}, 202)


@router.get("/coupons")
async def list_coupons(
    shop: Shop,
    who: Buyer,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Page[CouponAnswer]:
    """The caller's own coupons, newest first; revoked ones say so."""
    found = await shop.coupons.of_owner(who.user_id, limit=limit + 1, before=decode(cursor))
    more = encode(found[limit - 1].order_id) if len(found) > limit else None
    return Page(items=[CouponAnswer.of(coupon) for coupon in found[:limit]], next_cursor=more)


@router.post("/orders/{order_id}/settlements", status_code=202)
async def settle(order_id: Code, body: SettlementRequest, shop: Shop, who: Operator) -> OrderAnswer:
    """Settle a compensation that failed for good."""
    await shop.book.get(order_id)
    await shop.engine.settle(order_id, step=body.step, action=body.action, actor=who.user_id, reason=body.reason)
    return OrderAnswer.of(await shop.book.get(order_id))
