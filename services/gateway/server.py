"""The HTTP server, ended in an orderly way."""

import asyncio
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on; port 0 takes any free one. Raises `OSError` where it is not to be had."""
    listener = socket.create_server((host, port), backlog=2048)
    # Handed on to each connection. Without it an answer's second packet waits 40 ms for the first one's ACK; asyncio
    # sees to it for its own sockets only.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Server(uvicorn.Server):
    """Ends by returning where uvicorn would kill itself with the signal that stopped it: the rest is closed, too."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
