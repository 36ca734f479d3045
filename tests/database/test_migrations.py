"""Each team's schema history leads from nothing to exactly what the models say, and back."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from services.delivery.tables import DeliveryTable
from services.marketing.tables import MarketingTable
from services.order.tables import OrderTable
from services.shared.migrations import downgrade, upgrade
from services.shared.settings import TEAMS, Team

NewUrl = Callable[[Team], Awaitable[str]]
METADATA: dict[Team, MetaData] = {
    "order": OrderTable.metadata,
    "delivery": DeliveryTable.metadata,
    "marketing": MarketingTable.metadata,
}


async def differences(url: str, metadata: MetaData) -> list[object]:
    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        return await connection.run_sync(compare)


async def tables(url: str) -> set[str]:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names())) - {"alembic_version"}


async def checks(url: str, metadata: MetaData) -> set[str]:
    """The names of the CHECK constraints, which the comparison does not look at."""

    def names(connection: Connection) -> set[str]:
        inspector = inspect(connection)
        return {str(check["name"]) for table in metadata.tables for check in inspector.get_check_constraints(table)}

    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        return await connection.run_sync(names)


@pytest.mark.parametrize("team", TEAMS)
async def test_the_history_leads_to_the_models_and_back(team: Team, new_url: NewUrl) -> None:
    metadata = METADATA[team]
    url = await new_url(team)
    for _ in range(2):
        await asyncio.to_thread(upgrade, url, team)
        assert await tables(url) == set(metadata.tables)
        assert await differences(url, metadata) == []
        await asyncio.to_thread(upgrade, url, team)  # again: nothing happens
        await asyncio.to_thread(downgrade, url, team, "base")
        assert await tables(url) == set()
    await asyncio.to_thread(upgrade, url, team)
    assert await differences(url, metadata) == []


async def test_the_stock_has_its_check(new_url: NewUrl) -> None:
    url = await new_url("delivery")
    await asyncio.to_thread(upgrade, url, "delivery")
    assert "ck_stock_on_hand_not_negative" in await checks(url, DeliveryTable.metadata)
