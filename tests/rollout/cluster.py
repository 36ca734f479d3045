"""The shop as it runs in a cluster: two API processes behind a balancer, a worker for each team."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2

from deploy.apt import ProgramUnavailable
from deploy.mariadb import find_server
from deploy.stack import take_ports
from deploy.supervisor import Program, Supervisor
from services.shared.settings import TEAMS
from tests.bench.stage import Stage, stage
from tests.e2e.shop import LIMITS, NO_RATE_LIMIT
from tests.issuer import running_issuer
from tests.programs import Started, started
from tests.rollout.balancer import LOOKS_SECONDS, balancer
from tests.rollout.deployment import Deployment

API_REPLICAS = 2
UNREADY_SECONDS = 10 * LOOKS_SECONDS
"""How long an API process serves on after SIGTERM. Two looks of the balancer would do on a machine that is not busy."""
_REQUEST_SECONDS = 30.0
_IN_MEMORY = Path("/dev/shm")
"""Where the databases' files are, if it is there: a disk that others keep busy would let requests fail, too."""
Kind = Literal["mysql", "sqlite"]


@dataclass(frozen=True)
class Cluster:
    """A shop that runs, and what of it can be replaced."""

    stage: Stage
    kind: Kind
    """What the teams' databases run on."""
    http: httpx2.AsyncClient
    """By way of the balancer."""
    workers: Sequence[Deployment]
    api: Deployment


async def best_kind() -> Kind:
    """MySQL as in production where there is a server or one can be installed, else SQLite."""
    try:
        await find_server()
    except ProgramUnavailable:
        return "sqlite"
    return "mysql"


@asynccontextmanager
async def cluster(kind: Kind, directory: Path, *, unready_seconds: float = UNREADY_SECONDS) -> AsyncGenerator[Cluster]:
    """A shop that is open; its logs stay in the directory. Raises `ProgramUnavailable` where there is no HAProxy."""
    logs = directory / "logs"
    logs.mkdir()
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(
            stage(kind, within=_IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None)
        )
        auth = await stack.enter_async_context(running_issuer())
        ports = api_ports()
        program, url = await balancer(directory, ports)

        def worker_of(program: Program) -> Deployment:
            @asynccontextmanager
            async def worker(build: str) -> AsyncGenerator[Started]:
                port = take_ports({"": 0})[""]
                settings = {"STREET12_WORKER_HEALTH_PORT": str(port), "STREET12_WORKER_BUILD_ID": build}
                log = logs / f"{program.name}-{build}.log"
                environment = {**program.environment, **settings}
                async with _logged(*program.command[1:], settings=environment, port=port, log=log) as one:
                    yield one

            return Deployment(program.name, worker)

        workers = [worker_of(here.shop.worker(team)) for team in reversed(TEAMS)]
        settings = {**here.shop.api().environment, **auth}
        apis = api_deployment(settings, ports, logs, unready_seconds=unready_seconds)
        await asyncio.gather(*(stack.enter_async_context(one) for one in (*workers, apis)))
        await stack.enter_async_context(balancing(program, logs))
        http = httpx2.AsyncClient(base_url=url, trust_env=False, timeout=_REQUEST_SECONDS, limits=LIMITS)
        yield Cluster(here, kind, await stack.enter_async_context(http), workers, apis)


@asynccontextmanager
async def balancing(program: Program, logs: Path) -> AsyncGenerator[None]:
    """HAProxy, which tells of each request that failed and of each process that came and went in a file."""
    with (logs / "haproxy.log").open("w") as log:
        supervisor = Supervisor(lambda _, line: print(line, file=log))
        try:
            await supervisor.start(program)
            yield
        finally:
            await supervisor.stop(asyncio.Event())


def api_ports() -> list[int]:
    """Ports for API processes: one more than run, for the next one."""
    return [*take_ports({f"api-{number}": 0 for number in range(API_REPLICAS + 1)}).values()]


def api_deployment(
    settings: Mapping[str, str], ports: Sequence[int], logs: Path, *, unready_seconds: float
) -> Deployment:
    """API processes with these settings, each on one of the ports."""
    free = [*ports]

    @asynccontextmanager
    async def api(build: str) -> AsyncGenerator[Started]:
        port = free.pop(0)
        own = {"STREET12_API_PORT": str(port), "STREET12_API_UNREADY_SECONDS": str(unready_seconds)}
        log = logs / f"api-{build}-{port}.log"
        async with _logged("api.py", settings={**settings, **NO_RATE_LIMIT, **own}, port=port, log=log) as one:
            yield one
        free.append(port)

    return Deployment("api", api, replicas=API_REPLICAS)


@asynccontextmanager
async def _logged(*arguments: str, settings: Mapping[str, str], port: int, log: Path) -> AsyncGenerator[Started]:
    """A program with these settings, and with what it says in a file."""
    with log.open("w") as file:
        settings = {**settings, "STREET12_LOG_FORMAT": "json"}
        async with started(*arguments, settings=settings, port=port, stdout=file, stderr=file) as one:
            yield one
