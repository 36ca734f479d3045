"""All SQL of the delivery team."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlmodel import col, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from services.delivery.tables import Delivery, Stock, StockMovement
from services.shared.database import change


async def stock_of(session: AsyncSession, product_id: str) -> Stock | None:
    return await session.get(Stock, product_id)


async def stocks_of(session: AsyncSession, product_ids: Collection[str]) -> Sequence[Stock]:
    return (await session.exec(select(Stock).where(col(Stock.product_id).in_(product_ids)))).all()


async def take_out(session: AsyncSession, product_id: str, qty: int, at: datetime) -> bool:
    """Lower the stock by `qty` if it holds as many; says whether it did. One statement, so two cannot both win."""
    count = await change(
        session,
        update(Stock)
        .where(col(Stock.product_id) == product_id, col(Stock.on_hand) >= qty)
        .values(on_hand=col(Stock.on_hand) - qty, updated_at=at),
    )
    return count == 1


async def put_in(session: AsyncSession, product_id: str, qty: int, at: datetime, *, at_most: int | None = None) -> bool:
    """Raise the stock by `qty`; says whether the product is stocked, and holds no more than `at_most` then."""
    statement = update(Stock).where(col(Stock.product_id) == product_id)
    if at_most is not None:
        statement = statement.where(col(Stock.on_hand) <= at_most - qty)
    count = await change(session, statement.values(on_hand=col(Stock.on_hand) + qty, updated_at=at))
    return count == 1


async def movement(session: AsyncSession, reference: str, kind: str) -> StockMovement | None:
    statement = select(StockMovement).where(StockMovement.reference == reference, StockMovement.kind == kind)
    return (await session.exec(statement)).one_or_none()


async def delivery_of_order(session: AsyncSession, order_id: str) -> Delivery | None:
    return await session.get(Delivery, order_id, populate_existing=True)


async def started_deliveries(session: AsyncSession, order_ids: Collection[str]) -> Sequence[Delivery]:
    """The deliveries of these orders, of those whose delivery was ever started."""
    statement = select(Delivery).where(col(Delivery.order_id).in_(order_ids), col(Delivery.started_at).is_not(None))
    return (await session.exec(statement)).all()


async def move_delivery(session: AsyncSession, order_id: str, *, source: str, target: str, at: datetime) -> bool:
    """Bring a delivery from one state to another; says whether it was in the first."""
    count = await change(
        session,
        update(Delivery)
        .where(col(Delivery.order_id) == order_id, col(Delivery.state) == source)
        .values(state=target, updated_at=at),
    )
    return count == 1


async def deliveries_between(
    session: AsyncSession, *, after: str, until: str, limit: int
) -> Sequence[tuple[str, str, str, int]]:
    """Order id, state, product and pieces of the deliveries behind one order id and up to another, so many of them."""
    statement = select(Delivery.order_id, Delivery.state, Delivery.product_id, Delivery.qty)
    order_id = col(Delivery.order_id)
    return (
        await session.exec(statement.where(order_id > after, order_id <= until).order_by(order_id).limit(limit))
    ).all()


async def deliveries_of(session: AsyncSession, order_ids: Collection[str]) -> Sequence[tuple[str, str, str, int]]:
    """The same of these orders."""
    statement = select(Delivery.order_id, Delivery.state, Delivery.product_id, Delivery.qty)
    return (await session.exec(statement.where(col(Delivery.order_id).in_(order_ids)))).all()


async def sold_between(
    session: AsyncSession, kinds: Collection[str], *, after: str, until: str, limit: int
) -> Sequence[tuple[str, int]]:
    """Order id, and the sum of its movements of these kinds, behind one order id and up to another, so many orders."""
    reference = col(StockMovement.reference)
    statement = (
        select(StockMovement.reference, func.sum(col(StockMovement.qty)))
        .where(reference > after, reference <= until, col(StockMovement.kind).in_(kinds))
        .group_by(reference)
        .order_by(reference)
        .limit(limit)
    )
    return (await session.exec(statement)).all()


async def sold_of(
    session: AsyncSession, kinds: Collection[str], order_ids: Collection[str]
) -> Sequence[tuple[str, int]]:
    """The same of these orders."""
    reference = col(StockMovement.reference)
    statement = select(StockMovement.reference, func.sum(col(StockMovement.qty))).group_by(reference)
    return (await session.exec(statement.where(reference.in_(order_ids), col(StockMovement.kind).in_(kinds)))).all()


async def product_ids(session: AsyncSession, *, after: str, limit: int) -> Sequence[str]:
    """The products that are stocked, by id, so many behind one."""
    product_id = col(Stock.product_id)
    return (
        await session.exec(select(Stock.product_id).where(product_id > after).order_by(product_id).limit(limit))
    ).all()


async def stock_and_moved(session: AsyncSession, product_id: str) -> tuple[int, int] | None:
    """What is on hand of a product, and the sum of its movements, as they stood at one moment: in one statement."""
    moved = (
        select(func.coalesce(func.sum(col(StockMovement.qty)), 0))
        .where(StockMovement.product_id == product_id)
        .scalar_subquery()
    )
    return (await session.exec(select(Stock.on_hand, moved).where(Stock.product_id == product_id))).one_or_none()
