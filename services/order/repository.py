"""All SQL of the order team."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from services.order.statuses import OrderState, OrderStatus
from services.order.tables import IdempotencyKey, Order, OrderEvent, OrderView, Payment, Product
from services.shared.database import insert_if_new


async def products(session: AsyncSession) -> Sequence[Product]:
    return (await session.exec(select(Product).order_by(col(Product.product_id)))).all()


async def product(session: AsyncSession, product_id: str) -> Product | None:
    return await session.get(Product, product_id)


async def change_product(session: AsyncSession, changed: Product) -> bool:
    """Give a product new values; says whether it is there."""
    result = await session.exec(
        update(Product)
        .where(col(Product.product_id) == changed.product_id)
        .values(**changed.model_dump(exclude={"product_id"}))
    )
    return result.rowcount == 1


async def order_of_key(session: AsyncSession, user_id: str, idempotency_key: str) -> tuple[str, Order] | None:
    """The order that a caller's key stands for, after the fingerprint of the request that it came with."""
    statement = (
        select(IdempotencyKey.fingerprint, Order)
        .join(Order, col(Order.order_id) == col(IdempotencyKey.order_id))
        .where(IdempotencyKey.user_id == user_id, IdempotencyKey.idempotency_key == idempotency_key)
    )
    return (await session.exec(statement)).one_or_none()


async def add_order(session: AsyncSession, order: Order, view: OrderView, event: OrderEvent) -> None:
    for row in (order, view, event):
        await session.exec(insert(type(row)).values(**row.model_dump()))


async def claimable(session: AsyncSession, now: datetime, limit: int) -> Sequence[Order]:
    """Orders that have no workflow and belong to nobody, those that waited longest first."""
    statement = (
        select(Order)
        .where(col(Order.started_at).is_(None), col(Order.claimed_until) <= now)
        .order_by(col(Order.claimed_until), col(Order.order_id))
        .limit(limit)
    )
    return (await session.exec(statement)).all()


async def claim(session: AsyncSession, order_id: str, *, seen: datetime, until: datetime) -> bool:
    """Take an order if nobody did since it was seen; says whether it did. One statement, so two cannot both win."""
    result = await session.exec(
        update(Order)
        .where(col(Order.order_id) == order_id, col(Order.started_at).is_(None), col(Order.claimed_until) == seen)
        .values(claimed_until=until)
    )
    return result.rowcount == 1


async def mark_started(session: AsyncSession, order_id: str, at: datetime) -> None:
    await session.exec(
        update(Order).where(col(Order.order_id) == order_id, col(Order.started_at).is_(None)).values(started_at=at)
    )


async def payment_of_order(session: AsyncSession, order_id: str) -> Payment | None:
    return await session.get(Payment, order_id, populate_existing=True)


async def set_intent(session: AsyncSession, order_id: str, *, intent_id: str, at: datetime) -> bool:
    """Note a payment's intent unless one was noted before; says whether it did."""
    result = await session.exec(
        update(Payment)
        .where(col(Payment.order_id) == order_id, col(Payment.intent_id).is_(None))
        .values(intent_id=intent_id, updated_at=at)
    )
    return result.rowcount == 1


async def move_payment(
    session: AsyncSession,
    order_id: str,
    *,
    sources: Sequence[str],
    target: str,
    at: datetime,
    decline_code: str | None = None,
) -> bool:
    """Bring a payment from one of some states to another; says whether it was in one of the first."""
    result = await session.exec(
        update(Payment)
        .where(col(Payment.order_id) == order_id, col(Payment.state).in_(sources))
        .values(state=target, decline_code=decline_code, updated_at=at)
    )
    return result.rowcount == 1


async def add_events(session: AsyncSession, events: Sequence[OrderEvent]) -> None:
    """Put on the timeline those of the events that are not there yet."""
    try:
        await session.exec(insert(OrderEvent).values([event.model_dump() for event in events]))
    except IntegrityError:  # the databases take the whole statement back
        for event in events:
            await insert_if_new(session, event)


async def move_view(session: AsyncSession, order_id: str, *, state: OrderState, version: int, at: datetime) -> bool:
    """Bring an order's view to a version unless it is there or further already; says whether it did."""
    result = await session.exec(
        update(OrderView)
        .where(col(OrderView.order_id) == order_id, col(OrderView.version) < version)
        .values(**asdict(state), version=version, updated_at=at)
    )
    return result.rowcount == 1


async def order_with_view(session: AsyncSession, order_id: str) -> tuple[Order, OrderView] | None:
    statement = (
        select(Order, OrderView)
        .join(OrderView, col(OrderView.order_id) == col(Order.order_id))
        .where(Order.order_id == order_id)
    )
    return (await session.exec(statement)).one_or_none()


async def orders_with_views(
    session: AsyncSession,
    *,
    user_id: str | None,
    order_status: str | None,
    needs_attention: bool | None,
    limit: int,
    before: str | None,
) -> Sequence[tuple[Order, OrderView]]:
    """Orders, newest first, starting after the order `before`."""
    statement = select(Order, OrderView).join(OrderView, col(OrderView.order_id) == col(Order.order_id))
    index = _index_of_list(user_id, order_status, needs_attention)
    if index is not None:
        # Unasked, MySQL sorts what two filters leave, and passes over all that is newer than `before`.
        statement = statement.with_hint(OrderView, f"FORCE INDEX ({index})")
    if user_id is not None:
        statement = statement.where(OrderView.user_id == user_id)
    if order_status is not None:
        statement = statement.where(OrderView.order_status == order_status)
    if needs_attention is not None:
        # Not `.is_(…)`: MySQL uses no index for `IS true`.
        statement = statement.where(OrderView.needs_attention == needs_attention)
    if before is not None:
        statement = statement.where(col(OrderView.order_id) < before)
    return (await session.exec(statement.order_by(col(OrderView.order_id).desc()).limit(limit))).all()


async def pending_payments(session: AsyncSession) -> int:
    """How many orders are accepted while their payment is in flight."""
    statement = select(func.count()).where(OrderView.order_status == OrderStatus.ORDER_RECEIVED)
    return (await session.exec(statement)).one()


async def events_of_order(session: AsyncSession, order_id: str, *, after: int) -> Sequence[OrderEvent]:
    """An order's timeline from the version after `after` on."""
    statement = select(OrderEvent).where(OrderEvent.order_id == order_id, OrderEvent.version > after)
    return (await session.exec(statement.order_by(col(OrderEvent.version)))).all()


def _index_of_list(user_id: str | None, order_status: str | None, needs_attention: bool | None) -> str | None:
    """The index of the filter that is likely to leave the fewest orders; without a filter it is the primary key."""
    if user_id is not None:
        return "ix_order_views_user"
    if order_status is not None and not needs_attention:
        return "ix_order_views_status"
    return None if needs_attention is None else "ix_order_views_attention"
