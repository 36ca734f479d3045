"""The OpenAPI document: what FastAPI knows of the routes, and what all of them have in common."""

from collections import defaultdict
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field
from pydantic.alias_generators import to_camel

from services.gateway.operations import PROBES
from services.gateway.problems import PROBLEM, problem_document
from services.gateway.wording import WORDING

Responses = dict[int | str, dict[str, Any]]
_ABOUT = """The orders of 12번가. An order that was answered with any `2xx` is never lost.

Send `Authorization: Bearer …`; without it there are the catalogue and health alone. Errors are problem documents
(RFC 9457): go by `code` and `status`. After a `408`, `429`, `500` or `503`, or after no answer, the same request can be
sent again, an order with the same `Idempotency-Key`: it is placed once."""
_EVERYWHERE = ("invalid-request", "not-acceptable", "internal-error", "overloaded", "request-timeout", "unavailable")
_BUT_PROBES = ("too-many-requests", "database-unavailable")
_WITH_A_TOKEN = ("bad-request", "unauthorized", "invalid-token", "forbidden", "keys-unavailable")
_WITH_A_BODY = ("bad-request", "payload-too-large", "unsupported-media-type")
_HEADERS: dict[str, tuple[str, Any]] = {
    "ETag": ("The version that this is, for If-None-Match and If-Match.", '"v5"'),
    "Idempotent-Replayed": ("`true` where the key had brought this order before.", "true"),
    "Location": ("Where the order can be read.", "/orders/order_01m85pz87kexgtzpf376002kyv"),
    "Deprecation": ("Since when this name is not to be used any more (RFC 9745).", "@1795478400"),
    "Link": ("What to use in its place.", '</orders>; rel="successor-version"'),
    "Preference-Applied": ("`wait=N` where the answer waited for the payment.", "wait=10"),
    "Retry-After": ("In how many seconds to come back.", 2),
    "WWW-Authenticate": ("What is asked for (RFC 6750).", 'Bearer realm="street12"'),
    "X-Request-Id": ("The caller's own id of the request, or a new one.", "7d0f5c2e"),
}
_ALWAYS_SENT = {"ETag", "Location", "Deprecation", "Link", "Retry-After", "WWW-Authenticate", "X-Request-Id"}
_TAG = r'[ \t]*(?:(?:W/)?"[!\x23-\x7e\x80-\xff]*"[ \t]*)?'
# What FastAPI cannot say of the headers that are sent, as it knows them by lower case alone.
_SENT: dict[str, dict[str, Any]] = {
    "Idempotency-Key": {"description": "Made anew for each request; a retry sends the same one.", "example": "first-1"},
    "If-Match": {
        "description": "The versions (`ETag`) that may be changed, or `*` for any.",
        "example": '"v5"',
        "schema": {"type": "string", "pattern": rf"^(?:\*|{_TAG}(?:,{_TAG})*)$"},
    },
    "If-None-Match": {
        "description": "The versions (`ETag`) that the caller has.",
        "example": '"v5"',
        "schema": {"type": "string"},
    },
    "Last-Event-ID": {"description": "As server-sent events: what comes after this version.", "example": "3"},
    "Prefer": {"description": "`wait=N` (RFC 7240): wait up to N seconds for the payment.", "example": "wait=10"},
}


class WrongValue(BaseModel):
    """One wrong value: where it was sent (`body`, `query`, `path`, `header`), a JSON pointer into that, and why."""

    location: str = Field(alias="in")
    pointer: str
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable, `detail` is for people, `errors` comes with a 422 alone."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    requestId: str
    errors: list[WrongValue] = []


def refusals(*codes: str) -> Responses:
    """What a route may answer beside what every route may, by the codes of the problems."""
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in codes:
        by_status[WORDING[code].status].append(code)
    return {status: _refusal(status, of_status) for status, of_status in by_status.items()}


