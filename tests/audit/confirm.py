"""Looking again at what seems wrong, because a shop cannot be read at one moment.

An order that is just moving has been paid and is not noted as paid; the engine lists its workflows a little late. So a
breach counts once it was found in three readings in a row, word for word, while its order did not move. What only later
readings find is left to the next audit: in a busy shop some order is always just moving. In a shop that is said to be
settled it is followed, too, and whatever is left in the last reading counts.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from tests.audit.books import Books, Sources, read_books
from tests.audit.findings import Breach, Finding
from tests.audit.invariants import audit

READINGS = 10
_IN_A_ROW = 3
_PAUSE_SECONDS = 1.0

Seen = tuple[str, Breach, object]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the invariants' checks found in the last reading: of breaches, those that are certain.

    `moving` are the others, which would not stand still for three readings.
    """

    findings: Sequence[Finding]
    moving: Sequence[Breach]

    @property
    def sound(self) -> bool:
        """Whether every promise is kept."""
        return not any(finding.breaches for finding in self.findings)


async def audit_shop(sources: Sources, say: Say = lambda _: None) -> Verdict:
    """Read a shop until what seems wrong is certain or gone, and say how that goes on. Raises `SourceSilent`."""
    return await confirmed(lambda: read_books(sources), lambda: asyncio.sleep(_PAUSE_SECONDS), say)


async def confirmed(
    read: Callable[[], Awaitable[Books]], pause: Callable[[], Awaitable[None]], say: Say = lambda _: None
) -> Verdict:
    """The same of whatever is read."""
    streaks: dict[Seen, int] = {}
    followed: set[tuple[str, str]] = set()
    reading = 0
    while True:
        reading += 1
        say(f"reading {reading} …" + (f" ({len(streaks)} to look at again)" if streaks else ""))
        books = await read()
        findings = audit(books)
        seen = _seen(findings, books)
        if reading == 1 or books.settled:
            followed |= {(name, breach.subject) for name, breach, _ in seen}
        streaks = {one: streaks.get(one, 0) + 1 for one in seen if (one[0], one[1].subject) in followed}
        enough = 1 if books.settled and reading == READINGS else _IN_A_ROW
        certain = {(name, breach) for (name, breach, _), streak in streaks.items() if streak >= enough}
        moving = [breach for name, breach, _ in streaks if (name, breach) not in certain]
        if not moving or reading == READINGS:
            break
        await pause()
    return Verdict(
        findings=[
            replace(one, breaches=[breach for breach in one.breaches if (one.invariant.name, breach) in certain])
            for one in findings
        ],
        moving=moving,
    )


def _seen(findings: Sequence[Finding], books: Books) -> list[Seen]:
    """Each breach, and where its order stood."""
    return [
        (finding.invariant.name, breach, case.position if (case := books.cases.get(breach.subject)) else None)
        for finding in findings
        for breach in finding.breaches
    ]
