"""One run from its opening to its audit."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import httpx2
from rich.console import Console

from deploy.supervisor import Say
from tests.audit.acknowledgements import Acknowledgements
from tests.audit.books import Sources, read_books
from tests.audit.invariants import audit
from tests.faults.crowd import Crowd
from tests.faults.plan import Plan
from tests.faults.premises import Premises, database_urls, premises
from tests.faults.quiet import persons_needed, until_quiet
from tests.faults.report import Bar, Outcome, announce, progress
from tests.faults.schedule import Fault, Kind
from tests.faults.strike import NotBack, strike, until_ready
from tests.faults.tally import Struck, Tally
from tests.faults.window import Window

ACKNOWLEDGEMENTS = "acknowledgements.jsonl"
PATIENCE_SECONDS = 150.0
"""With what is still under way once everything is healed and everybody was answered."""
_LOOK_SECONDS = 0.5
_REQUEST_SECONDS = 10.0


async def run(plan: Plan, directory: Path, console: Console, *, patience: float = PATIENCE_SECONDS) -> Outcome:
    """Open a shop in a directory, do as planned, and audit it. Its data, its logs and what everybody was told stay."""
    announce(plan, console)
    with Acknowledgements(directory / ACKNOWLEDGEMENTS) as log, _logs(directory / "logs") as say:
        async with premises(directory / "shop", plan.settings, say) as open_premises:
            return await _run(plan, open_premises, log, directory, console, patience)


async def _run(
    plan: Plan, shop: Premises, log: Acknowledgements, directory: Path, console: Console, patience: float
) -> Outcome:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            httpx2.AsyncClient(
                base_url=shop.shop.urls.api, trust_env=False, timeout=_REQUEST_SECONDS, limits=httpx2.Limits()
            )
        )
        window = Window(shop.shop)
        stack.push_async_callback(window.close)
        tally = Tally()
        crowd = Crowd(http, log, tally)
        await crowd.lay_in(plan.goods)
        tally.open()
        bar = stack.enter_context(progress(plan, tally, console))
        watching = asyncio.create_task(_watch(window, tally, bar.update))
        try:
            await _under_fire(plan, shop, crowd, tally, bar)
            began = tally.now
            bar.say("everybody was answered; waiting for the last orders")
            unsettled = list(await until_quiet(window, crowd, tally, patience=patience))
            drained_within = tally.now - began
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        unsettled += persons_needed(await window.standings() or ())
        sources = Sources(
            databases=database_urls(shop.shop),
            ledger_url=shop.shop.urls.payments,
            temporal_address=shop.shop.urls.temporal,
            acknowledgements=directory / ACKNOWLEDGEMENTS,
        )
        return Outcome(
            plan=plan,
            tally=tally,
            unsettled=unsettled,
            findings=audit(await read_books(sources)),
            drained_within=drained_within,
            no_disk=shop.no_disk,
            directory=directory,
        )


async def _under_fire(plan: Plan, shop: Premises, crowd: Crowd, tally: Tally, bar: Bar) -> None:
    """Everybody runs their errands while everything that is to go wrong does; in the end all is healed."""

    async def happen(fault: Fault) -> None:
        await asyncio.sleep(fault.at - tally.now)
        if fault.kind is Kind.DISK_FULL and shop.disk is None:
            tally.left_out.append(fault)
            return
        began = tally.now
        try:
            hit = await strike(shop, fault)
        except NotBack as error:
            tally.surprises.append(str(error))
            return
        struck = Struck(fault=fault, began=began, healed=tally.now, hit=hit)
        tally.struck.append(struck)
        bar.say(str(struck))

    async with asyncio.TaskGroup() as group:
        for fault in plan.schedule:
            group.create_task(happen(fault))
        group.create_task(crowd.run(plan.errands))
    for process in shop.programs:
        try:
            await until_ready(shop, process)
        except NotBack as error:
            tally.surprises.append(str(error))


async def _watch(window: Window, tally: Tally, show: Callable[[], None]) -> None:
    """Count what has settled, until cancelled."""
    while True:
        standings = await window.standings()
        if standings is not None:
            tally.settle(sum(standing.settled for standing in standings))
        show()
        await asyncio.sleep(_LOOK_SECONDS)


@contextmanager
def _logs(directory: Path) -> Generator[Say]:
    """Takes what each process says into a file of its own."""
    directory.mkdir(parents=True)
    with ExitStack() as files:
        opened: dict[str, TextIO] = {}

        def say(tag: str, line: str) -> None:
            if tag not in opened:
                opened[tag] = files.enter_context((directory / f"{tag}.log").open("a", buffering=1))
            opened[tag].write(f"{datetime.now(UTC):%H:%M:%S.%f} {line}\n")

        yield say
