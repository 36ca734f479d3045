"""Proves that a roll-out costs nothing: `python -m tests.rollout`, or `make zero-downtime`.

First with old processes that are told to end, then the same with `kill -9`, which must show that it would be noticed.
Exit status: 0 every promise was kept and the second half showed failures, 1 otherwise.
"""

import argparse
import asyncio
import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import structlog
from rich.console import Console

from deploy.apt import ProgramUnavailable
from deploy.stack import StackError
from deploy.supervisor import ChildFailed
from services.shared.process import end
from tests.audit.findings import findings_table
from tests.rollout.cluster import Kind, best_kind
from tests.rollout.deployment import NotReady
from tests.rollout.report import figures
from tests.rollout.run import Plan, broken_promises, run, unseen

_NAMED = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's exit status."""
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.rollout", description="Rolls out under load.")
    parser.add_argument("--rounds", type=int, default=usual.rounds, help=f"how often ({usual.rounds})")
    parser.add_argument("--rate", type=float, default=usual.rate, help=f"orders a second ({usual.rate:g})")
    parser.add_argument(
        "--seconds", type=float, default=usual.seconds, help=f"of orders before the first and after ({usual.seconds:g})"
    )
    parser.add_argument("--unready-seconds", type=float, default=usual.unready_seconds, help="0: end at once")
    parser.add_argument("--database", choices=["mysql", "sqlite"], help="MySQL where it can be had")
    parser.add_argument("--kill", choices=["0", "1"], help="1: only with kill -9, 0: only without (both)")
    asked = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    console = Console(width=None if sys.stdout.isatty() else 140)
    kills = (False, True) if asked.kill is None else (asked.kill == "1",)
    plans = [
        Plan(
            rounds=asked.rounds,
            rate=asked.rate,
            seconds=asked.seconds,
            unready_seconds=asked.unready_seconds,
            kill=kill,
        )
        for kill in kills
    ]
    try:
        kept = [_kept(plan, asked.database, console) for plan in plans]
    except KeyboardInterrupt:
        console.print("interrupted; nothing is left behind")
        return 130
    return 0 if all(kept) else 1


def _kept(plan: Plan, kind: Kind | None, console: Console) -> bool:
    """Whether a run showed what it must; it is told on the console, and its files stay where it did not."""

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    directory = Path(tempfile.mkdtemp(prefix="street12-rollout-"))
    try:
        wrong = asyncio.run(_run(plan, kind, directory, console))
    except asyncio.CancelledError:
        shutil.rmtree(directory)
        raise KeyboardInterrupt from None
    except (ChildFailed, NotReady, ProgramUnavailable, StackError) as error:
        wrong = [str(error)]
    if not wrong:
        shutil.rmtree(directory)
        return True
    for line in wrong[:_NAMED]:
        say(line)
    console.print(f"[bold red]{len(wrong)} broken.[/] Logs and acknowledgements are in {directory}", highlight=False)
    return False


async def _run(plan: Plan, kind: Kind | None, directory: Path, console: Console) -> list[str]:
    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    outcome = await run(plan, kind or await best_kind(), directory, say)
    console.print(figures(outcome))
    broken = broken_promises(outcome)
    if any(finding.breaches for finding in outcome.verdict.findings):
        console.print(findings_table(outcome.verdict.findings))
    if plan.kill:
        for what in outcome.told.redone[:_NAMED]:
            say(f"  {what}")
        return [*broken, *(f"{what}: this run cannot show that anything is lost" for what in unseen(outcome))]
    return broken


if __name__ == "__main__":
    end(main())
