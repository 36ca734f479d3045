"""Alembic runs this file."""

from services.marketing.tables import MarketingTable
from services.shared.migrations import run

run(MarketingTable.metadata)
