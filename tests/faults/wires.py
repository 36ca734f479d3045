"""All wires of a shop, in a process of their own: who loads the shop must not slow down what it says to its servers.

    python -m tests.faults.wires CONTROL_PORT WIRES

`WIRES` is a list in JSON of what `WireTo` holds. `POST /NAME/ACTION` on the control port disturbs one, or heals it.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import httpx2
from aiohttp import web

from deploy.local import ROOT
from deploy.stack import HOST, take_ports
from deploy.supervisor import Program
from tests.database.proxy import Fault, Proxy, proxy_to
from tests.faults.wire import running_wire

Action = Literal["silence", "reset", "lose_replies", "heal"]
_READY = "/healthz"


class Disturbed(Protocol):
    """A wire, whatever it speaks."""

    @property
    def struck(self) -> int: ...
    def silence(self) -> None: ...
    def reset(self) -> None: ...
    def lose_replies(self) -> None: ...
    def heal(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class WireTo:
    """A wire, and the server at its end. `listen` is where clients connect."""

    name: str
    host: str
    port: int
    listen: int
    speaks_mysql: bool


class DatabaseWire:
    """The wire to a MySQL server. The replies that it loses are those to a COMMIT of what was written, every second."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._hit = 0
        self._commits = 0

    @property
    def struck(self) -> int:
        return self._proxy.struck + self._hit

    def silence(self) -> None:
        self._hit += self._proxy.silence()

    def reset(self) -> None:
        self._hit += self._proxy.reset()

    def lose_replies(self) -> None:
        self._proxy.disturb(Fault.REPLY_LOST, lambda statement: statement.commits and self._is_second())

    def heal(self) -> None:
        self._proxy.heal()
        self._proxy.end_silenced()  # else the server would keep what they had locked for a minute more

    def _is_second(self) -> bool:
        self._commits += 1
        return self._commits % 2 == 0


class Wires:
    """The process as its user sees it."""

    def __init__(self, wires: Sequence[tuple[str, str, int, bool]]) -> None:
        """Wires by name, host and port of the server, and whether it speaks MySQL."""
        ports = take_ports(dict.fromkeys(["control", *(name for name, *_ in wires)], 0))
        self._control = f"http://{HOST}:{ports['control']}"
        self.wires = [
            WireTo(name=name, host=host, port=port, listen=ports[name], speaks_mysql=speaks_mysql)
            for name, host, port, speaks_mysql in wires
        ]
        self.program = Program(
            name="wires",
            command=[
                *(sys.executable, "-m", "tests.faults.wires", str(ports["control"])),
                json.dumps([asdict(wire) for wire in self.wires]),
            ],
            environment={},
            directory=ROOT,
            ready_url=f"{self._control}{_READY}",
        )

    async def tell(self, name: str, action: Action) -> int:
        """Have a wire disturbed or healed; says how much was struck on it so far."""
        async with httpx2.AsyncClient(base_url=self._control, trust_env=False, timeout=30.0) as http:
            answer = await http.post(f"/{name}/{action}")
        return int(answer.raise_for_status().text)


async def serve(control: int, wires: Sequence[WireTo]) -> None:
    """Run the wires until SIGTERM."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        disturbed: dict[str, Disturbed] = {}
        for wire in wires:
            if wire.speaks_mysql:
                proxy = await stack.enter_async_context(proxy_to(wire.host, wire.port, listen=wire.listen))
                disturbed[wire.name] = DatabaseWire(proxy)
            else:
                running = running_wire(wire.host, wire.port, listen=wire.listen)
                disturbed[wire.name] = await stack.enter_async_context(running)

        async def act(request: web.Request) -> web.Response:
            wire = disturbed[request.match_info["name"]]
            actions: dict[str, Callable[[], None]] = {
                "silence": wire.silence,
                "reset": wire.reset,
                "lose_replies": wire.lose_replies,
                "heal": wire.heal,
            }
            actions[request.match_info["action"]]()
            return web.Response(text=str(wire.struck))

        async def healthz(_: web.Request) -> web.Response:
            return web.Response()

        app = web.Application()
        app.add_routes([web.get(_READY, healthz), web.post("/{name}/{action}", act)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, HOST, control).start()
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), [WireTo(**wire) for wire in json.loads(sys.argv[2])]))
