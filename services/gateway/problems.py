"""Errors as `application/problem+json` (RFC 9457), in Korean and English. The only place where an error becomes one."""

import re
import uuid
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from services.gateway.invalid import wrong_values
from services.gateway.wording import WORDING
from services.order.errors import OrderIntakePaused
from services.shared.errors import Refused, ShopError, Unavailable

_log = structlog.get_logger(__name__)
_LANGUAGE = re.compile(r"(?:^|,)\s*(ko|en)(-[a-z0-9-]+)?\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?)\s*)?(?=,|$)")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PROBLEM = "application/problem+json"

_CODES = {400: "bad-request", 404: "not-found", 405: "method-not-allowed", 413: "payload-too-large", 503: "unavailable"}


class BadRequest(Refused):
    """The request itself is wrong."""

    code: ClassVar[str] = "bad-request"
    status: ClassVar[int] = 400


class IdempotencyKeyMissing(BadRequest):
    """An order without a key could be placed twice by a retry."""

    code: ClassVar[str] = "idempotency-key-missing"


class InvalidCursor(BadRequest):
    """Not a cursor that we gave out."""

    code: ClassVar[str] = "invalid-cursor"


class Unauthorized(Refused):
    """No token tells who is calling. `challenge` says what is asked for (RFC 6750)."""

    code: ClassVar[str] = "unauthorized"
    status: ClassVar[int] = 401
    challenge: ClassVar[str] = 'Bearer realm="street12"'


class Forbidden(Refused):
    """The caller's role may not do this."""

    code: ClassVar[str] = "forbidden"
    status: ClassVar[int] = 403
    challenge: ClassVar[str] = f'{Unauthorized.challenge}, error="insufficient_scope"'


def problem(
    request: Request,
    code: str,
    status: int,
    errors: list[dict[str, str]] | None = None,
    *,
    retry_after_seconds: int = Unavailable.retry_after_seconds,
) -> Response:
    """The problem document for a code, in the caller's language; a 429 and a 503 say when to come back."""
    language = _language(request.headers.get("accept-language", ""))
    body = problem_document(code, status, language, request_id(request))
    if errors is not None:
        body["errors"] = errors
    headers = {"Content-Language": language, "Cache-Control": "no-store", "Vary": "Accept-Language"}
    if status in (429, 503):
        headers["Retry-After"] = str(retry_after_seconds)
    return JSONResponse(body, status, headers, media_type=PROBLEM)


def problem_document(code: str, status: int, language: str, request_id: str) -> dict[str, Any]:
    """The body of a problem in a language, `ko` or `en`."""
    _, korean, english = WORDING.get(code, WORDING["internal-error"])
    return {
        "type": f"/problems/{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": korean if language == "ko" else english,
        "code": code,
        "requestId": request_id,
    }


def shop_problem(request: Request, error: ShopError) -> Response:
    """The problem document for one of our own errors."""
    if isinstance(error, Unavailable):
        return problem(request, error.code, error.status, retry_after_seconds=error.retry_after_seconds)
    answer = problem(request, error.code, error.status)
    if isinstance(error, Unauthorized | Forbidden):
        answer.headers["WWW-Authenticate"] = error.challenge
    return answer


def request_id(request: Request) -> str:
    """The request's id: the caller's own if it is a sane one, else a new one."""
    if not hasattr(request.state, "request_id"):
        given = request.headers.get("x-request-id", "")
        request.state.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    return request.state.request_id


def install_problems(app: FastAPI) -> None:
    """Answer every error that the app knows as a problem; of the others `Guard` makes one."""

    async def shop_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ShopError)
        if isinstance(error, Refused):
            # Why a token is not taken is for nobody else to know. Of the others, the message may be what was sent.
            _log.info("request refused", code=error.code, reason=str(error) if error.status == 401 else None)
        elif not isinstance(error, OrderIntakePaused):  # of which there may be hundreds a second
            _log.warning("request failed", code=error.code, error=str(error))
        return shop_problem(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        if any(found["type"] == "json_invalid" for found in error.errors()):
            return problem(request, "bad-request", 400)
        _log.info("request refused", code="invalid-request")
        language = _language(request.headers.get("accept-language", ""))
        return problem(request, "invalid-request", 422, wrong_values(error.errors(), language))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = problem(request, _CODES.get(error.status_code, "bad-request"), error.status_code)
        answer.headers.update(error.headers or {})
        if error.status_code == 405 and (methods := _methods(app, request.url.path)):
            answer.headers["Allow"] = ", ".join(methods)  # the router names one route's alone
        return answer

    app.add_exception_handler(ShopError, shop_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _methods(app: FastAPI, path: str) -> list[str]:
    """The methods of all routes of a path, as far as they are described."""
    routes: dict[str, Any] = app.openapi()["paths"]
    found = {method.upper() for route in routes if compile_path(route)[0].match(path) for method in routes[route]}
    return sorted(found | {"HEAD"} if "GET" in found else found)


def _language(accept: str) -> str:
    """`ko` unless English is preferred; of equal ones, what is asked for first."""
    preferred, highest = "ko", 0.0
    for tag, _, quality in _LANGUAGE.findall(accept.lower()):
        if (weight := float(quality or 1)) > highest:
            preferred, highest = tag, weight
    return preferred
