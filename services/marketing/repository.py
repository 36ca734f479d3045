"""All SQL of the marketing team."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from services.marketing.tables import Coupon
from services.shared.database import change


async def coupon_of_order(session: AsyncSession, order_id: str) -> Coupon | None:
    return await session.get(Coupon, order_id)


async def revoke(session: AsyncSession, order_id: str, at: datetime) -> bool:
    """Mark an order's coupon as revoked; says whether it was not before."""
    count = await change(
        session,
        update(Coupon).where(col(Coupon.order_id) == order_id, col(Coupon.revoked_at).is_(None)).values(revoked_at=at),
    )
    return count == 1


async def coupons_of_owner(session: AsyncSession, user_id: str, *, limit: int, before: str | None) -> Sequence[Coupon]:
    """An owner's coupons, newest order first, starting after the order `before`."""
    statement = (
        select(Coupon)
        .where(Coupon.user_id == user_id, col(Coupon.issued_at).is_not(None))
        # Unasked, MySQL passes over all that is newer than `before`.
        .with_hint(Coupon, "FORCE INDEX (ix_coupons_owner)")
    )
    if before is not None:
        statement = statement.where(col(Coupon.order_id) < before)
    return (await session.exec(statement.order_by(col(Coupon.order_id).desc()).limit(limit))).all()


async def coupons_between(session: AsyncSession, *, after: str, until: str, limit: int) -> Sequence[Coupon]:
    """The coupons of the orders behind one id and up to another, so many of them."""
    order_id = col(Coupon.order_id)
    statement = select(Coupon).where(order_id > after, order_id <= until).order_by(order_id).limit(limit)
    return (await session.exec(statement)).all()


async def coupons_of(session: AsyncSession, order_ids: Collection[str]) -> Sequence[Coupon]:
    """The coupons of these orders."""
    return (await session.exec(select(Coupon).where(col(Coupon.order_id).in_(order_ids)))).all()
