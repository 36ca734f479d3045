"""The calls that are not about placing and reading orders: catalogue, stock, deliveries, coupons, settlements."""

import hashlib
import json
import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response

from services.gateway.caller import Buyer, Carrier, Operator
from services.gateway.classic import classic
from services.gateway.conditional import IfNoneMatch
from services.gateway.contract import ShopRoute
from services.gateway.cursor import AskedPage
from services.gateway.fields import KEY, OrderId, ProductId, ReconciliationId
from services.gateway.headers import Public
from services.gateway.openapi import refusals, revalidated
from services.gateway.parts import Parts, parts
from services.gateway.problems import InvalidCursor
from services.gateway.schemas import (
    AdmissionAnswer,
    ClearanceRequest,
    CouponAnswer,
    DecisionRequest,
    DeliveredAnswer,
    DeliveryAnswer,
    DeliveryEventRequest,
    DifferenceAnswer,
    Items,
    MovementRequest,
    OrderAnswer,
    Page,
    ProductAnswer,
    ProductRequest,
    ReconciliationAnswer,
    SettlementRequest,
    StockAnswer,
    TriggeredAnswer,
)
from services.order.statuses import OrderStatus
from services.shared.ids import new_order_id
from workflows.client import NotDeliverable

router = APIRouter(route_class=ShopRoute)
Shop = Annotated[Parts, Depends(parts)]


@router.get("/products", response_model=Items[ProductAnswer], responses=revalidated())
async def list_products(shop: Shop, if_none_match: IfNoneMatch = None) -> Response:
    """The catalogue. `304` when it is still what the caller knows."""
    products = Items(items=[ProductAnswer.of(product) for product in await shop.catalogue.list()])
    return Public(products.model_dump_json(by_alias=True).encode()).answer(if_none_match)


@router.get(
    "/products/{productId}", response_model=ProductAnswer, responses=revalidated() | refusals("unknown-product")
)
async def get_product(product_id: ProductId, shop: Shop, if_none_match: IfNoneMatch = None) -> Response:
    """One product of the catalogue. `304` when it is still what the caller knows."""
    product = ProductAnswer.of(await shop.catalogue.get(product_id))
    return Public(product.model_dump_json(by_alias=True).encode()).answer(if_none_match)


@router.put("/products/{productId}")
async def put_product(product_id: ProductId, body: ProductRequest, shop: Shop, who: Operator) -> ProductAnswer:
    """Create or change a product. Orders that were accepted keep their price."""
    product = await shop.catalogue.put(
        product_id=product_id,
        product_name=body.product_name,
        product_price=body.product_price,
        currency=body.currency,
    )
    return ProductAnswer.of(product)


@router.get("/stocks/{productId}", responses=refusals("unknown-product"))
async def get_stock(product_id: ProductId, shop: Shop, who: Operator) -> StockAnswer:
    """How many pieces there are."""
    return StockAnswer(product_id=product_id, on_hand=await shop.warehouse.on_hand(product_id))


@router.post(
    "/stocks/{productId}/movements",
    status_code=201,
    responses=refusals("idempotency-key-reused", "out-of-stock", "stock-limit"),
)
async def move_stock(
    product_id: ProductId,
    body: MovementRequest,
    shop: Shop,
    who: Operator,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=64, pattern=KEY)] = None,
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


@router.get("/deliveries/{orderId}", responses=refusals("not-found"))
async def get_delivery(order_id: OrderId, shop: Shop, who: Buyer) -> DeliveryAnswer:
    """Where an order's goods are."""
    await shop.book.get(order_id, user_id=who.sees)
    return DeliveryAnswer.of(await shop.deliveries.of_order(order_id))


@router.post(
    "/deliveries/{orderId}/events",
    status_code=202,
    responses=refusals("not-found", "not-deliverable", "engine-unavailable"),
)
async def deliver(order_id: OrderId, body: DeliveryEventRequest, shop: Shop, who: Carrier) -> DeliveredAnswer:
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
    return DeliveredAnswer(order_id=order_id)


@router.get("/stockDeliveries", operation_id="listStockDeliveries", **classic("/orders", "invalid-cursor"))
async def list_deliveries(shop: Shop, who: Buyer, asked: AskedPage) -> Page[DeliveryAnswer]:
    """The deliveries of the caller's orders, an operator's view of all; those of the newest orders first.

    A page goes over `limit` orders. Of those whose delivery has not begun it says nothing, so it may hold fewer items.
    """
    paging = asked.of("deliveries", who)
    found = await shop.book.list(user_id=who.sees, limit=paging.limit, before=paging.before)
    page, more = paging.cut(found, lambda reading: reading.order.order_id)
    order_ids = [reading.order.order_id for reading in page]
    deliveries = await shop.deliveries.of_orders(order_ids)
    items = [DeliveryAnswer.of(deliveries[order_id]) for order_id in order_ids if order_id in deliveries]
    return Page(items=items, next_cursor=more)


