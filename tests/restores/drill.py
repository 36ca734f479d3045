"""One restore from its opening to its verdict."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.stack import Stack
from services.order.comparison import Code, Remedy, remedy_of
from services.shared.settings import TEAMS, DatabaseSettings
from tests.audit.books import Books, Sources, read_books
from tests.audit.findings import Breach
from tests.audit.invariants import audit
from tests.e2e.shop import Shop, open_shop
from tests.restores.cast import Cast, Part, Say
from tests.restores.copies import forget_keys, restore
from tests.restores.expectations import Codes, Restore
from tests.restores.remedies import REMEDIES, hands, note_payments_first
from tests.restores.runs import Found, reconcile, until_still

SETTINGS = {
    "STREET12_MAX_PENDING_PAYMENTS": "1000",
    "STREET12_SLOW_PAYMENT_MS": "600000",
    "STREET12_CODEC_ACCEPT_PLAIN": "false",
    "STREET12_RECONCILE_MINUTES": "10080",  # no run but those that are asked for
}
WHATEVER_IS_RESTORED = frozenset(
    {
        "nobody is charged twice",
        "everything happens once",
        "a charge is the orders amount",
        "what is declined was never charged",
        "stock is the sum of its movements",
        "stock is never negative",
    }
)
"""The promises of the audit that hold at any time, before anybody has done anything."""
_OUTCOMES = {Remedy.FLAG: "flagged", Remedy.NONE: "reported"}


@dataclass
class Verdict:
    """What a restore came to. `wrong` is empty where all was as the documents promise."""

    restore: Restore
    found: list[Found] = field(default_factory=list[Found])
    """By the runs before the remedy."""
    left: list[Found] = field(default_factory=list[Found])
    """By those after it."""
    broken: list[str] = field(default_factory=list[str])
    """Promises of the audit that stay broken, as is known."""
    wrong: list[str] = field(default_factory=list[str])


async def drill(restored: Restore, cast: Cast, newest: Path, backup: Path, directory: Path, say: Say) -> Verdict:
    """Restore, open the shop, compare, do what a person is to do, compare again, and close it."""
    data_dir = directory / restored.name.replace(" ", "-")
    restore(newest, backup, restored.files, data_dir)
    verdict = Verdict(restored)
    if restored.payments_first:
        forget_keys(data_dir)
        await note_payments_first(data_dir)
    say("opening the shop")
    async with open_shop(data_dir, SETTINGS) as shop, hands(shop, cast) as person:
        for number, expected in enumerate(restored.found, start=1):
            verdict.found += await _run(shop, cast, expected, verdict, say, f"run {number}")
        say("the remedy")
        await REMEDIES[restored.name](person, verdict.found)
        for number, expected in enumerate(restored.left, start=1):
            verdict.left += await _run(shop, cast, expected, verdict, say, f"run {number} after the remedy")
        for name, breach in await _broken(shop):
            (verdict.broken if _is_known(name, breach, restored, cast) else verdict.wrong).append(f"{name}: {breach}")
        verdict.wrong += await _sent_again(shop, cast, keys_lost=restored.keys_lost)
    return verdict


async def _run(shop: Shop, cast: Cast, expected: Codes, verdict: Verdict, say: Say, which: str) -> list[Found]:
    """Once nothing has moved for a minute, look at what must hold at any time; then compare."""
    say(f"{which} of the reconciliation, once nothing has moved for a minute")
    await until_still(shop)
    broken = await _broken(shop)
    verdict.wrong += [f"before {which}: {name}: {breach}" for name, breach in broken if name in WHATEVER_IS_RESTORED]
    found = await reconcile(shop)
    say(f"{which}: {len(found)} differences")
    verdict.wrong += compare(expected, found, cast, which)
    return found


def compare(expected: Codes, found: Sequence[Found], cast: Cast, when: str) -> list[str]:
    """What was not found, and what was found and should not be, or not be dealt with in this way."""
    codes = defaultdict[str, set[str]](set)
    for one in found:
        codes[cast.part_of(one.subject)].add(one.code)
    wrong: list[str] = []
    for part in sorted({*codes, *expected}):
        wanted: Iterable[str] = expected.get(Part(part), ()) if part in list(Part) else ()
        wrong += [f"{when} did not find {code} of: {part}" for code in sorted({*wanted} - codes[part])]
        wrong += [f"{when} found {code} of: {part}" for code in sorted(codes[part] - {*wanted})]
    for one in found:
        outcome = _OUTCOMES.get(remedy_of(Code(one.code)), "repaired")
        if one.outcome != outcome:
            wrong.append(f"{when}: {one.code} of: {cast.part_of(one.subject)} is {one.outcome} ({one.detail})")
    return wrong


async def _broken(shop: Shop) -> list[tuple[str, Breach]]:
    """The promises of the audit that are broken, by name."""
    return [(one.invariant.name, breach) for one in audit(await _books(shop)) for breach in one.breaches]


def _is_known(name: str, breach: Breach, restored: Restore, cast: Cast) -> bool:
    return cast.part_of(breach.subject) in restored.unsound.get(name, ())


async def _books(shop: Shop) -> Books:
    urls, settings = Stack.read(shop.data_dir).urls, DatabaseSettings(data_dir=shop.data_dir)
    sources = Sources(
        databases={team: settings.url(team) for team in TEAMS},
        ledger_url=urls.payments,
        temporal_address=urls.temporal,
        settled=False,
    )
    await asyncio.sleep(2)  # the engine lists its workflows a little late
    return await read_books(sources)


async def _sent_again(shop: Shop, cast: Cast, *, keys_lost: bool) -> list[str]:
    """A customer sends the request of an order since the backup again, with its key: is that the same order?"""
    part = Part.NEW_DELIVERED
    again = (await shop.place(cast.wishes[part])).orderId != cast.ids[part]
    if again == keys_lost:
        return []
    return [f"a request sent again brought {'a second' if again else 'the same'} order"]
