"""How much is measured, and how it is told while it is being measured."""

from dataclasses import dataclass
from typing import Protocol


class Say(Protocol):
    """Who is told how the measurement gets on."""

    def doing(self, what: str) -> None:
        """It is at this just now."""
        ...

    def done(self, what: str) -> None:
        """This has been found out."""
        ...


@dataclass(frozen=True)
class Size:
    """How much of everything. The defaults take about half an hour, most of it to fill a shop with open orders."""

    rounds: int = 4
    orders: int = 100
    """In each round."""
    in_flight: int = 32
    """Orders, or customers, at once."""
    alone: int = 50
    """Orders one at a time."""
    counted: int = 128
    """Orders whose requests and statements are counted."""
    seconds: float = 5.0
    """Of each round of a crowd."""
    open_orders: tuple[int, ...] = (0, 1_000, 10_000)
    backlog: int = 1_000
    every_seconds: float = 1.0
    """Between one new order and the next, while a backlog is drained and after it."""
    after: int = 30
    """New orders when the backlog is gone."""


QUICK = Size(
    rounds=2, orders=16, counted=64, in_flight=8, alone=4, seconds=1.0, open_orders=(0, 40), backlog=40, after=4
)
