"""What a run does: its size, who comes, and what goes wrong. The same seed and size give the same plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Literal, get_args

from tests.faults.mix import Errand, Goods, mix, range_of_goods
from tests.faults.schedule import Fault, schedule

Tier = Literal["smoke", "long", "soak"]
TIERS: tuple[Tier, ...] = get_args(Tier)
_SIZES: Mapping[Tier, tuple[int, int]] = {"smoke": (40, 9), "long": (320, 36), "soak": (2000, 200)}
_SECONDS_PER_FAULT = 3.0
_ORDERS_PER_SECOND = 3.0
# The shop's own limits would keep most of the orders out while something hangs …
_ROOM = {"STREET12_MAX_PENDING_PAYMENTS": "1000", "STREET12_SLOW_PAYMENT_MS": "600000"}
# … which one seed in four is to see happen, with limits that a shop with slow payments would have.
_STRICT = {
    "STREET12_MAX_PENDING_PAYMENTS": "12",
    "STREET12_SLOW_PAYMENT_MS": "3000",
    "STREET12_ADMISSION_COOLDOWN_SECONDS": "1",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run. Times are in seconds since the opening."""

    seed: int
    tier: Tier
    orders: int
    faults: int

    @staticmethod
    def of(seed: int, tier: Tier, *, orders: int | None = None, faults: int | None = None) -> "Plan":
        """A plan of the tier's size, or of another."""
        usual_orders, usual_faults = _SIZES[tier]
        return Plan(
            seed=seed,
            tier=tier,
            orders=usual_orders if orders is None else orders,
            faults=usual_faults if faults is None else faults,
        )

    @property
    def span(self) -> float:
        """In how many seconds the customers come."""
        return max(self.faults * _SECONDS_PER_FAULT, self.orders / _ORDERS_PER_SECOND)

    @cached_property
    def schedule(self) -> tuple[Fault, ...]:
        return schedule(self.seed, count=self.faults, span=self.span)

    @cached_property
    def errands(self) -> tuple[Errand, ...]:
        return mix(self.seed, orders=self.orders, span=self.span)

    @property
    def goods(self) -> tuple[Goods, ...]:
        return range_of_goods(self.orders)

    @property
    def strict(self) -> bool:
        """Whether the shop refuses orders while payments pile up or are slow."""
        return Random(f"limits {self.seed}").random() < 0.25

    @property
    def settings(self) -> Mapping[str, str]:
        """What the shop is set to."""
        return _STRICT if self.strict else _ROOM

    @property
    def command(self) -> str:
        """How to run it again."""
        return f"make faults SEED={self.seed} TIER={self.tier} ORDERS={self.orders} FAULTS={self.faults}"
