"""`make faults`, with `SEED=`, `TIER=`, `ORDERS=`, `FAULTS=`. Exit status 1 when a promise was broken."""

import argparse
import asyncio
import logging
import secrets
import shutil
import signal
import tempfile
from pathlib import Path

import structlog
from rich.console import Console

from deploy.stack import StackError
from deploy.supervisor import ChildFailed
from services.shared.process import end
from tests.faults.plan import TIERS, Plan
from tests.faults.report import show
from tests.faults.run import PATIENCE_SECONDS, run


def main() -> int:
    """The process's exit status: 0 when all promises were kept, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Hit the shop, and audit it.")
    parser.add_argument("--seed", type=int, help="repeats a run; without it, another one each time")
    parser.add_argument("--tier", choices=TIERS, default="long")
    parser.add_argument("--orders", type=int, help="instead of the tier's")
    parser.add_argument("--faults", type=int, help="instead of the tier's")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_SECONDS, help="seconds that the last orders have in the end"
    )
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    plan = Plan.of(seed, options.tier, orders=options.orders, faults=options.faults)
    # What the harness's own look at the database meets is part of the game, and in nobody's log.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    console = Console()
    directory = Path(tempfile.mkdtemp(prefix="street12-faults-"))
    try:
        kept = asyncio.run(_run(plan, directory, console, options.patience))
    except (asyncio.CancelledError, KeyboardInterrupt):
        shutil.rmtree(directory)
        console.print("interrupted; nothing is left behind")
        return 130
    except (ChildFailed, StackError) as error:
        console.print(f"The shop did not open: {error}\nIts logs are in {directory}", highlight=False, markup=False)
        return 1
    except BaseException:
        console.print(f"The run broke off. Data, logs and acknowledgements are in {directory}", highlight=False)
        raise
    if not kept:
        console.print(f"Data, logs and acknowledgements are in {directory}; again: {plan.command}", highlight=False)
        return 1
    shutil.rmtree(directory)
    return 0


async def _run(plan: Plan, directory: Path, console: Console, patience: float) -> bool:
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    outcome = await run(plan, directory, console, patience=patience)
    show(outcome, console)
    return outcome.kept and outcome.complete


if __name__ == "__main__":
    end(main())
