"""What a test can ask for a database, and how it opens one once more."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from deploy.mariadb import Access, MariaDb
from services.shared.database import Database
from services.shared.settings import PoolSettings, Team

GetServer = Callable[[], Awaitable[MariaDb]]
NewDatabase = Callable[[Team], Awaitable[Access]]
NewUrl = Callable[[Team], Awaitable[str]]
on_mysql = pytest.mark.parametrize("new_database", ["mysql"], indirect=True)


def reopened(database: Database, settings: PoolSettings, **address: Any) -> Database:
    """The same database with other settings, at another `host` and `port` if they are given."""
    return Database(database.engine.url.set(**address).render_as_string(hide_password=False), settings)
