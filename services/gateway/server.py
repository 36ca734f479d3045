"""The HTTP server, ended in an orderly way."""

import asyncio
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import cast

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from services.shared.settings import ApiSettings

HEAD_SECONDS = 10.0
"""How long a client may take to send the head of a request."""
LARGEST_HEAD = 16 * 1024
"""Bytes. More of a head without its end is refused; the longest thing in one is a token, of 8 KiB at most."""
_LAST = (b"connection", b"close")


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on; port 0 takes any free one. Raises `OSError` where it is not to be had."""
    listener = socket.create_server((host, port), backlog=2048)
    # Handed on to each connection. Without it an answer's second packet waits 40 ms for the first one's ACK; asyncio
    # sees to it for its own sockets only.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def configured(app: FastAPI, settings: ApiSettings) -> uvicorn.Config:
    """How the app is served. Whose request it is says its connection; where that is a trusted proxy's, the proxy."""
    return uvicorn.Config(
        app,
        http=Connection,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.drain_seconds,
    )


class Connection(H11Protocol):
    """Is closed where a head is not complete `HEAD_SECONDS` after the connection was opened or the head began.

    Between requests, and while the rest of a body comes that was answered already, uvicorn's keep-alive timeout holds:
    uvicorn itself ends it with the first byte and never begins it anew. A request under way has no timeout here.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._head_timer = self._closing_in(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._unset_keepalive_if_required()  # uvicorn does so only where there is no `exc`
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._unset_keepalive_if_required()
            self._head_timer = self._head_timer or self._closing_in(HEAD_SECONDS)
            return
        self._stop_head_timer()
        cycle: RequestResponseCycle | None = self.cycle  # there is none before the first request
        if cycle and cycle.response_complete and not self.timeout_keep_alive_task:
            self.timeout_keep_alive_task = self._closing_in(self.timeout_keep_alive)

    def _stop_head_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _closing_in(self, seconds: float) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, self.timeout_keep_alive_handler)


class Server(uvicorn.Server):
    """Ends by returning where uvicorn would kill itself with the signal that stopped it: the rest is closed, too.

    The signal sets `leaving`, and each answer from then on is the last of its connection: a balancer opens another one
    elsewhere, and meets none that is just being closed. After `unready_seconds`, in which requests are served as ever,
    or with a second signal, `draining` is set and nobody is let in any more. Who would stay is told to leave; uvicorn
    itself waits for requests under way.
    """

    def __init__(
        self, config: uvicorn.Config, leaving: asyncio.Event, draining: asyncio.Event, *, unready_seconds: float = 0.0
    ) -> None:
        super().__init__(config)
        self._leaving, self._draining = leaving, draining
        self._unready_seconds = unready_seconds
        self._drains: asyncio.TimerHandle | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self._leaving.is_set():
            self._leaving.set()
            self._end_connections()
            if self._unready_seconds:
                loop = asyncio.get_running_loop()
                self._drains = loop.call_later(self._unready_seconds, self._drain, sig, frame)
                return
        self._drain(sig, frame)

    def _end_connections(self) -> None:
        """Have each end with its next answer. To close those that rest would meet what is just being sent there."""
        self.config.encoded_headers.append(_LAST)  # from uvicorn's next look at the clock on
        self.server_state.default_headers.append(_LAST)
        for connection in cast("set[Connection]", self.server_state.connections):
            cycle: RequestResponseCycle | None = connection.cycle
            if cycle and cycle.default_headers is not self.server_state.default_headers:
                cycle.default_headers = [*cycle.default_headers, _LAST]

    def _drain(self, sig: int, frame: FrameType | None) -> None:
        if self._drains:
            self._drains.cancel()
            self._drains = None
        self._draining.set()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
