"""Whether every value that one schema allows is allowed by another.

That is all there is to it, in both directions: what callers may send under the earlier contract must be allowed by
the new one, and what the new one may answer must have been allowed by the earlier. Where this cannot be shown, it is a
change to look at: patterns are not understood, only compared.
"""

import re
from enum import Enum
from typing import Any, cast

from tests.contract.nodes import Change, Node

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_SAME = ("pattern", "format", "uniqueItems", "multipleOf")
_STRUCTURE = (
    "type",
    "enum",
    "const",
    "anyOf",
    "oneOf",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "default",
)
_SAID_ONLY = (
    "title",
    "description",
    "examples",
    "example",
    "deprecated",
    "$comment",
)  # for people: nothing on the wire
_KNOWN = {*_LOWER, *_UPPER, *_SAME, *_STRUCTURE, *_SAID_ONLY}
_NAMES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
    list: "array",
    dict: "object",
}


class Direction(Enum):
    """Who sends it."""

    REQUEST = "callers who send it are refused, or misunderstood"
    ANSWER = "callers do not know it"


class Schemas:
    """Compares schemas of an earlier contract with those of a new one. One to a pair of documents: it remembers."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, Direction, str], list[Change]] = {}

    def changes(self, earlier: Node, new: Node, direction: Direction) -> list[Change]:
        """What callers of the earlier one stumble over."""
        key = (earlier.pointer, new.pointer, direction, repr((earlier.value, new.value)))
        if key not in self._known:
            self._known[key] = []  # a schema that holds itself: it is as good as the rest of it
            self._known[key] = self._compare(earlier, new, direction)
        return self._known[key]

    def _compare(self, earlier: Node, new: Node, direction: Direction) -> list[Change]:
        if bool in map(type, (earlier.value, new.value)):
            return [] if earlier.value == new.value else [new.change("it has changed, which nobody here can judge")]
        inner, outer = (earlier, new) if direction is Direction.REQUEST else (new, earlier)
        found: list[Change] = []
        for one in _branches(inner):
            fits = [other for other in _branches(outer) if _kinds(one) & _kinds(other)]
            if not fits:
                verb = "is no longer taken" if direction is Direction.REQUEST else "may be answered now"
                found.append(new.change(f"{' or '.join(sorted(_kinds(one)))} {verb}: {direction.value}"))
                continue
            tries = [self._alike(*_in_time(one, other, direction), direction) for other in fits]
            found += min(tries, key=len)
        if (
            direction is Direction.REQUEST
            and "default" in earlier
            and earlier.value["default"] != new.fields().get("default")
        ):
            found.append(new.change("what leaving it out means has changed"))
        return found

    def _alike(self, earlier: Node, new: Node, direction: Direction) -> list[Change]:
        """Of schemas without alternatives."""
        inner, outer = (earlier, new) if direction is Direction.REQUEST else (new, earlier)
        found: list[Change] = []

        def differs(keyword: str) -> None:
            was, now = (node.fields().get(keyword, "not there") for node in (earlier, new))
            found.append(new.change(f"`{keyword}` was {_short(was)}, now {_short(now)}: {direction.value}"))

        for keyword in sorted((earlier.fields().keys() | new.fields().keys()) - _KNOWN):
            if earlier.fields().get(keyword) != new.fields().get(keyword):
                found.append(new.change(f"`{keyword}` has changed, which nobody here can judge"))
        if (values := _values(inner)) is not None:
            allowed = _values(outer)
            strange = [one for one in values if (one not in allowed if allowed is not None else not _takes(outer, one))]
            if strange:
                what = ", ".join(map(_short, strange))
                found.append(new.change(f"{what}: only one contract allows it, and {direction.value}"))
            return found
        if _values(outer) is not None:
            differs("enum" if "enum" in outer else "const")
        if not _kinds(inner) <= _kinds(outer):
            differs("type")
        for keyword in outer.fields():
            limit, own = outer.value[keyword], inner.fields().get(keyword)
            if (
                (keyword in _LOWER and (own is None or own < limit))
                or (keyword in _UPPER and (own is None or own > limit))
                or (keyword in _SAME and own != limit and limit is not False)
            ):
                differs(keyword)
        if "items" in outer:
            found += self.changes(earlier["items"], new["items"], direction)
        return found + self._object(earlier, new, direction)

    def _object(self, earlier: Node, new: Node, direction: Direction) -> list[Change]:
        found: list[Change] = []
        had, has = earlier["properties"], new["properties"]
        gone = {name for name in had.fields() if name not in has}
        for name in sorted(gone):
            if not had[name].fields().get("deprecated"):
                verb = "is no longer read" if direction is Direction.REQUEST else "is no longer answered"
                found.append(
                    had[name].change(f"`{name}` {verb}, and the earlier contract had not marked it deprecated")
                )
        for name, schema in had.each():
            if name not in gone:
                found += self.changes(schema, has[name], direction)
        must_before, must_now = _required(earlier), _required(new)
        if direction is Direction.REQUEST:
            found += [new.change(f"`{name}` must be sent now") for name in sorted(must_now - must_before)]
        else:
            optional = sorted(must_before - must_now - gone)
            found += [new.change(f"`{name}` may be missing from the answer now") for name in optional]
        return found + self._others(earlier, new, direction)

    def _others(self, earlier: Node, new: Node, direction: Direction) -> list[Change]:
        """Of fields without a name. Whoever reads an answer passes over new ones (docs/changing-the-api.md)."""
        before, now = (node.fields().get("additionalProperties", True) for node in (earlier, new))
        if isinstance(before, dict) and isinstance(now, dict):
            name = "additionalProperties"
            return self.changes(earlier[name], new[name], direction)
        if direction is Direction.REQUEST and before is not False and now is not True:
            return [new.change("fields that the contract does not name are refused now")] if before != now else []
        if direction is Direction.ANSWER and isinstance(before, dict) and now is not False:
            return [new.change("fields without a name may hold anything now")]
        return []


def _in_time(inner: Node, outer: Node, direction: Direction) -> tuple[Node, Node]:
    """The earlier one first."""
    return (inner, outer) if direction is Direction.REQUEST else (outer, inner)


def _branches(node: Node) -> list[Node]:
    """The alternatives of a schema, each with what stands beside them; itself where there are none."""
    for keyword in ("anyOf", "oneOf"):
        if keyword in node:
            beside = {key: value for key, value in node.value.items() if key not in (keyword, *_SAID_ONLY, "default")}
            each = [node.at(keyword, index) for index in range(len(node.value[keyword]))]
            return [found for one in each for found in _branches(one.with_value({**beside, **one.fields()}))]
    if isinstance(kinds := node.fields().get("type"), list):
        return [node.with_value({**node.value, "type": kind}) for kind in cast("list[str]", kinds)]
    return [node]


def _kinds(node: Node) -> set[str]:
    """What a value can be. A number may be an integer."""
    if "type" in node:
        kinds = {node.value["type"]}
    elif (values := _values(node)) is not None:
        kinds = {_NAMES[type(one)] for one in values}
    else:
        return set(_NAMES.values())
    return kinds | {"integer"} if "number" in kinds else kinds


def _values(node: Node) -> list[Any] | None:
    """The only values that are allowed; nothing where there are others."""
    if "const" in node:
        return [node.value["const"]]
    return node.fields().get("enum")


def _takes(node: Node, value: Any) -> bool:
    """Whether a schema without alternatives allows a plain value."""
    fields = node.fields()
    size = len(value) if isinstance(value, str) else value
    lower, upper = ("minLength", "maxLength") if isinstance(value, str) else ("minimum", "maximum")
    return (
        _NAMES[type(value)] in _kinds(node)
        and (lower not in fields or fields[lower] <= size)
        and (upper not in fields or fields[upper] >= size)
        and ("pattern" not in fields or not isinstance(value, str) or re.search(fields["pattern"], value) is not None)
    )


def _required(node: Node) -> set[str]:
    return set(node.fields().get("required", ()))


def _short(value: Any) -> str:
    text = f"{value}"
    return text if len(text) <= 60 else text[:57] + "…"
