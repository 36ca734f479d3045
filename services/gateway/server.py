"""The HTTP server, ended in an orderly way."""

import asyncio
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from services.shared.settings import ApiSettings


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
        http="h11",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=settings.drain_seconds,
    )


class Server(uvicorn.Server):
    """Ends by returning where uvicorn would kill itself with the signal that stopped it: the rest is closed, too.

    The signal sets `draining`, and who would stay is told to leave: uvicorn itself waits for requests under way.
    """

    def __init__(self, config: uvicorn.Config, draining: asyncio.Event) -> None:
        super().__init__(config)
        self._draining = draining

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._draining.set()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
