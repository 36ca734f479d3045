"""What goes wrong, when, where and for how long: a pure function of the seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random

PROCESSES = ("api", "worker-order", "worker-delivery", "worker-marketing", "temporal", "payments", "mariadb")
WIRES = ("order database's wire", "delivery database's wire", "payments' wire", "temporal's wire")
DISK = "databases' disk"


class Kind(StrEnum):
    """What can happen."""

    KILLED = "kill -9"
    SUSPENDED = "SIGSTOP"
    SILENT = "silence"
    RESET = "reset"
    REPLY_LOST = "lost replies"
    DISK_FULL = "full disk"


TARGETS: Mapping[Kind, tuple[str, ...]] = {
    Kind.KILLED: PROCESSES,
    Kind.SUSPENDED: PROCESSES,
    Kind.SILENT: WIRES,
    Kind.RESET: WIRES,
    Kind.REPLY_LOST: WIRES,
    Kind.DISK_FULL: (DISK,),
}
"""Where each can happen."""
_AT_ONCE = (Kind.KILLED, Kind.RESET)
_SHORTEST, _LONGEST = 0.5, 8.0
# A MariaDB that starts on a full disk waits for a minute before it looks again, whenever there is room: no news for
# anybody but a run that has two.
_DISK_AND_SERVER = frozenset({DISK, "mariadb"})
_BREATH_SECONDS = 3.0
"""The least time between two faults of one target: a process that was killed is back by then, as a rule."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault. `at` counts the seconds since the first order may come; one that happens at once lasts 0 s."""

    at: float
    kind: Kind
    target: str
    seconds: float

    @property
    def until(self) -> float:
        return self.at + self.seconds

    def meets(self, at: float, until: float) -> bool:
        """Whether it and something of that time come too close for one target."""
        return self.at < until + _BREATH_SECONDS and at < self.until + _BREATH_SECONDS


def schedule(seed: int, *, count: int, span: float) -> tuple[Fault, ...]:
    """So many faults, spread over `span` seconds, in order of time.

    They overlap, but never on one target; a server and its disk count as one.

    Every kind comes at least once where there is room for all, and every kind and target can come.
    """
    dice = Random(f"schedule {seed}")
    pairs = [(kind, target) for kind in Kind for target in TARGETS[kind]]
    wanted = [(kind, dice.choice(TARGETS[kind])) for kind in dice.sample([*Kind], min(count, len(Kind)))]
    wanted += dice.choices(pairs, k=count - len(wanted))
    dice.shuffle(wanted)
    faults: list[Fault] = []
    # The one with a single target first: the others have somewhere else to go.
    for number in sorted(range(count), key=lambda number: wanted[number][0] is not Kind.DISK_FULL):
        kind, target = wanted[number]
        at = round((number + dice.random()) * span / count, 2)
        seconds = 0.0 if kind in _AT_ONCE else round(dice.uniform(_SHORTEST, _LONGEST), 1)
        struck = {fault.target for fault in faults if fault.meets(at, at + max(seconds, _SHORTEST))}
        busy = struck | _DISK_AND_SERVER if struck & _DISK_AND_SERVER else struck
        if target in busy:
            free = [pair for pair in pairs if pair[1] not in busy]
            # Of the same kind, if there is one: another target's turn is no reason to lose it.
            kind, target = dice.choice([pair for pair in free if pair[0] is kind] or free)
            seconds = 0.0 if kind in _AT_ONCE else seconds or _SHORTEST
        faults.append(Fault(at=at, kind=kind, target=target, seconds=seconds))
    return tuple(sorted(faults, key=lambda fault: fault.at))
