"""Opaque places in a list: a client keeps them and gives them back, and knows no more of them."""

import base64
import binascii

from services.gateway.problems import InvalidCursor


def encode(place: str) -> str:
    """The cursor for a place."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def decode(cursor: str | None) -> str | None:
    """The place that a cursor stands for. Raises `InvalidCursor`."""
    if cursor is None:
        return None
    try:
        place = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor(cursor) from error
    if not place.startswith("order_"):
        raise InvalidCursor(cursor)
    return place