@router.get("/coupons", responses=refusals("invalid-cursor"))
@router.get("/promotes", operation_id="listPromotes", **classic("/coupons", "invalid-cursor"))
async def list_coupons(shop: Shop, who: Buyer, asked: AskedPage) -> Page[CouponAnswer]:
    """The caller's own coupons, newest first; revoked ones say so."""
    paging = asked.of("coupons", who)
    found = await shop.coupons.of_owner(who.user_id, limit=paging.limit, before=paging.before)
    page, more = paging.cut(found, lambda coupon: coupon.order_id)
    return Page(items=[CouponAnswer.of(coupon) for coupon in page], next_cursor=more)


@router.post(
    "/orders/{orderId}/settlements",
    status_code=202,
    responses=refusals("not-found", "not-stuck", "engine-unavailable"),
)
async def settle(order_id: OrderId, body: SettlementRequest, shop: Shop, who: Operator) -> OrderAnswer:
    """Settle a compensation that failed for good."""
    await shop.book.get(order_id)
    await shop.engine.settle(order_id, step=body.step, action=body.action, actor=who.user_id, reason=body.reason)
    return OrderAnswer.of(await shop.book.get(order_id))


@router.post(
    "/orders/{orderId}/waivers",
    status_code=202,
    responses=refusals("not-found", "not-waiting", "engine-unavailable"),
)
async def waive_coupon(order_id: OrderId, body: DecisionRequest, shop: Shop, who: Operator) -> OrderAnswer:
    """Let an order go on without the coupon that marketing keeps it waiting for. It gets none later."""
    await shop.book.get(order_id)
    await shop.engine.waive_coupon(order_id, actor=who.user_id, reason=body.reason)
    return OrderAnswer.of(await shop.book.get(order_id))


@router.post(
    "/orders/{orderId}/clearances",
    status_code=202,
    responses=refusals("not-found", "not-flagged", "engine-unavailable"),
)
async def clear_attention(order_id: OrderId, body: ClearanceRequest, shop: Shop, who: Operator) -> OrderAnswer:
    """Note that what an order was flagged for has been seen to. A stuck compensation is settled instead."""
    await shop.book.get(order_id)
    await shop.engine.clear_attention(order_id, actor=who.user_id, reason=body.reason, about=body.about or "")
    return OrderAnswer.of(await shop.book.get(order_id))


@router.get("/reconciliations", responses=refusals("invalid-cursor"))
async def list_reconciliations(shop: Shop, who: Operator, asked: AskedPage) -> Page[ReconciliationAnswer]:
    """The runs that compared what every store says of orders, newest first. Without `finishedAt` one is under way."""
    paging = asked.of("reconciliations", who)
    found = await shop.reports.list(limit=paging.limit, before=paging.before)
    page, more = paging.cut(found, lambda run: run.reconciliation_id)
    return Page(items=[ReconciliationAnswer.of(run) for run in page], next_cursor=more)


@router.post("/reconciliations", status_code=202, responses=refusals("engine-unavailable"))
async def reconcile(shop: Shop, who: Operator) -> TriggeredAnswer:
    """Compare now, and put right what can be. Repeating it is harmless: one run is under way at a time."""
    return TriggeredAnswer(state="started" if await shop.reconciliations.trigger() else "running")


@router.get("/reconciliations/{reconciliationId}", responses=refusals("not-found"))
async def get_reconciliation(reconciliation_id: ReconciliationId, shop: Shop, who: Operator) -> ReconciliationAnswer:
    """One run, and how far it has come."""
    return ReconciliationAnswer.of(await shop.reports.get(reconciliation_id))


@router.get("/reconciliations/{reconciliationId}/differences", responses=refusals("not-found", "invalid-cursor"))
async def list_differences(
    reconciliation_id: ReconciliationId, shop: Shop, who: Operator, asked: AskedPage
) -> Page[DifferenceAnswer]:
    """What a run found, in the sequence in which it did."""
    paging = asked.of("differences", who, reconciliation_id)
    if not re.fullmatch("[0-9]{1,9}", after := paging.before or "0"):
        raise InvalidCursor(after)
    await shop.reports.get(reconciliation_id)
    found = await shop.reports.differences(reconciliation_id, limit=paging.limit, after=int(after))
    page, more = paging.cut(found, lambda difference: str(difference.number))
    return Page(items=[DifferenceAnswer.of(difference) for difference in page], next_cursor=more)
