"""Audits the running shop of this data directory: `python -m tests.audit`, or `make audit`.

Exit status: 0 every promise is kept, 1 one is broken, 2 it could not be told.
"""

import argparse
import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import structlog
from rich.console import Console
from rich.text import Text

from deploy.local import MARIADB
from deploy.mariadb import MariaDb
from deploy.stack import Stack, StackError, StackSettings, read_settings
from services.shared.process import end
from services.shared.settings import TEAMS, DatabaseSettings, Team
from tests.audit.books import Sources, SourceSilent
from tests.audit.confirm import audit_shop
from tests.audit.findings import findings_table


def sources_of(data_dir: Path, settings: DatabaseSettings, *, settled: bool, acknowledgements: Path | None) -> Sources:
    """Where the books of the shop are that runs on a data directory. Raises `StackError` where none does."""
    stack = Stack.read(data_dir)
    on_mariadb = settings.without_url if MARIADB in stack.processes else []
    # The users' passwords are kept nowhere; whoever may run the shop is its server's administrator.
    mariadb = MariaDb(binary="", data_dir=data_dir.absolute() / MARIADB, port=0)

    def url(team: Team) -> str:
        return mariadb.owner_url(f"street12_{team}") if team in on_mariadb else settings.url(team)

    return Sources(
        databases={team: url(team) for team in TEAMS},
        ledger_url=stack.urls.payments,
        temporal_address=stack.urls.temporal,
        acknowledgements=acknowledgements,
        settled=settled,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description="Audits the running shop.")
    parser.add_argument("--acknowledgements", type=Path, metavar="FILE", help="what a load client was told, and noted")
    parser.add_argument(
        "--settled", action="store_true", help="nothing is under way: an order that waits for a team is in breach, too"
    )
    options = parser.parse_args(arguments)
    out, err = Console(), Console(stderr=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # one sentence is enough
    try:
        sources = sources_of(
            read_settings(StackSettings).data_dir,
            read_settings(DatabaseSettings),
            settled=options.settled,
            acknowledgements=options.acknowledgements,
        )
        with err.status("auditing …") as status:
            verdict = asyncio.run(audit_shop(sources, lambda said: status.update(f"auditing, {said}")))
    except (StackError, SourceSilent) as error:
        err.print(Text(f"street12: {error}"), soft_wrap=True)
        return 2
    out.print(findings_table(verdict.findings))
    for kind in ("breaches", "excused"):
        for finding in verdict.findings:
            for breach in getattr(finding, kind):
                out.print(Text(f"{kind}: {finding.invariant.name}: {breach}"), soft_wrap=True)
    for breach in verdict.moving:
        out.print(Text(f"not judged, because it kept moving: {breach}"), soft_wrap=True)
    out.print("Every promise is kept." if verdict.sound else "[red]A promise is broken.[/red]")
    return 0 if verdict.sound else 1


if __name__ == "__main__":
    end(main())
