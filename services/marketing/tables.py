"""The marketing team's tables. Nobody else reads or writes them."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Index, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from services.shared.database import MYSQL_TABLE, NAMING, UtcDateTime


class MarketingTable(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """What the marketing team's tables have in common: metadata of their own."""


class Coupon(MarketingTable, table=True):
    """One coupon an order. Revoked and never issued, it is the tombstone of a coupon that must not come any more."""

    __tablename__ = "coupons"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = (Index("ix_coupons_owner", "user_id", "order_id"), MYSQL_TABLE)

    order_id: str = Field(primary_key=True, max_length=64)
    coupon_id: str = Field(max_length=64, unique=True)
    user_id: str = Field(max_length=128)
    coupon_kind: str = Field(max_length=32)
    used: bool = False
    issued_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
