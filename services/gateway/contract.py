"""What every route asks of a request before anything else: a form that it knows, and an answer that it can give."""

import json
import re
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, ClassVar

import structlog
from fastapi import Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import Query
from fastapi.routing import APIRoute

from services.gateway.caller import Only
from services.gateway.fields import ORDER_ID
from services.gateway.problems import BadRequest
from services.shared.errors import Refused

JSON, EVENTS = "application/json", "text/event-stream"
_JSON_BODY = re.compile(r'application/(?:json|[a-z0-9.-]+\+json)\s*(?:;\s*charset="?utf-?8"?\s*)?;?', re.IGNORECASE)
_LONGEST_ACCEPT = 1000  # characters: reading more would cost more than answering
_QUALITY = re.compile(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*", re.IGNORECASE)


class NotAcceptable(Refused):
    """The caller takes none of the forms that the answer could have."""

    code: ClassVar[str] = "not-acceptable"
    status: ClassVar[int] = 406


class UnsupportedMediaType(Refused):
    """The body is not JSON, or packed."""

    code: ClassVar[str] = "unsupported-media-type"
    status: ClassVar[int] = 415


class ShopRoute(APIRoute):
    """A route that refuses what it would otherwise guess at or pass over.

    A caller who may not come in, an `Accept` that it cannot meet, a body that is no JSON or names a field twice, a
    query parameter that it does not know or that comes twice. Raises what `Only` does, `NotAcceptable`,
    `UnsupportedMediaType`, `BadRequest`, `RequestValidationError`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        offers = [JSON, *self.responses.get(200, {}).get("content", {})]
        parameters = {field.alias for field in get_flat_params(self.dependant) if isinstance(field.field_info, Query)}
        takes_body = self.body_field is not None
        may_be_missing = self.body_field is not None and not self.body_field.field_info.is_required()
        only = [one.call for one in self.dependant.dependencies if isinstance(one.call, Only)]

        async def checked(request: Request) -> Response:
            order_id: str = request.path_params.get("orderId", "")
            if re.match(ORDER_ID, order_id):
                structlog.contextvars.bind_contextvars(order_id=order_id)
            for door in only:
                await door(request)  # before its body: who may not come in does not keep a place while it arrives
            preferred(request, offers)
            if takes_body:
                _must_be_json(request, may_be_missing=may_be_missing)
            _must_be_known(request.query_params.multi_items(), parameters)
            return await handle(_OnceNamed(request.scope, request.receive))

        return checked


def preferred(request: Request, offers: Collection[str]) -> str:
    """Which of these media types the caller likes best, the first of equal ones. Raises `NotAcceptable`."""
    accepted = ",".join(request.headers.getlist("accept"))[:_LONGEST_ACCEPT]
    if not accepted.strip():
        return next(iter(offers))
    ranges = [_range(one) for one in accepted.lower().split(",")]
    best, quality = max(((offer, _quality(offer, ranges)) for offer in offers), key=lambda pair: pair[1])
    if quality <= 0:
        raise NotAcceptable(accepted)
    return best


def _range(given: str) -> tuple[str, float]:
    name, *parameters = given.split(";")
    found = next((match for one in parameters if (match := _QUALITY.fullmatch(one))), None)
    return name.strip(), float(found[1]) if found else 1.0


def _quality(offer: str, ranges: Iterable[tuple[str, float]]) -> float:
    """How much an offer is liked: what the range says that names it most closely (RFC 9110, 12.5.1)."""
    said = dict(ranges)
    kind = offer.partition("/")[0]
    return next((said[name] for name in (offer, f"{kind}/*", "*/*") if name in said), 0.0)


def _must_be_json(request: Request, *, may_be_missing: bool) -> None:
    headers = request.headers
    nothing = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
    if nothing and may_be_missing:
        return
    if "content-encoding" in headers and headers["content-encoding"].lower() != "identity":
        raise UnsupportedMediaType("packed")
    kind = ",".join(headers.getlist("content-type"))
    if not (nothing and not kind) and not _JSON_BODY.fullmatch(kind.strip()):
        raise UnsupportedMediaType(kind)


def _must_be_known(given: Iterable[tuple[str, str]], parameters: Collection[str]) -> None:
    seen: set[str] = set()
    wrong: list[dict[str, Any]] = []
    for name, _ in given:
        if name not in parameters:
            wrong.append({"type": "extra_forbidden", "loc": ("query", name), "msg": ""})
        elif name in seen:
            wrong.append({"type": "repeated", "loc": ("query", name), "msg": ""})
        seen.add(name)
    if wrong:
        raise RequestValidationError(wrong)


class _OnceNamed(Request):
    """A request whose JSON is UTF-8 and names no field twice: two readers of it could take different ones."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json: Any = json.loads((await self.body()).decode(), object_pairs_hook=_object)
        return self._json


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("a field is named twice")
    return found
