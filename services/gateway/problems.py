"""Errors as `application/problem+json` (RFC 9457), in Korean and English. The only place where an error becomes one."""

import re
import uuid
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from services.order.errors import OrderIntakePaused
from services.shared.errors import Refused, ShopError, Unavailable

_log = structlog.get_logger(__name__)
_LANGUAGE = re.compile(r"(?:^|,)\s*(ko|en)(-[a-z0-9-]+)?\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?)\s*)?(?=,|$)")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PROBLEM = "application/problem+json"

# What the customer reads for each code: Korean, English.
TEXTS: dict[str, tuple[str, str]] = {
    "amount-mismatch": ("결제 금액이 주문과 다릅니다.", "The amount charged differs from the order."),
    "bad-request": ("요청을 이해할 수 없습니다.", "The request cannot be understood."),
    "coupon-revoked": ("주문이 취소되어 쿠폰을 발급할 수 없습니다.", "The order was cancelled: there is no coupon."),
    "database-unavailable": (
        "지금은 처리할 수 없습니다. 잠시 후 다시 시도해 주세요.",
        "This cannot be done right now. Please try again shortly.",
    ),
    "delivery-canceled": ("취소된 배송입니다.", "The delivery was cancelled."),
    "delivery-completed": ("이미 배송이 완료되었습니다.", "The delivery is already complete."),
    "engine-unavailable": (
        "지금은 처리할 수 없습니다. 잠시 후 다시 시도해 주세요.",
        "This cannot be done right now. Please try again shortly.",
    ),
    "forbidden": ("권한이 없습니다.", "You may not do this."),
    "idempotency-key-missing": (
        "Idempotency-Key 헤더가 필요합니다. 주문마다 새 값을 만들고, 다시 시도할 때는 같은 값을 보내세요.",
        "The Idempotency-Key header is missing: make a new value for each order and send the same one on a retry.",
    ),
    "idempotency-key-reused": (
        "같은 Idempotency-Key로 다른 요청을 보낼 수 없습니다.",
        "This Idempotency-Key was used for another request.",
    ),
    "insufficient-funds": ("잔액이 부족하여 결제가 거절되었습니다.", "The payment was declined: insufficient funds."),
    "internal-error": ("서버에 문제가 생겼습니다.", "Something went wrong on our side."),
    "invalid-cursor": ("cursor가 올바르지 않습니다.", "The cursor is not valid."),
    "invalid-token": (
        "로그인 정보가 올바르지 않거나 만료되었습니다. 다시 로그인해 주세요.",
        "The token is not valid or has expired: sign in again.",
    ),
    "invalid-request": ("요청의 값이 올바르지 않습니다.", "The request has invalid values."),
    "keys-unavailable": (
        "지금은 로그인 정보를 확인할 수 없습니다. 잠시 후 다시 시도해 주세요.",
        "It cannot be checked right now who is calling. Please try again shortly.",
    ),
    "method-not-allowed": ("허용되지 않는 메서드입니다.", "This method is not allowed here."),
    "not-deliverable": ("배송 중인 주문이 아닙니다.", "The order is not under way to the customer."),
    "not-found": ("찾을 수 없습니다.", "There is no such thing."),
    "not-stuck": ("처리할 보상 작업이 없습니다.", "No such compensation is waiting to be settled."),
    "order-intake-paused": (
        "주문이 많아 지금은 주문과 결제를 받을 수 없습니다. 잠시 후 다시 시도해 주세요.",
        "There are too many orders: orders and payments cannot be taken right now. Please try again shortly.",
    ),
    "out-of-stock": ("재고가 부족합니다.", "There is not enough in stock."),
    "overloaded": (
        "지금은 요청이 너무 많습니다. 잠시 후 다시 시도해 주세요.",
        "There are too many requests right now. Please try again shortly.",
    ),
    "payload-too-large": ("요청이 너무 큽니다.", "The request is too large."),
    "payment-declined": ("결제가 거절되었습니다.", "The payment was declined."),
    "payment-provider-rejected": ("결제를 처리할 수 없습니다.", "The payment cannot be processed."),
    "payment-provider-unavailable": ("결제사가 응답하지 않습니다.", "The payment provider does not answer."),
    "payment-voided": ("취소된 결제입니다.", "The payment was cancelled."),
    "precondition-failed": (
        "주문이 그 사이에 변경되었습니다. 주문을 다시 조회한 뒤 요청해 주세요.",
        "The order has changed meanwhile. Read it again, and then decide.",
    ),
    "price-changed": ("상품 가격이 변경되었습니다.", "The price of the product has changed."),
    "refund-refused": ("환불이 거절되었습니다.", "The refund was refused."),
    "request-timeout": (
        "제시간에 요청을 처리하지 못했습니다. 같은 요청을 다시 보내 주세요.",
        "The request was not finished in time. Please send the same one again.",
    ),
    "sale-canceled": ("취소된 주문입니다.", "The order was cancelled."),
    "too-late-to-cancel": ("더 이상 취소할 수 없는 주문입니다.", "The order can no longer be cancelled."),
    "unauthorized": ("로그인이 필요합니다.", "Sign in first: this call needs a bearer token."),
    "unavailable": ("잠시 후 다시 시도해 주세요.", "Please try again shortly."),
    "unknown-product": ("없는 상품입니다.", "There is no such product."),
}
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
    """The problem document for a code, in the caller's language; a 503 says when to come back."""
    language = _language(request.headers.get("accept-language", ""))
    korean, english = TEXTS.get(code, TEXTS["internal-error"])
    body: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": korean if language == "ko" else english,
        "code": code,
        "requestId": request_id(request),
    }
    if errors is not None:
        body["errors"] = errors
    headers = {"Content-Language": language, "Cache-Control": "no-store", "Vary": "Accept-Language"}
    if status == 503:
        headers["Retry-After"] = str(retry_after_seconds)
    return JSONResponse(body, status, headers, media_type=PROBLEM)


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
        if not isinstance(error, Refused | OrderIntakePaused):  # of which there may be hundreds a second
            _log.warning("request failed", code=error.code, error=str(error))
        return shop_problem(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        if any(found["type"] == "json_invalid" for found in error.errors()):
            return problem(request, "bad-request", 400)
        return problem(request, "invalid-request", 422, [_pointer(found) for found in error.errors()])

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = problem(request, _CODES.get(error.status_code, "bad-request"), error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    app.add_exception_handler(ShopError, shop_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _pointer(found: Any) -> dict[str, str]:
    where, *path = [str(part) for part in found["loc"]]
    pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
    return {"in": where, "pointer": pointer, "detail": str(found["msg"])}


def _language(accept: str) -> str:
    """`ko` unless English is preferred; of equal ones, what is asked for first."""
    preferred, highest = "ko", 0.0
    for tag, _, quality in _LANGUAGE.findall(accept.lower()):
        if (weight := float(quality or 1)) > highest:
            preferred, highest = tag, weight
    return preferred
