"""The orders of the drill: where each stood when the backup was made, and what became of it since."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.e2e.shop import Order, Shop, Wish, eventually
from tests.restores.copies import row, snapshot

QTY = 2
ON_HAND, RESTOCKED = 100, 7
MARKETING, PAYMENTS, ENGINE = "worker-marketing", "payments", "temporal"
Say = Callable[[str], None]


class Part(StrEnum):
    """An order, by its story. What was in the middle of something goes on after the backup."""

    DELIVERED = "delivered before"
    CANCELED = "cancelled before"
    DECLINED = "declined before"
    UNDER_WAY = "under way before, and still"
    ARRIVED = "under way before, delivered since"
    CALLED_OFF = "under way before, cancelled since"
    WAITED = "waited for its coupon, sent since"
    WAITED_CALLED_OFF = "waited for its coupon, cancelled since"
    IN_PAYMENT = "was being paid, sent since"
    ACCEPTED = "was just accepted, sent since"
    NEW_UNDER_WAY = "new, under way"
    NEW_DELIVERED = "new, delivered"
    NEW_CANCELED = "new, cancelled"
    NEW_DECLINED = "new, declined"
    NEW_WAITS = "new, waits for its coupon"
    NEW_IN_PAYMENT = "new, is being paid"
    NEW_ACCEPTED = "new, just accepted"


_DECLINED = (Part.DECLINED, Part.NEW_DECLINED)


@dataclass
class Cast:
    """Who plays which part, and the goods: one product that is restocked after the backup, one that is new then."""

    product_id: str
    new_product_id: str = ""
    wishes: dict[Part, Wish] = field(default_factory=dict[Part, Wish])
    ids: dict[Part, str] = field(default_factory=dict[Part, str])

    def part_of(self, subject: str) -> str:
        """Which part an order plays; another subject as it is."""
        return next((str(part) for part, order_id in self.ids.items() if order_id == subject), subject)

    async def order(self, shop: Shop, part: Part, status: str) -> Order:
        """Have an order placed, and wait until it stands there."""
        order = await self.place(shop, part)
        return await shop.until(order.orderId, status)

    async def place(self, shop: Shop, part: Part) -> Order:
        pay = "pm_card_chargeDeclined" if part in _DECLINED else "pm_card_visa"
        wish = self.wishes[part] = Wish(self.product_id, QTY, f"customer-{part.name.lower()}", pay)
        order = await shop.place(wish)
        self.ids[part] = order.orderId
        return order

    async def deliver(self, shop: Shop, part: Part) -> None:
        """To the end: the delivery team has noted it, too."""
        order_id = self.ids[part]
        assert (await shop.deliver(order_id)).status_code == 202

        async def arrived() -> bool:
            return await shop.delivery(order_id) == "Delivered"

        await shop.until(order_id, "Delivered")
        await eventually(arrived, f"the arrival of {order_id}")

    async def cancel(self, shop: Shop, *parts: Part) -> None:
        for part in parts:
            await shop.cancel(await shop.order(self.ids[part]))
        for part in parts:
            await shop.until(self.ids[part], "OrderCanceled")


async def play(shop: Shop, backup: Path, newest: Path, say: Say) -> Cast:
    """Let customers come and go. Two copies are made of the shop's data as it works: the backup, and the disaster."""
    cast = Cast(await shop.product(on_hand=ON_HAND))
    say("before the backup: orders come, are delivered, cancelled and declined")
    for part in (Part.DELIVERED, Part.CANCELED, Part.UNDER_WAY, Part.ARRIVED, Part.CALLED_OFF):
        await cast.order(shop, part, "DeliveryStarted")
    await cast.order(shop, Part.DECLINED, "PaymentDeclined")
    await cast.deliver(shop, Part.DELIVERED)
    await cast.cancel(shop, Part.CANCELED)
    waiting = (Part.WAITED, Part.WAITED_CALLED_OFF)
    async with shop.suspended(MARKETING):
        await _in_the_middle(cast, shop, waiting, Part.IN_PAYMENT, Part.ACCEPTED, backup)
        say("the backup is made; life goes on")
        await shop.cancel(await shop.order(cast.ids[Part.WAITED_CALLED_OFF]))
        await shop.until_event(cast.ids[Part.WAITED_CALLED_OFF], "PaymentRefunded")
    await shop.until(cast.ids[Part.WAITED_CALLED_OFF], "OrderCanceled")
    for part in (Part.WAITED, Part.IN_PAYMENT, Part.ACCEPTED):
        await shop.until(cast.ids[part], "DeliveryStarted")
    await cast.deliver(shop, Part.ARRIVED)
    await cast.cancel(shop, Part.CALLED_OFF)
    for part in (Part.NEW_UNDER_WAY, Part.NEW_DELIVERED, Part.NEW_CANCELED):
        await cast.order(shop, part, "DeliveryStarted")
    await cast.order(shop, Part.NEW_DECLINED, "PaymentDeclined")
    await cast.deliver(shop, Part.NEW_DELIVERED)
    await cast.cancel(shop, Part.NEW_CANCELED)
    await shop.move_stock(cast.product_id, RESTOCKED)
    cast.new_product_id = await shop.product(on_hand=ON_HAND)
    async with shop.suspended(MARKETING):
        await _in_the_middle(cast, shop, [Part.NEW_WAITS], Part.NEW_IN_PAYMENT, Part.NEW_ACCEPTED, newest)
        say("the disaster's copy is made")
    for part in (Part.NEW_WAITS, Part.NEW_IN_PAYMENT, Part.NEW_ACCEPTED):
        await shop.until(cast.ids[part], "DeliveryStarted")
    return cast


async def _in_the_middle(
    cast: Cast, shop: Shop, waiting: Sequence[Part], in_payment: Part, accepted: Part, to: Path
) -> None:
    """A copy of the data while orders wait for marketing, one for the provider, and one for its workflow."""
    for part in waiting:
        await cast.order(shop, part, "OrderPlaced")
    async with shop.suspended(PAYMENTS):
        order_id = (await cast.place(shop, in_payment)).orderId

        async def begun() -> bool:
            return row(shop.data_dir, "SELECT 1 FROM payments WHERE order_id = ?", order_id) is not None

        await eventually(begun, f"the payment of {order_id} to begin")
        async with shop.suspended(ENGINE):
            await cast.place(shop, accepted)
            await snapshot(shop, to, suspended=(MARKETING, PAYMENTS, ENGINE))
