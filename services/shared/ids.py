"""Identifiers: sortable by time of creation, and saying what they name (`order_01k…`)."""

from collections.abc import Callable

from typeid import TypeID

NewId = Callable[[], str]


def new_order_id() -> str:
    """A fresh order id; later ids sort after earlier ones."""
    return str(TypeID(prefix="order"))


def new_coupon_id() -> str:
    """A fresh coupon id."""
    return str(TypeID(prefix="coupon"))
