"""Coupons on a real database: one an order, none after it was revoked, each its owner's alone."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from services.marketing.coupons import CouponRevoked, Coupons
from services.marketing.tables import Coupon
from services.shared.database import Database

KIM = "김철수🎟️"


@pytest.fixture
def coupons(marketing_database: Database) -> Coupons:
    return Coupons(marketing_database)


async def rows(database: Database) -> Sequence[Coupon]:
    async def work(session: AsyncSession) -> Sequence[Coupon]:
        return (await session.exec(select(Coupon))).all()

    return await database.read(work)


async def issue(coupons: Coupons, order_id: str = "o1") -> Coupon:
    return await coupons.issue(order_id=order_id, user_id=KIM, amount=1_000_000)


async def revoke(coupons: Coupons, order_id: str = "o1") -> bool:
    return await coupons.revoke(order_id=order_id, user_id=KIM, amount=1_000_000)


async def test_a_coupon_is_revoked_once(coupons: Coupons, marketing_database: Database) -> None:
    await issue(coupons)
    assert await revoke(coupons)
    first = await rows(marketing_database)
    assert await revoke(coupons)
    assert await rows(marketing_database) == first  # the moment of the first, too
    await issue(coupons, "o2")
    assert all(await asyncio.gather(*(revoke(coupons, "o2") for _ in range(20))))
    assert all(coupon.revoked_at is not None for coupon in await rows(marketing_database))


async def test_a_coupon_that_comes_after_it_was_revoked_is_refused(
    coupons: Coupons, marketing_database: Database
) -> None:
    assert not any(await asyncio.gather(*(revoke(coupons) for _ in range(20))))
    with pytest.raises(CouponRevoked):
        await issue(coupons)
    assert await coupons.of_owner(KIM, limit=10) == []
    await issue(coupons, "o2")
    await revoke(coupons, "o2")
    with pytest.raises(CouponRevoked):
        await issue(coupons, "o2")
    assert all(coupon.revoked_at is not None for coupon in await rows(marketing_database))


async def test_text_and_time_survive_and_users_differ_by_case(marketing_database: Database) -> None:
    at = datetime(2026, 11, 23, 8, 59, 59, 123457, tzinfo=timezone(timedelta(hours=9)))
    coupons = Coupons(marketing_database, clock=lambda: at)
    for number, user in enumerate((KIM, "kim", "Kim", "é", "e")):
        await coupons.issue(order_id=f"o{number}", user_id=user, amount=5_000_000)
    for number, user in enumerate((KIM, "kim", "Kim", "é", "e")):
        (coupon,) = await coupons.of_owner(user, limit=10)
        assert (coupon.order_id, coupon.user_id, coupon.coupon_kind) == (f"o{number}", user, "Gold")
        assert coupon.issued_at is not None
        assert coupon.issued_at == at
        assert coupon.issued_at.tzinfo == UTC
    assert await coupons.of_owner("KIM", limit=10) == []


async def test_an_owners_coupons_come_in_pages_newest_first(coupons: Coupons) -> None:
    for number in range(5):
        await issue(coupons, f"o{number}")
    await revoke(coupons, "o3")
    await revoke(coupons, "never issued")
    first = await coupons.of_owner(KIM, limit=3)
    rest = await coupons.of_owner(KIM, limit=3, before=first[-1].order_id)
    assert [coupon.order_id for coupon in (*first, *rest)] == ["o4", "o3", "o2", "o1", "o0"]
