"""What every answer says to browsers and caches, and which pages of other origins may read it."""

import hashlib
from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.conditional import is_known

# What OWASP asks of a REST API. Its answers are data: a browser that is led to one runs, loads and frames nothing.
# TLS ends in front of this process, so it cannot tell who came by it; browsers pass over the promise without it.
_EVERY_ANSWER = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_UNLESS_IT_SAYS_OTHERWISE = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
_METHODS = ("GET", "PATCH", "POST", "PUT")
_MAY_BE_SENT = (
    *("Accept-Language", "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"),
    *("Last-Event-ID", "Prefer", "X-Request-Id", "traceparent"),
)
_MAY_BE_READ = (
    *("Deprecation", "ETag", "Idempotent-Replayed", "Link", "Location", "Preference-Applied", "RateLimit"),
    *("RateLimit-Policy", "Retry-After", "WWW-Authenticate", "X-Request-Id"),
)


def install_headers(app: FastAPI, cors_origins: Sequence[str]) -> None:
    """Put the headers on every answer, and let pages of these origins read them.

    To be called last: what is installed last is outermost, and so meets every answer, an overloaded shop's too.
    """
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=_METHODS,
            allow_headers=_MAY_BE_SENT,
            expose_headers=_MAY_BE_READ,
        )
    app.add_middleware(AnswerHeaders)


class AnswerHeaders:
    """Gives every answer the security headers; one that does not say how long it may be kept is kept by nobody.

    A HEAD is answered as a GET, without the body (RFC 9110, 9.3.2): no route needs to know of it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        is_head = scope["method"] == "HEAD"

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message["headers"]
                said = {name for name, _ in own}
                unsaid = [header for header in _UNLESS_IT_SAYS_OTHERWISE if header[0] not in said]
                message["headers"] = [*own, *_EVERY_ANSWER, *unsaid]
                await send(message)
                if is_head:
                    await send({"type": "http.response.body"})
            elif not is_head:
                await send(message)

        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send_on)


class Public:
    """What is the same for everybody. Whoever keeps it asks before each use whether it still is (`ETag`)."""

    def __init__(
        self, content: bytes, media_type: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> None:
        self._content, self._media_type = content, media_type
        self._etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        self._headers = {"ETag": self._etag, "Cache-Control": "public, no-cache", **(headers or {})}

    def answer(self, if_none_match: Sequence[str] | None) -> Response:
        """The whole of it; `304` to whoever has it."""
        if is_known(if_none_match, self._etag):
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers, media_type=self._media_type)
