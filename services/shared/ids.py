"""Identifiers: sortable by time of creation, and saying what they name (`order_01k…`)."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from typeid import TypeID
from typeid.codecs import base32

NewId = Callable[[], str]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def new_order_id() -> str:
    """A fresh order id; later ids sort after earlier ones."""
    return str(TypeID(prefix="order"))


def first_order_id(at: datetime) -> str:
    """What sorts before every order id made at that moment or later, and behind all of earlier milliseconds."""
    milliseconds = max(0, (at - _EPOCH) // _MILLISECOND)
    return f"order_{base32.encode((milliseconds << 80).to_bytes(16))}"  # UUIDv7: 48 bits of time, then chance


def new_coupon_id() -> str:
    """A fresh coupon id."""
    return str(TypeID(prefix="coupon"))


def reconciliation_id(at: datetime, chance: int) -> str:
    """The id of a run of the reconciliation that began then; of `chance`, 80 bits tell it from others."""
    milliseconds = max(0, (at - _EPOCH) // _MILLISECOND)
    return f"reconciliation_{base32.encode((milliseconds << 80 | chance).to_bytes(16))}"
