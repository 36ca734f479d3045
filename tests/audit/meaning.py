"""What each status stands for: which of the saga's effects are there, what it waits for, what its workflow does.

The one place for the waiting states. An order in another state than these does not exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from services.order.statuses import DeliveryStatus, OrderStatus, PayStatus
from workflows.steps import SAGA

_STEPS = tuple(step.do for step in SAGA)
_ALL = len(SAGA)
UNDO: Mapping[str, str] = {step.do: step.undo for step in SAGA}


@dataclass(frozen=True)
class Meaning:
    """The first `stands` steps of the saga have taken effect; the first `may_stand` may have, and nothing else."""

    stands: int
    may_stand: int
    waits_for: str | None = None
    """What an open workflow waits for; the workflow of a status without is completed."""
    rests: bool = False
    """Whether it may wait so while nothing is under way in the shop."""
    pay_status: PayStatus | None = None
    delivery_status: DeliveryStatus | None = None

    @property
    def must(self) -> frozenset[str]:
        """The steps whose effect is there."""
        return frozenset(_STEPS[: self.stands])

    @property
    def may(self) -> frozenset[str]:
        """The steps whose effect may be there."""
        return frozenset(_STEPS[: self.may_stand])

    @property
    def says_something(self) -> bool:
        """Whether there is anything that must stand or must not."""
        return self.stands > 0 or self.may_stand < _ALL

    @property
    def decided(self) -> bool:
        """Whether it is certain whose the money is."""
        return (self.stands > 0) == (self.may_stand > 0)


MEANING: Mapping[OrderStatus, Meaning] = {
    # The status is written beside the next step: that one may have taken effect.
    OrderStatus.ORDER_RECEIVED: Meaning(0, 1, "its payment"),
    OrderStatus.ORDER_PLACED: Meaning(1, 2, "the marketing team"),
    OrderStatus.COUPON_ISSUED: Meaning(2, _ALL, "the delivery team"),  # whose two steps are one status
    OrderStatus.DELIVERY_STARTED: Meaning(
        _ALL, _ALL, "the carrier", rests=True, pay_status=PayStatus.PAID, delivery_status=DeliveryStatus.STARTED
    ),
    OrderStatus.ORDER_CANCELING: Meaning(0, _ALL, "the undos, or an operator who settles one"),
    OrderStatus.DELIVERED: Meaning(_ALL, _ALL, pay_status=PayStatus.PAID, delivery_status=DeliveryStatus.DELIVERED),
    OrderStatus.PAYMENT_DECLINED: Meaning(0, 0, pay_status=PayStatus.DECLINED, delivery_status=DeliveryStatus.NONE),
    OrderStatus.ORDER_CANCELED: Meaning(0, 0),
}
