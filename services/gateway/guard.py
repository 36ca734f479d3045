"""What a request passes before any route: its id, a place, a deadline, a limit on its body, and the clock around it."""

import asyncio
import time
from collections import Counter
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
MAX_STAYING_OF_ONE = 250
"""How many of them may be one caller's, so that nobody takes all the places."""
BODY_SECONDS = 5.0
"""How long a body may take to arrive. An order is smaller than a packet."""
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

    No more than `max_requests` are worked on at once, beside them no more than `MAX_STAYING` who were let to stay
    (`stay`), and the platform's probes always; who comes on top is shed: `Overloaded`, with nothing read and nothing
    asked of anybody. A request whose answer has not begun after `request_seconds` is cancelled: `RequestTimeout`, or
    `BodyTimeout` where its body was not there after `BODY_SECONDS`. A body of more than `largest_body` bytes is
    refused with 413.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, largest_body: int, max_requests: int, request_seconds: float
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._largest_body = largest_body
        self._request_seconds = request_seconds
        self._places = _Places(max_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._metrics, self._largest_body, self._request_seconds)
        structlog.contextvars.clear_contextvars()  # a pipelined request begins in the context of the one before
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
        request.state.place = _Place(self._places)
        return request.state.place

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


def stay(request: Request, caller: str, *, seconds: float = 0) -> None:
    """Let a request stay: it takes no place any more of those who are answered at once, and has so much more time.

    Raises `Overloaded` where as many stay as may, of all callers or of this one.
    """
    place: _Place | None = getattr(request.state, "place", None)
    if place is not None:
        place.stay(caller)
    deadline = _deadline(request)
    if deadline is not None and (when := deadline.when()) is not None:
        deadline.reschedule(when + seconds)


def _deadline(request: Request) -> asyncio.Timeout | None:
    """A request's deadline, while it can be moved."""
    deadline: asyncio.Timeout | None = getattr(request.state, "deadline", None)
    return None if deadline is None or deadline.expired() else deadline


class _Places:
    """Who is inside: how many more may come, and who stays."""

    def __init__(self, requests: int) -> None:
        self.free = requests
        self.staying = Counter[str]()


class _Place(AbstractContextManager[None]):
    """A request's own place. Entering raises `Overloaded` where none is free."""

    def __init__(self, places: _Places) -> None:
        self._places = places
        self._staying: str | None = None

    def __enter__(self) -> None:
        if not self._places.free:
            raise Overloaded
        self._places.free -= 1

    def stay(self, caller: str) -> None:
        staying = self._places.staying
        if staying.total() >= MAX_STAYING or staying[caller] >= MAX_STAYING_OF_ONE:
            raise Overloaded
        self._leave()
        self._places.staying[caller] += 1
        self._staying = caller

    def __exit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._staying is None:
            self._places.free += 1
        else:
            self._places.staying -= Counter([self._staying])


class _Exchange:
    """A request on its way in and its answer on its way out."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        metrics: Metrics,
        largest_body: int,
        request_seconds: float,
    ) -> None:
        self.request = Request(scope)
        self.begun = False
        self.awaits_body = False
        self._receive, self._send = receive, send
        self._metrics = metrics
        self._began = time.perf_counter()
        self._ends = asyncio.get_running_loop().time() + request_seconds
        self._largest_body, self._received, self._whole = largest_body, 0, False

    def refuse_long_body(self) -> None:
        """Raises a 413 where the length that is announced is too large."""
        length = self.request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._largest_body:
            raise BodyTooLarge

    async def receive(self) -> Message:
        """The next part of the body; raises a 413 once there is too much of it, as the announced length may be none."""
        if self._whole:
            return await self._receive()
        if not self.awaits_body:
            self._end_at(min(self._ends, asyncio.get_running_loop().time() + BODY_SECONDS))
        self.awaits_body = True
        message = await self._receive()
        if not message.get("more_body", False):
            self.awaits_body, self._whole = False, True
            self._end_at(self._ends)
        self._received += len(message.get("body", b""))
        if self._received > self._largest_body:
            raise BodyTooLarge
        return message

    def _end_at(self, moment: float) -> None:
        """Move the deadline, unless the answer has begun."""
        deadline = _deadline(self.request)
        if deadline is not None and deadline.when() is not None:
            deadline.reschedule(moment)

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
