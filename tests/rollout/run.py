"""One run: a shop is opened, customers order, everything that the shop deploys is replaced again and again; then what
was promised is held against what is there.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.audit.acknowledgements import Acknowledgements
from tests.audit.books import Sources
from tests.audit.confirm import Verdict, audit_shop
from tests.faults.premises import database_urls
from tests.faults.quiet import persons_needed
from tests.faults.window import Standing, Window
from tests.rollout.cluster import UNREADY_SECONDS, Cluster, Kind, cluster
from tests.rollout.customers import Customers, Request
from tests.rollout.deployment import Replaced
from tests.rollout.histories import Told, read_histories
from workflows.client import connect
from workflows.codec import history_codec

PATIENCE_SECONDS = 90.0
"""With orders none of which gets on."""
_LOOK_SECONDS = 1.0
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run does."""

    rounds: int = 3
    """How often everything is replaced."""
    rate: float = 10.0
    """Orders a second."""
    seconds: float = 10.0
    """How long customers order before the first roll-out, and after the last."""
    kill: bool = False
    """Whether old processes are killed instead of told to end."""
    unready_seconds: float = UNREADY_SECONDS

    @property
    def how(self) -> signal.Signals:
        """What an old process is sent."""
        return signal.SIGKILL if self.kill else signal.SIGTERM


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run showed. Times are on the event loop's clock, but for the histories', which are seconds since 1970."""

    plan: Plan
    kind: Kind
    requests: Sequence[Request]
    orders: int
    """How many were asked for, each by a key of its own."""
    unanswered: Sequence[str]
    """The keys of those who were never answered."""
    standings: Sequence[Standing]
    replaced: Sequence[Replaced]
    wall: float
    """What to add to a time on the event loop's clock to have seconds since 1970."""
    settled_within: float
    """Seconds from the last answer until nothing was under way any more."""
    told: Told
    verdict: Verdict

    @property
    def began(self) -> float:
        """When the first new process was started."""
        return min(one.began for one in self.replaced)

    @property
    def ended(self) -> float:
        """When the last old process had ended."""
        return max(one.ended for one in self.replaced)


async def run(plan: Plan, kind: Kind, directory: Path, say: Say) -> Outcome:
    """Do as planned. What everybody was told, and the logs, stay in the directory."""
    acknowledgements = directory / "acknowledgements.jsonl"
    with Acknowledgements(acknowledgements) as log:
        say("opening …")
        async with cluster(kind, directory, unready_seconds=plan.unready_seconds) as shop:
            customers = Customers(shop.http, log)
            replaced = await _roll(plan, shop, customers, say)
            loop = asyncio.get_running_loop()
            answered = loop.time()
            standings = await _settled(shop, customers, say)
            settled_within = loop.time() - answered
            say("reading what the engine kept …")
            client = await connect(codec=history_codec(shop.stage.shop.codec))
            told = await read_histories(client)
            sources = Sources(
                databases=database_urls(shop.stage.shop),
                ledger_url=shop.stage.shop.urls.payments,
                temporal_address=shop.stage.shop.urls.temporal,
                acknowledgements=acknowledgements,
                settled=True,
            )
            return Outcome(
                plan=plan,
                kind=kind,
                requests=customers.requests,
                orders=len(customers.orders) + len(customers.unanswered),
                unanswered=sorted(customers.unanswered),
                standings=standings,
                replaced=replaced,
                wall=time.time() - loop.time(),
                settled_within=settled_within,
                told=told,
                verdict=await audit_shop(sources, lambda said: say(f"auditing, {said}")),
            )


async def _roll(plan: Plan, shop: Cluster, customers: Customers, say: Say) -> list[Replaced]:
    """Replace everything so many times while customers order; returns when everybody was answered."""
    enough, replaced = asyncio.Event(), list[Replaced]()
    async with asyncio.TaskGroup() as group:
        group.create_task(customers.order(plan.rate, enough))
        await asyncio.sleep(plan.seconds)
        for turn in range(1, plan.rounds + 1):
            for deployment in (*shop.workers, shop.api):  # workers first: README.md
                done = await deployment.roll(str(turn), plan.how)
                replaced += done
                took = ", ".join(f"{one.took:.1f} s" for one in done)
                say(
                    f"round {turn} of {plan.rounds}: {deployment.name} is replaced, the old ended within {took};"
                    f" {len(customers.requests)} requests, {len(customers.failures)} failed"
                )
        await asyncio.sleep(plan.seconds)
        enough.set()
    return replaced


async def _settled(shop: Cluster, customers: Customers, say: Say) -> Sequence[Standing]:
    """Wait until every order has come to an end or to its carrier, for as long as any gets on; where they all stand."""
    clock = asyncio.get_running_loop().time
    window = Window(shop.stage.shop)
    settled, since = -1, clock()
    try:
        while True:
            standings = await window.standings() or ()
            now = sum(standing.settled for standing in standings)
            if now > settled:
                say(f"{now} of {len(standings)} orders are settled")
                settled, since = now, clock()
            missing = set(customers.orders.values()) - {standing.order_id for standing in standings}
            if (now == len(standings) and not missing) or clock() - since > PATIENCE_SECONDS:
                return standings
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await window.close()


def broken_promises(outcome: Outcome) -> list[str]:
    """Each promise that was not kept, in words. Of a run that kills, those alone that hold for it, too."""
    standings, told = outcome.standings, outcome.told
    broken = [
        *(f"{key} was never answered" for key in outcome.unanswered),
        *(f"{one.order_id} reads {one.status}" for one in standings if not one.settled),
        *persons_needed(standings),
        *(f"{finding.invariant.name}: {breach}" for finding in outcome.verdict.findings for breach in finding.breaches),
    ]
    if len(standings) != outcome.orders or told.orders != outcome.orders:
        broken.append(f"{outcome.orders} orders were asked for, {len(standings)} stored, {told.orders} begun")
    if outcome.plan.kill:
        return broken
    return [
        *broken,
        *(f"a request failed: {request.failure}" for request in outcome.requests if request.failure),
        *(f"redone: {activity}" for activity in told.redone),
        *(f"failed: {task}" for task in told.failed),
        *(f"{one.name} ended with {one.status} after {one.took:.1f} s" for one in outcome.replaced if one.status),
    ]


def unseen(outcome: Outcome) -> list[str]:
    """What a run that kills must show, and this one did not: then a run that does not kill proves nothing."""
    seen = {
        "no request failed": any(request.failure for request in outcome.requests),
        "no activity was redone": bool(outcome.told.redone),
    }
    return [what for what, shown in seen.items() if not shown]
