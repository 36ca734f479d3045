"""The delivery team's tables. Nobody else reads or writes them."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Index, MetaData, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from services.shared.database import MYSQL_TABLE, NAMING, UtcDateTime


class DeliveryTable(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """What the delivery team's tables have in common: metadata of their own."""


class Stock(DeliveryTable, table=True):
    """How many pieces of a product lie in the warehouse; always the sum of its movements."""

    __tablename__ = "stock"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = (CheckConstraint("on_hand >= 0", name="on_hand_not_negative"), MYSQL_TABLE)

    product_id: str = Field(primary_key=True, max_length=64)
    on_hand: int
    updated_at: datetime = Field(sa_type=UtcDateTime)


class StockMovement(DeliveryTable, table=True):
    """One change of stock. `reference` is the order's id, or the operator's key; each kind happens once for it.

    A sale of 0 pieces is the tombstone of a sale that never happened.
    """

    __tablename__ = "stock_movements"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("reference", "kind", name="uq_stock_movements_reference_kind"),
        Index("ix_stock_movements_product", "product_id"),
        MYSQL_TABLE,
    )

    movement_id: int | None = Field(default=None, primary_key=True)
    reference: str = Field(max_length=128)
    kind: str = Field(max_length=16)
    product_id: str = Field(max_length=64)
    qty: int
    reason: str = Field(max_length=200)
    at: datetime = Field(sa_type=UtcDateTime)


class Delivery(DeliveryTable, table=True):
    """One delivery an order. A row that is `Canceled` and never started is the tombstone of one that never began."""

    __tablename__ = "deliveries"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = MYSQL_TABLE

    order_id: str = Field(primary_key=True, max_length=64)
    product_id: str = Field(max_length=64)
    qty: int
    state: str = Field(max_length=16)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)
