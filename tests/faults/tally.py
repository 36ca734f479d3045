"""What a run has seen so far."""

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.faults.schedule import Fault


@dataclass(frozen=True, kw_only=True)
class Struck:
    """A fault that happened. Times are in seconds since the opening."""

    fault: Fault
    began: float
    healed: float
    hit: str

    def __str__(self) -> str:
        lasted = f"healed after {self.healed - self.began:.1f} s"
        return f"{self.began:6.1f} s  {self.fault.kind:<12}  {self.fault.target:<24}  {lasted:<19}  {self.hit}"


@dataclass
class Tally:
    """Counts, and watches for stalls."""

    accepted: dict[str, str] = field(default_factory=dict[str, str])
    """The payment method of each order that was promised, by its id."""
    canceled: set[str] = field(default_factory=set[str])
    """The orders of which somebody was told that they will be undone …"""
    delivered: set[str] = field(default_factory=set[str])
    """… or that their delivery is noted."""
    declined: int = 0
    replayed: int = 0
    looks: int = 0
    unanswered: int = 0
    """Requests that ended without an answer."""
    refused: Counter[str] = field(default_factory=Counter[str])
    """Answers that were a refusal, by their code."""
    settled: int = 0
    settled_by_hand: int = 0
    surprises: list[str] = field(default_factory=list[str])
    """What no customer should ever see."""
    struck: list[Struck] = field(default_factory=list[Struck])
    left_out: list[Fault] = field(default_factory=list[Fault])
    longest_stall: float = 0.0
    """The longest time in which no order was accepted, nor any got to where it stays."""
    _opened: float = 0.0
    _progress: float = 0.0

    def open(self) -> None:
        """From now on customers may come."""
        self._opened = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the opening."""
        return time.monotonic() - self._opened

    def advance(self) -> None:
        """Something was accepted or settled."""
        self.longest_stall = max(self.longest_stall, self.now - self._progress)
        self._progress = self.now

    def accept(self, order_id: str, pay: str) -> None:
        if order_id not in self.accepted:
            self.accepted[order_id] = pay
            self.advance()

    def settle(self, count: int) -> None:
        """So many orders stand where they stay."""
        if count > self.settled:
            self.advance()
        self.settled = count
