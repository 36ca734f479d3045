"""Alembic runs this file."""

from services.delivery.tables import DeliveryTable
from services.shared.migrations import run

run(DeliveryTable.metadata)
