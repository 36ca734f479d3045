"""What a field of a request may hold. Its JSON schema says just what is enforced.

The patterns mean the same in Python, ECMAScript (`u`), Rust and RE2. So a text's ends may have blanks of ASCII, where
the dialects disagree about a `$` before the last line break.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, LiteralString

from fastapi import Path
from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

HIGHEST_PRICE = 999_999_999
"""In won. 100 pieces of it are 99,999,999,900, and the payment provider takes no more than 99,999,999,999."""
MOST_MOVED = 1_000_000
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 1, 1, tzinfo=UTC)

_EDGE = r"[\t\n\r ]*"
_REFUSED = (
    r"\x00-\x1f\x7f-\x9f\u2028\u2029"  # control characters, and other ends of lines
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what changes the direction in which the rest is read
    r"\ufeff\ufdd0-\ufdef\ufffe\uffff"  # the byte order mark, and what is no character
    + "".join(chr(plane << 16 | last) for plane in range(1, 17) for last in (0xFFFE, 0xFFFF))
)
# White space but the plain blank, and what shows nothing alone (joiners, selectors, the fillers of Hangul).
_UNSEEN = (
    r"\u00a0\u00ad\u034f\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200d\u202f\u205f-\u2064\u2800\u3000\u3164"
    r"\ufe00-\ufe0f\uffa0"
)
# No two parts that follow each other begin alike: of those that do, an engine tries every way to share out the blanks.
TEXT = (
    rf"^{_EDGE}(?:[{_UNSEEN}][ {_UNSEEN}]*)?[^{_REFUSED} {_UNSEEN}]"  # the first that can be seen
    rf"[^{_REFUSED}]*(?:[\t\n\r]{_EDGE})?$"
)
# 010 and 070 have two groups of four, all others three or four digits in the first. 02 is Seoul; 031 to 064 are the
# provinces, 011 and 016 to 019 old mobiles, 0502 to 0508 numbers for life.
PHONE = (
    rf"^{_EDGE}(?:\+82[-. ]?0?|0)"
    r"(?:(10|70)[-. ]?([0-9]{4})|(1[16-9]|2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|80|50[2-8])[-. ]?([0-9]{3,4}))"
    rf"[-. ]?([0-9]{{4}}){_EDGE}$"
)
KEY = "^[ -~]*$"
"""Of an `Idempotency-Key`: printable ASCII, which every client and proxy sends on as it is."""
_DIGITS = re.compile("[1-9][0-9]{0,8}")
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[-+ ][0-9]{2}:[0-9]{2})"
)


@dataclass(frozen=True)
class _Text:
    """A text of at most `longest` characters by a pattern, as it is sent and as it is kept."""

    longest: int
    pattern: str
    kind: LiteralString
    refusal: str
    normalised: Callable[["re.Match[str]"], str]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        bounded = core_schema.str_schema(min_length=1, max_length=self.longest)
        return core_schema.no_info_after_validator_function(self._read, bounded)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}

    def _read(self, value: str) -> str:
        found = re.fullmatch(self.pattern, value)
        if found is None:
            raise PydanticCustomError(self.kind, "{refusal}", {"refusal": self.refusal})
        kept = self.normalised(found)
        if len(kept) > self.longest:  # there are characters that NFC takes apart
            raise PydanticKnownError("string_too_long", {"max_length": self.longest})
        return kept


def _text(longest: int) -> _Text:
    return _Text(
        longest,
        TEXT,
        "unreadable_text",
        "Should have something to read, and no control characters or marks of direction",
        lambda found: unicodedata.normalize("NFC", found[0].strip()),
    )


def _national(found: "re.Match[str]") -> str:
    """`010-1234-5678`, whatever stands between the groups and in front of them."""
    return f"0{found[1] or found[3]}-{found[2] or found[4]}-{found[5]}"


def _number(value: object) -> object:
    """A number that was sent as its plain digits, as the shop's first version did. What else comes is judged later."""
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else _integer(value)


def _integer(value: object) -> object:
    """`1.0` is an integer to JSON Schema, and there are languages that write one so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _whole(most: int, digits: str) -> dict[str, Any]:
    return {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": most}, {"type": "string", "pattern": digits}],
    }


def _not_zero(value: object) -> object:
    if value == 0:
        raise PydanticCustomError("zero", "Should move something")
    return _integer(value)


def _flag(value: object) -> object:
    return {"true": True, "false": False}.get(value, "") if isinstance(value, str) else value


def _moment(value: object) -> datetime:
    """A moment in UTC. One that no order can have is taken to the next that the databases can hold."""
    refusal = PydanticCustomError("datetime_offset", "Should be an RFC 3339 date-time with its offset")
    if not isinstance(value, str) or not _DATE_TIME.fullmatch(value):
        raise refusal
    try:
        # In a query, a plus that was not encoded arrives as a blank.
        at = datetime.fromisoformat(value.upper().replace(" ", "+"))
    except ValueError:
        raise refusal from None
    if at.year < EARLIEST.year:
        return EARLIEST
    return LATEST if at.year >= LATEST.year else at.astimezone(UTC)


Name = Annotated[str, _text(100)]
ProductName = Annotated[str, _text(200)]
Address = Annotated[str, _text(300)]
Code = Annotated[str, _text(64)]
Reason = Annotated[str, _text(200)]
Phone = Annotated[
    str, _Text(30, PHONE, "phone_number", "Should be a Korean phone number, such as 010-1234-5678", _national)
]
ORDER_ID = r"^[A-Za-z0-9_-]{1,64}$"
OrderId = Annotated[str, StringConstraints(pattern=ORDER_ID), Path(alias="orderId")]
ReconciliationId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$"), Path(alias="reconciliationId")]
ProductId = Annotated[Code, Path(alias="productId")]
Limit = Annotated[int, Field(strict=True, ge=1, le=100), BeforeValidator(_number)]
Qty = Annotated[Limit, WithJsonSchema(_whole(100, "^(?:[1-9][0-9]?|100)$"))]
Price = Annotated[
    int,
    Field(strict=True, ge=1, le=HIGHEST_PRICE),
    BeforeValidator(_number),
    WithJsonSchema(_whole(HIGHEST_PRICE, "^[1-9][0-9]{0,8}$")),
]
Movement = Annotated[
    int,
    Field(strict=True, ge=-MOST_MOVED, le=MOST_MOVED, json_schema_extra={"not": {"const": 0}}),
    BeforeValidator(_not_zero),
]
Flag = Annotated[bool, BeforeValidator(_flag)]
Instant = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