def headers(*names: str) -> dict[str, Any]:
    """The description of headers that an answer has."""
    return {
        name: {
            "description": _HEADERS[name][0],
            "required": name in _ALWAYS_SENT,
            "schema": {"type": "integer" if isinstance(_HEADERS[name][1], int) else "string"},
            "example": _HEADERS[name][1],
        }
        for name in names
    }


def revalidated(**more: Any) -> Responses:
    """What a route answers that knows what its caller has: it, with `more` about it, or a 304."""
    known = {"description": "It is what the caller has.", "headers": headers("ETag")}
    return {200: {"headers": headers("ETag"), **more}, 304: known}


def order_links() -> dict[str, Any]:
    """Where an answer that is an order leads to."""
    calls = ("getOrder", "cancelOrder", "patchOrder", "getTimeline", "getDelivery")
    return {call: {"operationId": call, "parameters": {"orderId": "$response.body#/orderId"}} for call in calls}


def install_openapi(app: FastAPI) -> None:
    """Give the app its whole document, made when it is first asked for."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=_ABOUT, routes=app.routes)
            app.openapi_schema = _completed(document)
        return app.openapi_schema

    app.openapi = openapi


def operation_id(route: Any) -> str:
    """An operation's id: its function's name, in camelCase."""
    return to_camel(route.name)


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of a 422
        schemas.pop(name, None)
    for model in (Problem, WrongValue):
        schemas[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas[model.__name__].pop("$defs", None)
    document["components"]["examples"] = {
        _example(code, status): {"value": problem_document(code, status, "ko", "7d0f5c2e")}
        for code, status in [*((code, told.status) for code, told in WORDING.items()), ("request-timeout", 408)]
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation.setdefault("tags", [path.split("/")[1]])
            _complete(operation, probe=path in PROBES)
    return document


def _complete(operation: dict[str, Any], *, probe: bool) -> None:
    responses: dict[str, Any] = operation["responses"]
    codes = {code for response in responses.values() for code in response.pop("x-codes", [])} | {*_EVERYWHERE}
    if not probe:
        codes |= {*_BUT_PROBES}
    if operation.get("security"):
        codes |= {*_WITH_A_TOKEN}
    if "requestBody" in operation:
        codes |= {*_WITH_A_BODY}
    for parameter in operation.get("parameters", []):
        _tell_of(parameter)
        if parameter["name"] == "Idempotency-Key" and "idempotency-key-missing" in codes:
            parameter["required"] = True
            parameter["schema"]["minLength"] = 1
    refused = refusals(*sorted(codes))
    if "requestBody" in operation:
        refused[408] = _refusal(408, ["request-timeout"])
    for status, response in sorted(refused.items()):
        response.pop("x-codes")
        responses[str(status)] = response
    for response in responses.values():
        response.setdefault("headers", {}).update(headers("X-Request-Id"))


def _tell_of(parameter: dict[str, Any]) -> None:
    """Describe a parameter as it goes over the wire, where nothing is null: what is not sent is not there."""
    schema: dict[str, Any] = parameter["schema"]
    if "anyOf" in schema:
        [sent] = [option for option in schema.pop("anyOf") if option != {"type": "null"}]
        schema.update(sent)
    for name, said in _SENT.items():
        if parameter["in"] == "header" and parameter["name"] == name.lower():
            parameter |= {"name": name} | said


def _example(code: str, status: int) -> str:
    return code if status == WORDING[code].status else f"{code}-{status}"


def _refusal(status: int, codes: Iterable[str]) -> dict[str, Any]:
    of_status = [*codes]
    named = {429: ["Retry-After"], 503: ["Retry-After"], 401: ["WWW-Authenticate"]}.get(status, [])
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in of_status)}",
        "headers": headers(*named),
        "content": {
            PROBLEM: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {code: {"$ref": f"#/components/examples/{_example(code, status)}"} for code in of_status},
            }
        },
        "x-codes": of_status,
    }
