"""Who comes, what they order and what becomes of it if it is up to them: a pure function of the seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from tests.e2e.shop import Wish

CUSTOMERS = tuple(f"customer-{number}" for number in range(12))
PAYMENTS = {
    "pm_card_visa": 60,
    "pm_card_chargeDeclined": 6,
    "pm_card_chargeDeclinedInsufficientFunds": 4,
    "pm_sim_slow": 9,
    "pm_sim_lostReply": 9,
    "pm_sim_outage": 6,
    "pm_sim_refundRefused": 6,
}
"""How often each comes, in percent."""
UNREFUNDABLE = "pm_sim_refundRefused"
Canceler = Literal["customer", "operator"]


@dataclass(frozen=True, kw_only=True)
class Goods:
    """A product at the opening."""

    product_id: str
    price: int
    on_hand: int


@dataclass(frozen=True, kw_only=True)
class Errand:
    """One order from beginning to end. Times are seconds: `at` since the opening, the others since its acceptance."""

    at: float
    wish: Wish
    copies: int
    """How many requests with the same key go out at once …"""
    again_after: float | None
    """… and when one more does, much as if its answer had been lost."""
    wait: int
    """How long the customer asks to wait for the payment (`Prefer: wait`)."""
    looks: tuple[float, ...]
    """After how long the customer looks where the order stands."""
    cancel_after: float | None
    canceler: Canceler
    delivers: bool
    """Whether the carrier hands it over once its delivery has started."""


def range_of_goods(orders: int) -> tuple[Goods, ...]:
    """Two products that last, one that runs out under so many orders, and one that there is little of."""
    return (
        Goods(product_id="tea", price=12_000, on_hand=10 * orders),
        Goods(product_id="lamp", price=89_000, on_hand=10 * orders),
        Goods(product_id="vase", price=340_000, on_hand=max(3, orders // 8)),
        Goods(product_id="clock", price=1_250_000, on_hand=2),
    )


def mix(seed: int, *, orders: int, span: float) -> tuple[Errand, ...]:
    """So many errands, in the order in which they come within `span` seconds."""
    dice = Random(f"mix {seed}")
    goods = range_of_goods(orders)
    arrivals = sorted(round(dice.uniform(0, span), 2) for _ in range(orders))
    return tuple(_errand(dice, goods, f"{seed}-{number}", at) for number, at in enumerate(arrivals))


def _errand(dice: Random, goods: Sequence[Goods], key: str, at: float) -> Errand:
    [one] = dice.choices(goods, weights=(40, 30, 25, 5))
    [pay] = dice.choices([*PAYMENTS], weights=[*PAYMENTS.values()])
    qty = dice.randint(1, 2)
    if dice.random() < 0.03:
        one, qty = goods[-1], goods[-1].on_hand + 1
    canceled = dice.random() < (0.6 if pay == UNREFUNDABLE else 0.22)
    return Errand(
        at=at,
        wish=Wish(one.product_id, qty, dice.choice(CUSTOMERS), pay, key),
        copies=dice.choices((1, 2, 3), weights=(80, 14, 6))[0],
        again_after=round(dice.uniform(0, 6), 2) if dice.random() < 0.1 else None,
        wait=dice.choices((0, 2, 5), weights=(70, 15, 15))[0],
        looks=tuple(sorted(round(dice.uniform(0, 8), 2) for _ in range(dice.randint(0, 3)))),
        # Half of them while the payment or the first steps are under way.
        cancel_after=round(dice.uniform(0, dice.choice((0.6, 8))), 2) if canceled else None,
        canceler="operator" if dice.random() < 0.3 else "customer",
        delivers=dice.random() < 0.35,
    )
