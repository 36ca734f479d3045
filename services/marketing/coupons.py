"""The rules of coupons: one an order, its kind by the order's amount, and none after it was revoked."""

from collections.abc import Collection, Sequence
from typing import ClassVar

from services.marketing import repository
from services.marketing.tables import Coupon
from services.shared.clock import Clock, utc_now
from services.shared.database import Database, insert_if_new
from services.shared.errors import Refused
from services.shared.ids import NewId, new_coupon_id
from services.shared.summaries import CouponSummary, Part, cut, end_of

# The kind that an order of at least this many won earns; the first that fits, from the top.
COUPON_KINDS: tuple[tuple[int, str], ...] = ((5_000_000, "Gold"), (1_000_000, "Silver"), (0, "Bronze"))


class CouponRevoked(Refused):
    """The order was cancelled: its coupon must not come any more."""

    code: ClassVar[str] = "coupon-revoked"


def coupon_kind(amount: int) -> str:
    """The kind of coupon that an order of this amount earns."""
    return next(kind for least, kind in COUPON_KINDS if amount >= least)


class Coupons:
    """Issues and revokes coupons."""

    def __init__(self, database: Database, clock: Clock = utc_now, new_id: NewId = new_coupon_id) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id

    async def issue(self, *, order_id: str, user_id: str, amount: int) -> Coupon:
        """Issue an order's coupon, once: a repetition answers the one that is there. Raises `CouponRevoked`."""
        coupon = Coupon(
            order_id=order_id,
            coupon_id=self._new_id(),
            user_id=user_id,
            coupon_kind=coupon_kind(amount),
            issued_at=self._clock(),
        )

        async def work(session: repository.AsyncSession) -> Coupon:
            if await insert_if_new(session, coupon):
                return coupon
            known = await repository.coupon_of_order(session, order_id)
            if known is None or known.revoked_at is not None:
                raise CouponRevoked(order_id)
            return known

        return await self._database.write(work)

    async def revoke(self, *, order_id: str, user_id: str, amount: int) -> bool:
        """Revoke an order's coupon if there is one, and see to it that none comes later. Says whether there was one."""
        now = self._clock()
        tombstone = Coupon(
            order_id=order_id,
            coupon_id=self._new_id(),
            user_id=user_id,
            coupon_kind=coupon_kind(amount),
            revoked_at=now,
        )

        async def work(session: repository.AsyncSession) -> bool:
            # The change comes before the tombstone: a refused INSERT shares a lock on the row, and of many that then
            # all want to change it, MySQL lets one go on.
            if await repository.revoke(session, order_id, now):
                return True
            if await insert_if_new(session, tombstone):
                return False
            coupon = await repository.coupon_of_order(session, order_id)
            if coupon is not None and coupon.revoked_at is None:  # it was issued between the two statements
                return await repository.revoke(session, order_id, now)
            return coupon is not None and coupon.issued_at is not None

        return await self._database.write(work)

    async def of_owner(self, user_id: str, *, limit: int, before: str | None = None) -> Sequence[Coupon]:
        """An owner's coupons, revoked ones too, newest order first."""
        return await self._database.read(
            lambda session: repository.coupons_of_owner(session, user_id, limit=limit, before=before)
        )

    async def summaries(self, *, after: str, until: str, limit: int) -> Part[CouponSummary]:
        """The coupons of the orders behind one id and up to another, or as far as so many of them reach."""
        found = await self._database.read(
            lambda session: repository.coupons_between(session, after=after, until=until, limit=limit)
        )
        return cut(map(_summary, found), until, end_of([coupon.order_id for coupon in found], limit))

    async def summaries_of(self, order_ids: Collection[str]) -> Sequence[CouponSummary]:
        """The coupons of these orders."""
        found = await self._database.read(lambda session: repository.coupons_of(session, order_ids))
        return [_summary(coupon) for coupon in found]


def _summary(coupon: Coupon) -> CouponSummary:
    return CouponSummary(
        coupon.order_id, coupon.coupon_id, stands=coupon.issued_at is not None and coupon.revoked_at is None
    )
