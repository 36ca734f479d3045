"""Conditional requests (RFC 9110, 13.1): the entity tags that a caller names, and whether one is current."""

import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Header

from services.gateway.problems import BadRequest

ANY = "*"
# An element of a list, which may be empty, and the comma behind it. A tag may hold commas itself, and what is outside
# of ASCII; nothing in it is escaped.
_ELEMENT = re.compile(r'[ \t]*+((?:W/)?"[!\x23-\x7e\x80-\xff]*+")?[ \t]*+(?:,|\Z)')


def entity_tags(lines: Sequence[str]) -> Sequence[str]:
    """The tags that a header's lines name, as they are written; `ANY` alone for whatever there is.

    Raises `BadRequest` where they are not a list of tags.
    """
    listed = ",".join(lines)
    if listed.strip(" \t") == ANY:
        return [ANY]
    tags: list[str] = []
    at = 0
    while at < len(listed):
        found = _ELEMENT.match(listed, at)
        if found is None:
            raise BadRequest("not a list of entity tags")
        tags += found.groups(default="")
        at = found.end()
    return [tag for tag in tags if tag]


def is_known(if_none_match: Sequence[str] | None, current: str) -> bool:
    """Whether the caller has what is current, told apart weakly. A header that cannot be read names nothing."""
    try:
        tags = entity_tags(if_none_match or [])
    except BadRequest:
        return False
    return ANY in tags or current in {tag.removeprefix("W/") for tag in tags}


IfNoneMatch = Annotated[list[str] | None, Header()]
"""A route's dependency on the lines that name what its caller has, for `is_known`."""


async def _if_match(if_match: Annotated[list[str] | None, Header()] = None) -> Sequence[str] | None:
    return None if if_match is None else entity_tags(if_match)


IfMatch = Annotated[Sequence[str] | None, Depends(_if_match)]
"""A route's dependency on the tags that its caller depends on: to be compared strongly, so no weak one ever matches."""
