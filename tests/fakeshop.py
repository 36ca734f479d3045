"""A shop that answers what it was told to, over real HTTP, and remembers what it was asked."""

import json
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

NOT_FOUND = {"status": 404, "detail": "There is no such thing.", "code": "not-found", "requestId": "r404"}


@dataclass(frozen=True)
class Reply:
    """An answer. `lost`: the connection ends before it is whole, or without a word where there is no body."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    lost: bool = False

    @property
    def content(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


def events(*happened: tuple[int, str], lost: bool = False, retry: int = 0) -> Reply:
    """A timeline as server-sent events, with a sign of life."""
    body = f"retry: {retry}\n\n: still here\n\n"
    for version, kind in happened:
        data: dict[str, Any] = {"version": version, "type": kind, "at": "2026-03-01T03:04:05.678901Z", "detail": {}}
        body += f"id: {version}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
    return Reply(200, body, {"Content-Type": "text/event-stream"}, lost=lost)


def problem(status: int, code: str, detail: str = "No.", **more: Any) -> Reply:
    headers = {name.replace("_", "-"): str(more.pop(name)) for name in ("Retry_After", "Location") if name in more}
    body = {"status": status, "code": code, "detail": detail, "requestId": "r1", **more}
    return Reply(status, body, {"Content-Type": "application/problem+json", **headers})


LOST = Reply(lost=True)


@dataclass(frozen=True)
class Asked:
    """A request as it came. Its token says whose it is, as `role:sub`."""

    call: str
    headers: Mapping[str, str]
    body: Any

    @property
    def token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None


class FakeShop:
    """Answers each call with what it was told, one after the other, and the last one again and again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self._replies = defaultdict[str, list[Reply]](list)

    def will(self, call: str, *replies: Reply | dict[str, Any]) -> None:
        """`call` is `METHOD /path?query`."""
        self._replies[call] = [reply if isinstance(reply, Reply) else Reply(200, reply) for reply in replies]

    def asked_for(self, call: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.call == call]

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        if replies := self._replies[asked.call]:
            return replies.pop(0) if len(replies) > 1 else replies[0]
        if asked.call == "POST /dev/tokens":
            token = f"{asked.body['role']}:{asked.body['sub']}"
            return Reply(200, {"accessToken": token, "tokenType": "Bearer", "expiresIn": 3600})
        return Reply(404, NOT_FOUND)


@contextmanager
def running_fake_shop() -> Generator[FakeShop]:
    """A fake shop behind an address of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            reply = shop.answer(Asked(f"{self.command} {self.path}", dict(self.headers.items()), body))
            if reply.lost and reply.body is None:
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("Content-Length", str(len(reply.content) + reply.lost))
            self.end_headers()
            if reply.status != 204:
                self.wfile.write(reply.content)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        shop = FakeShop(f"http://127.0.0.1:{server.server_port}")
        serving = Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield shop
        finally:
            server.shutdown()
            serving.join()
