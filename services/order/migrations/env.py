"""Alembic runs this file."""

from services.order.tables import OrderTable
from services.shared.migrations import run

run(OrderTable.metadata)
