"""What a request passes before any route: its id, a place, a deadline, a limit on its body, and the clock around it."""

import asyncio
import time
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import structlog
from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.operations import PROBES, Metrics, route_of
from services.gateway.problems import problem, request_id, shop_problem
from services.gateway.tracing import bind_trace_id
from services.shared.errors import ShopError, Unavailable

MAX_STAYING = 500
"""How many may follow a timeline or wait for a payment at once: with more, whoever orders would wait, too."""
_log = structlog.get_logger(__name__)


class Overloaded(Unavailable):
    """As many requests as this process takes are being worked on. Nothing was begun."""

    code: ClassVar[str] = "overloaded"
    retry_after_seconds: int = 1


class RequestTimeout(Unavailable):
    """The request was not answered within its time, and its work was cancelled."""

    code: ClassVar[str] = "request-timeout"


class BodyTimeout(RequestTimeout):
    """The client had not sent its whole body by then."""

    status: ClassVar[int] = 408


class BodyTooLarge(HTTPException):
    """More than `largest_body`. Not a `ShopError`: the framework lets only its own kind pass while it reads a body."""

    def __init__(self) -> None:
        super().__init__(413)


class Guard:
    """The outermost middleware: whatever happens to a request, it is answered, counted and told its id.

    No more than `max_requests` are worked on at once, beside them no more than `MAX_STAYING` who read server-sent
    events or wait for a payment, and the platform's probes always; who comes on top is shed: `Overloaded`, with nothing
    read and nothing asked of anybody. A request whose answer has not begun after `request_seconds` is cancelled:
    `RequestTimeout`, or `BodyTimeout` where it waited for its body. A body of more than `largest_body` bytes is refused
    with 413.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, largest_body: int, max_requests: int, request_seconds: float
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._largest_body = largest_body
        self._request_seconds = request_seconds
        self._requests, self._staying = _Places(max_requests), _Places(MAX_STAYING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._metrics, self._largest_body)
        structlog.contextvars.bind_contextvars(request_id=request_id(exchange.request))
        bind_trace_id(exchange.request)
        try:
            with self._place(exchange.request):
                await self._pass_on(exchange)
        except Exception as error:
            if exchange.begun:
                raise  # the server cuts the connection: half an answer must not look like a whole one
            await _instead(exchange.request, error)(scope, receive, exchange.send)

    def _place(self, request: Request) -> AbstractContextManager[None]:
        if request.scope["path"] in PROBES:
            return nullcontext()  # an overloaded process must not be taken for a dead one
        followed = request.method == "GET" and request.scope["path"].endswith("/events")
        reads = followed and "text/event-stream" in request.headers.get("accept", "")
        stays = reads or (request.method == "POST" and "wait=" in request.headers.get("prefer", ""))
        return self._staying if stays else self._requests

    async def _pass_on(self, exchange: "_Exchange") -> None:
        exchange.refuse_long_body()
        request, deadline = exchange.request, asyncio.timeout(self._request_seconds)
        try:
            async with deadline:
                request.state.deadline = deadline
                await self._app(request.scope, exchange.receive, exchange.send)
        except TimeoutError:
            if not deadline.expired():
                raise  # the app's own
            raise (BodyTimeout if exchange.awaits_body else RequestTimeout)(route_of(request.scope)) from None
        finally:
            request.state.deadline = None


def extend(request: Request, seconds: float) -> None:
    """Give a request that much more time, for a wait that its caller asked for; nothing where it has no deadline."""
    deadline = _deadline(request)
    if deadline is not None and (when := deadline.when()) is not None:
        deadline.reschedule(when + seconds)


def _deadline(request: Request) -> asyncio.Timeout | None:
    """A request's deadline, while it can be moved."""
    deadline: asyncio.Timeout | None = getattr(request.state, "deadline", None)
    return None if deadline is None or deadline.expired() else deadline


class _Places(AbstractContextManager[None]):
    """So many at once. Entering raises `Overloaded` where none is free."""

    def __init__(self, number: int) -> None:
        self._free = number

    def __enter__(self) -> None:
        if not self._free:
            raise Overloaded
        self._free -= 1

    def __exit__(self, *_: object) -> None:
        self._free += 1


class _Exchange:
    """A request on its way in and its answer on its way out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, metrics: Metrics, largest_body: int) -> None:
        self.request = Request(scope)
        self.begun = False
        self.awaits_body = False
        self._receive, self._send = receive, send
        self._metrics = metrics
        self._began = time.perf_counter()
        self._largest_body, self._received, self._whole = largest_body, 0, False

    def refuse_long_body(self) -> None:
        """Raises a 413 where the length that is announced is too large."""
        length = self.request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._largest_body:
            raise BodyTooLarge

    async def receive(self) -> Message:
        """The next part of the body; raises a 413 once there is too much of it, as the announced length may be none."""
        self.awaits_body = not self._whole
        message = await self._receive()
        self.awaits_body = False
        self._whole = self._whole or not message.get("more_body", False)
        self._received += len(message.get("body", b""))
        if self._received > self._largest_body:
            raise BodyTooLarge
        return message

    async def send(self, message: Message) -> None:
        """Send on. With its first part an answer gets the request's id, is counted, and is out of the deadline."""
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-request-id", request_id(self.request).encode())]
        await self._send(message)
        if message["type"] == "http.response.start":
            self.begun = True
            self._metrics.answered(self.request.scope, message["status"], time.perf_counter() - self._began)
            if (deadline := _deadline(self.request)) is not None:
                deadline.reschedule(None)


def _instead(request: Request, error: Exception) -> Response:
    """The answer to a request that the app did not answer."""
    match error:
        case BodyTooLarge():
            return problem(request, "payload-too-large", 413)
        case ShopError():
            if not isinstance(error, Overloaded):  # to log each of these would cost more than to shed it
                _log.warning("request failed", code=error.code, error=str(error))
            answer = shop_problem(request, error)
            if isinstance(error, BodyTimeout):
                answer.headers["Connection"] = "close"  # else its sender could hold it for ever
            return answer
        case _:
            _log.exception("unexpected error")
            return problem(request, "internal-error", 500)
