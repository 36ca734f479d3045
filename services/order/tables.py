"""The order team's tables. Nobody else reads or writes them."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, CheckConstraint, Index, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from services.shared.database import MYSQL_TABLE, NAMING, UtcDateTime


class OrderTable(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """What the order team's tables have in common: metadata of their own."""


class Product(OrderTable, table=True):
    """The catalogue. `product_price` is in the currency's minor unit."""

    __tablename__ = "products"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = (CheckConstraint("product_price > 0", name="price_positive"), MYSQL_TABLE)

    product_id: str = Field(primary_key=True, max_length=64)
    product_name: str = Field(max_length=200)
    product_price: int = Field(sa_type=BigInteger)
    currency: str = Field(max_length=3)
    updated_at: datetime = Field(sa_type=UtcDateTime)


class Order(OrderTable, table=True):
    """An order as it was accepted. The row is the promise to the customer, and the inbox of the dispatcher.

    `started_at` says when its workflow was started; until then `claimed_until` is the lease of whoever tries.
    `traceparent` is the trace that the request belonged to (W3C Trace Context), where it did.
    """

    __tablename__ = "orders"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = (
        Index("ix_orders_inbox", "started_at", "claimed_until"),
        CheckConstraint("qty > 0", name="qty_positive"),
        MYSQL_TABLE,
    )

    order_id: str = Field(primary_key=True, max_length=64)
    user_id: str = Field(max_length=128)
    product_id: str = Field(max_length=64)
    product_name: str = Field(max_length=200)
    product_price: int = Field(sa_type=BigInteger)
    qty: int
    amount: int = Field(sa_type=BigInteger)
    currency: str = Field(max_length=3)
    username: str = Field(max_length=100)
    address: str = Field(max_length=300)
    phone_no: str = Field(max_length=30)
    payment_method: str = Field(max_length=64)
    order_date: datetime = Field(sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    claimed_until: datetime = Field(sa_type=UtcDateTime)
    traceparent: str | None = Field(default=None, max_length=55)


class OrderView(OrderTable, table=True):
    """The order-status view (CQRS): one row an order, written by its workflow, `version` by `version`."""

    __tablename__ = "order_views"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = (
        Index("ix_order_views_user", "user_id", "order_id"),
        Index("ix_order_views_status", "order_status", "order_id"),
        Index("ix_order_views_attention", "needs_attention", "order_id"),
        MYSQL_TABLE,
    )

    order_id: str = Field(primary_key=True, max_length=64)
    user_id: str = Field(max_length=128)
    order_status: str = Field(max_length=32)
    pay_status: str = Field(max_length=32)
    delivery_status: str = Field(max_length=32)
    cancel_reason: str | None = Field(default=None, max_length=32)
    needs_attention: bool = False
    coupon_id: str | None = Field(default=None, max_length=64)
    coupon_kind: str | None = Field(default=None, max_length=32)
    coupon_use_yn: str | None = Field(default=None, max_length=1)
    version: int = 1
    updated_at: datetime = Field(sa_type=UtcDateTime)


class OrderEvent(OrderTable, table=True):
    """The timeline: what happened to an order, without gaps."""

    __tablename__ = "order_events"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = MYSQL_TABLE

    order_id: str = Field(primary_key=True, max_length=64)
    version: int = Field(primary_key=True)
    type: str = Field(max_length=32)
    at: datetime = Field(sa_type=UtcDateTime)
    detail: dict[str, str] = Field(default_factory=dict, sa_type=JSON)


class IdempotencyKey(OrderTable, table=True):
    """Which order a caller's key stands for, and the fingerprint of the request that it came with."""

    __tablename__ = "idempotency_keys"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = (Index("ix_idempotency_keys_created", "created_at"), MYSQL_TABLE)

    user_id: str = Field(primary_key=True, max_length=128)
    idempotency_key: str = Field(primary_key=True, max_length=255)
    fingerprint: str = Field(max_length=64)
    order_id: str = Field(max_length=64)
    created_at: datetime = Field(sa_type=UtcDateTime)


class AdmissionState(OrderTable, table=True):
    """What the circuit breaker of the intake knows, one row: see `circuit.Circuit`. Made by the first who needs it."""

    __tablename__ = "admission"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = MYSQL_TABLE

    name: str = Field(primary_key=True, max_length=32)
    open_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    trial_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    trial_order_id: str | None = Field(default=None, max_length=64)
    recent: list[float] = Field(default_factory=list[float], sa_type=JSON)
    updated_at: datetime = Field(sa_type=UtcDateTime)


class Payment(OrderTable, table=True):
    """One payment an order. A row that is `Voided` with no intent is the tombstone of a charge that never began.

    `updated_at` is since when it has been in its state.
    """

    __tablename__ = "payments"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = MYSQL_TABLE

    order_id: str = Field(primary_key=True, max_length=64)
    state: str = Field(max_length=32)
    amount: int = Field(sa_type=BigInteger)
    currency: str = Field(max_length=3)
    intent_id: str | None = Field(default=None, max_length=128)
    decline_code: str | None = Field(default=None, max_length=64)
    updated_at: datetime = Field(sa_type=UtcDateTime)


class Reconciliation(OrderTable, table=True):
    """One run of the reconciliation. Without `finished_at` it is under way, or was broken off.

    `compared` counts orders; `found`, `repaired` differences; `not_compared` names the stores that were away.
    """

    __tablename__ = "reconciliations"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = MYSQL_TABLE

    reconciliation_id: str = Field(primary_key=True, max_length=64)
    started_at: datetime = Field(sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    compared: int = 0
    found: int = 0
    repaired: int = 0
    not_compared: list[str] = Field(default_factory=list[str], sa_type=JSON)


class ReconciliationDifference(OrderTable, table=True):
    """Something that a run found, numbered from 1 within it, and what became of it."""

    __tablename__ = "reconciliation_differences"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    __table_args__: ClassVar[Any] = MYSQL_TABLE

    reconciliation_id: str = Field(primary_key=True, max_length=64)
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    code: str = Field(max_length=32)
    order_id: str | None = Field(default=None, max_length=64)
    product_id: str | None = Field(default=None, max_length=64)
    detail: str = Field(max_length=300)
    outcome: str = Field(max_length=16)
    at: datetime = Field(sa_type=UtcDateTime)
