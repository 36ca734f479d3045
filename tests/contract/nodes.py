"""Places in an OpenAPI document: by JSON pointer (RFC 6901), with references followed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast


@dataclass(frozen=True)
class Change:
    """What a caller of the earlier contract would stumble over."""

    pointer: str
    """Where: in the new document, or in the earlier one where it is gone from the new one."""
    sentence: str

    def __str__(self) -> str:
        return f"{self.pointer}: {self.sentence}"


@dataclass(frozen=True)
class Node:
    """A place in a document and what stands there."""

    document: Mapping[str, Any]
    pointer: str
    value: Any

    def __contains__(self, key: str) -> bool:
        return key in self.fields()

    def __getitem__(self, key: str) -> "Node":
        """What stands under a key, its reference followed; where nothing does, an empty object."""
        pointer = f"{self.pointer}/{key.replace('~', '~0').replace('/', '~1')}"
        return Node(self.document, pointer, self.fields().get(key, {})).followed()

    def fields(self) -> dict[str, Any]:
        """What stands here, where that is an object; none otherwise."""
        value: Any = self.value
        return cast("dict[str, Any]", value) if isinstance(value, dict) else {}

    def each(self) -> Iterator[tuple[str, "Node"]]:
        """The places right below."""
        return ((key, self[key]) for key in self.fields())

    def at(self, key: str, index: int) -> "Node":
        """One of a list's places, its reference followed."""
        return Node(self.document, f"{self.pointer}/{key}/{index}", self.value[key][index]).followed()

    def followed(self) -> "Node":
        """Where a reference leads, with what stands beside it (OpenAPI 3.1) on top; a place without one as it is."""
        found = self
        while "$ref" in found:
            beside = {key: value for key, value in found.fields().items() if key != "$ref"}
            pointer: str = found.value["$ref"].removeprefix("#")
            target: Any = self.document
            for key in pointer.split("/")[1:]:
                target = target[key.replace("~1", "/").replace("~0", "~")]
            found = Node(self.document, pointer, {**target, **beside})
        return found

    def with_value(self, value: Any) -> "Node":
        """The same place, as if this stood there."""
        return replace(self, value=value)

    def change(self, sentence: str) -> Change:
        """Tell of this place."""
        return Change(self.pointer or "/", sentence)
