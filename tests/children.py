"""Tiny children for tests of the supervisor, and a log of what is said of them."""

import asyncio
import os
import sys
from contextlib import suppress

from deploy.stack import take_ports
from deploy.supervisor import Patience, Program

IMPATIENT = Patience(first_pause=0.01, longest_pause=0.04, ready_within=20.0, poll=0.01)

READY = r"""
import http.server, os, signal, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
def stop(*_):
    os.write(1, b"asked to stop\n")  # it may come while the other line is printed
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer)
print("here is", os.getpid(), flush=True)
server.serve_forever()
"""
STUBBORN = READY.replace("os._exit(0)", "pass")


class Log:
    """What was said, in order; a line can be awaited."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = asyncio.Event()

    def __call__(self, tag: str, line: str) -> None:
        self.lines.append(f"{tag}: {line}")
        self._more.set()

    async def said(self, part: str, times: int = 1) -> str:
        async with asyncio.timeout(20):
            while sum(part in line for line in self.lines) < times:
                self._more.clear()
                await self._more.wait()
        return next(line for line in reversed(self.lines) if part in line)


def program(name: str, code: str, *arguments: str, grace_seconds: float = 20.0) -> Program:
    """A child that runs this code; its port comes before the arguments."""
    port = take_ports({"": 0})[""]
    return Program(
        name=name,
        command=[sys.executable, "-c", code, str(port), *arguments],
        environment={},
        ready_url=f"http://127.0.0.1:{port}/readyz",
        grace_seconds=grace_seconds,
    )


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
