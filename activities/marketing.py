"""What a workflow may ask of the marketing team."""

from temporalio import activity

from activities.contract import Coupon, IssueCoupon, Summarise, Undone
from activities.failures import shop_errors
from activities.heartbeat import heartbeating
from services.marketing.coupons import Coupons
from services.shared.summaries import CouponSummary, Part


class MarketingActivities:
    """Commands of the saga, turned into calls on the marketing team's service."""

    def __init__(self, coupons: Coupons) -> None:
        self._coupons = coupons

    @activity.defn
    @shop_errors
    async def issue_coupon(self, command: IssueCoupon) -> Coupon:
        """Issue the order's coupon, once."""
        coupon = await self._coupons.issue(order_id=command.order_id, user_id=command.user_id, amount=command.amount)
        return Coupon(coupon_id=coupon.coupon_id, coupon_kind=coupon.coupon_kind)

    @activity.defn
    @shop_errors
    async def revoke_coupon(self, command: IssueCoupon) -> Undone:
        """Revoke the order's coupon if there is one, and see to it that none comes later."""
        changed = await self._coupons.revoke(order_id=command.order_id, user_id=command.user_id, amount=command.amount)
        return Undone(changed=changed)

    @activity.defn
    @heartbeating
    @shop_errors
    async def summarise_coupons(self, command: Summarise) -> Part[CouponSummary]:
        """The coupons of orders, for the reconciliation."""
        if command.order_ids is not None:
            return Part([*await self._coupons.summaries_of(command.order_ids)], "")
        return await self._coupons.summaries(after=command.after, until=command.until, limit=command.limit)
