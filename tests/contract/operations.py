"""What a caller of an earlier contract stumbles over in a new one. What is on the wire counts; names of operations and
schemas, texts, examples, tags and links do not."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from tests.contract.nodes import Change, Node
from tests.contract.schemas import Direction, Schemas

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_PROBLEM = "application/problem+json"
# Names and texts, and what is compared piece by piece. The rest must stay as it is.
_JUDGED = {
    *("tags", "summary", "description", "externalDocs", "operationId", "deprecated", "links"),
    *("parameters", "requestBody", "responses", "security", "content", "headers", "required", "schema"),
    *("name", "in", "example", "examples"),
}


def breaking_changes(earlier: Mapping[str, Any], new: Mapping[str, Any]) -> dict[Change, list[str]]:
    """Each change, and the operations that it concerns."""
    found: dict[Change, list[str]] = {}
    comparison = _Comparison(Node(earlier, "", earlier), Node(new, "", new))
    for where, change in comparison.changes():
        places = found.setdefault(change, [])
        if where not in places:
            places.append(where)
    return found


class _Comparison:
    def __init__(self, earlier: Node, new: Node) -> None:
        self._earlier, self._new = earlier, new
        self._schemas = Schemas()

    def changes(self) -> Iterator[tuple[str, Change]]:
        for key in ("servers", "webhooks"):
            if self._earlier.fields().get(key) != self._new.fields().get(key):
                yield "every operation", self._new[key].change(f"`{key}` has changed, which nobody here can judge")
        for path, item in self._earlier["paths"].each():
            for method in filter(item.__contains__, _METHODS):
                operation, now = item[method], self._new["paths"][path]
                name = f"{method.upper()} {path}"
                if method in now:
                    for change in self._operation(item, operation, now, now[method]):
                        yield name, change
                elif not operation.fields().get("deprecated"):
                    yield name, operation.change("it is gone, and the earlier contract had not marked it deprecated")

    def _operation(self, item: Node, earlier: Node, now: Node, new: Node) -> Iterator[Change]:
        yield from _unjudged(earlier, new)
        yield from self._parameters(_parameters(item, earlier), _parameters(now, new))
        yield from self._body(earlier, new)
        yield from self._answers(earlier["responses"], new["responses"])
        yield from self._security(earlier, new)

    def _parameters(self, earlier: dict[str, Node], new: dict[str, Node]) -> Iterator[Change]:
        for name, parameter in earlier.items():
            if name not in new:
                if not parameter.fields().get("deprecated"):
                    yield parameter.change(f"the {name} is no longer read, and had not been marked deprecated")
                continue
            yield from _unjudged(parameter, new[name])
            if _must(new[name]) and not _must(parameter):
                yield new[name].change(f"the {name} must be sent now")
            yield from self._schemas.changes(parameter["schema"], new[name]["schema"], Direction.REQUEST)
        for name, parameter in new.items():
            if name not in earlier and _must(parameter):
                yield parameter.change(f"the {name} is new and must be sent")

    def _body(self, earlier: Node, new: Node) -> Iterator[Change]:
        had, has = earlier["requestBody"], new["requestBody"]
        if "requestBody" in earlier and "requestBody" not in new:
            yield had.change("the body is no longer read")
            return
        if _must(has) and not _must(had):
            yield has.change("a body must be sent now")
        yield from self._content(had["content"], has["content"], Direction.REQUEST)

    def _answers(self, earlier: Node, new: Node) -> Iterator[Change]:
        for status, answer in earlier.each():
            if status not in new:
                yield answer.change(f"{status} is no longer answered")
                continue
            yield from self._headers(answer["headers"], new[status]["headers"])
            yield from self._content(answer["content"], new[status]["content"], Direction.ANSWER)
        for status, answer in new.each():
            # Of an error that a caller does not know, the class says enough (RFC 9110, section 15).
            if status not in earlier and status[0] not in "45":
                yield answer.change(f"{status} may be answered now, which callers do not know")

    def _headers(self, earlier: Node, new: Node) -> Iterator[Change]:
        now = {name.lower(): header for name, header in new.each()}
        for name, header in earlier.each():
            if (found := now.get(name.lower())) is None:
                if not header.fields().get("deprecated"):
                    yield header.change(f"the header {name} is no longer answered, and had not been marked deprecated")
                continue
            yield from _unjudged(header, found)
            if _must(header) and not _must(found):
                yield found.change(f"the header {name} may be missing now")
            yield from self._schemas.changes(header["schema"], found["schema"], Direction.ANSWER)

    def _content(self, earlier: Node, new: Node, direction: Direction) -> Iterator[Change]:
        for kind, media in earlier.each():
            if kind not in new:
                verb = "is no longer taken" if direction is Direction.REQUEST else "is no longer answered"
                yield media.change(f"{kind} {verb}")
                continue
            yield from _unjudged(media, new[kind])
            yield from self._schemas.changes(media["schema"], new[kind]["schema"], direction)
            if kind == _PROBLEM:  # its examples are the codes that callers go by (docs/errors.md)
                for code in media["examples"].fields().keys() - new[kind]["examples"].fields().keys():
                    yield media["examples"].change(f"the problem {code} is no longer answered")

    def _security(self, earlier: Node, new: Node) -> Iterator[Change]:
        allowed = _alternatives(self._new, new)
        for before in _alternatives(self._earlier, earlier):
            if not any(
                now.keys() <= before.keys() and all(set(now[s]) <= set(before[s]) for s in now) for now in allowed
            ):
                yield new.change(f"who comes with {' and '.join(before) or 'no token'} is refused now")
            for name in before:
                was, now = (node["components"]["securitySchemes"][name] for node in (self._earlier, self._new))
                texts = ("description", "bearerFormat")
                if {**was.fields(), **dict.fromkeys(texts)} != {**now.fields(), **dict.fromkeys(texts)}:
                    yield now.change("what callers have to come with has changed")


def _unjudged(earlier: Node, new: Node) -> Iterator[Change]:
    for key in sorted((earlier.fields().keys() | new.fields().keys()) - _JUDGED):
        if earlier.fields().get(key) != new.fields().get(key):
            yield new.change(f"`{key}` has changed, which nobody here can judge")


def _parameters(item: Node, operation: Node) -> dict[str, Node]:
    """The parameters of an operation and of its path, by what a caller calls them."""
    found: dict[str, Node] = {}
    for node in (item, operation):
        for index in range(len(node.fields().get("parameters", ()))):
            parameter = node.at("parameters", index)
            kind, name = parameter.value["in"], parameter.value["name"]
            found[f"{kind} parameter {name.lower() if kind == 'header' else name}"] = parameter
    return found


def _alternatives(document: Node, operation: Node) -> list[dict[str, list[str]]]:
    """What a caller may come with; an empty one is no token."""
    named = operation.fields().get("security", document.fields().get("security", []))
    return cast("list[dict[str, list[str]]]", named) or [{}]


def _must(node: Node) -> bool:
    return bool(node.fields().get("required", False))
