"""Pages of lists. A cursor is opaque: a client keeps it and gives it back, and knows no more of it.

Its hash is there to catch mistakes, not thieves: whoever makes a cursor up sees no more than their own list.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Query

from services.gateway.caller import Caller
from services.gateway.fields import Limit
from services.gateway.problems import InvalidCursor

R = TypeVar("R")
_HASHED = 8
_PLACE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Paging:
    """A page of one list, as it is filtered, for one reader. What comes after order `before` is asked for.

    Raises `InvalidCursor` where the cursor is one of another list, filter or reader, or none that we gave out.
    """

    def __init__(self, limit: int, cursor: str | None, *scope: object) -> None:
        self._limit = limit
        self._scope = hashlib.sha256(json.dumps(scope, default=str).encode()).digest()[:_HASHED]
        self.before = None if cursor is None else self._place(cursor)

    @property
    def limit(self) -> int:
        """How many rows to read: one more than the page holds tells whether there is another page."""
        return self._limit + 1

    def cut(self, found: Sequence[R], place: Callable[[R], str]) -> tuple[Sequence[R], str | None]:
        """The page of what was found, and the cursor that leads on from the last place on it, if anything follows."""
        page = found[: self._limit]
        return page, self._cursor(place(page[-1])) if len(found) > self._limit else None

    def _cursor(self, place: str) -> str:
        return base64.urlsafe_b64encode(self._scope + place.encode()).decode().rstrip("=")

    def _place(self, cursor: str) -> str:
        try:
            place = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[_HASHED:].decode()
        except (binascii.Error, ValueError) as error:
            raise InvalidCursor(cursor) from error
        if not _PLACE.fullmatch(place) or self._cursor(place) != cursor:
            raise InvalidCursor(cursor)
        return place


@dataclass(frozen=True)
class Asked:
    """How much of a list a caller asks for, and from where on."""

    limit: int
    cursor: str | None

    def of(self, name: str, reader: Caller, *filters: object) -> Paging:
        """The page of the list of this name. Raises `InvalidCursor`."""
        return Paging(self.limit, self.cursor, name, reader.role, reader.user_id, *filters)


async def _asked(
    limit: Annotated[Limit, Query(description="How many at most.")] = 20,
    cursor: Annotated[
        str | None,
        Query(max_length=200, description="`nextCursor` of the page before; the filters must be the same."),
    ] = None,
) -> Asked:
    return Asked(limit, cursor)


AskedPage = Annotated[Asked, Depends(_asked)]
