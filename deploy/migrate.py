"""Brings each team's database up to its newest migration: `python -m deploy.migrate [--team TEAM] [--demo]`."""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from alembic.util import CommandError
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from deploy.seed import seed
from deploy.stack import StackError, read_settings
from services.shared.errors import DatabaseUnavailable, ShopError
from services.shared.migrations import MigrationRunning, upgrade
from services.shared.settings import TEAMS, DatabaseSettings, Team


def migrate(team: Team, settings: DatabaseSettings) -> None:
    """Bring one team's database up to date. Raises `StackError` in one sentence."""
    began = time.monotonic()
    try:
        address = make_url(settings.url(team))
        if address.get_backend_name() == "sqlite" and address.database:
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        upgrade(settings.url(team), team)
    except (CommandError, MigrationRunning, DatabaseUnavailable, SQLAlchemyError, OSError, ImportError) as error:
        why = str(error.orig if isinstance(error, DBAPIError) else error).splitlines()[0]
        where = make_url(settings.url(team)).render_as_string(hide_password=True)
        raise StackError(f"The {team} team's database ({where}) cannot be brought up to date: {why}") from None
    print(f"The {team} team's database is up to date ({time.monotonic() - began:.1f} s)", flush=True)


def main() -> int:
    """The process's exit status: 0 when every database is up to date, 1 when one is not."""
    parser = argparse.ArgumentParser(prog="python -m deploy.migrate", description=__doc__)
    parser.add_argument("--team", choices=(*TEAMS, "all"), default="all", help="whose database (all)")
    parser.add_argument("--demo", action="store_true", help="then put in what the demo catalogue lacks")
    arguments = parser.parse_args()
    try:
        settings = read_settings(DatabaseSettings)
        for team in TEAMS if arguments.team == "all" else (arguments.team,):
            migrate(team, settings)
        if arguments.demo:
            asyncio.run(seed(settings))
    except (StackError, ShopError) as error:
        print(f"street12: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
