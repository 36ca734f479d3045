"""What the measurements run on: a shop in a temporary directory, made of the same programs as `make run`."""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from deploy.local import Shop
from deploy.stack import HOST, StackSettings, take_ports
from deploy.supervisor import Program, Supervisor, together
from services.delivery.stock import Warehouse
from services.shared.database import Database
from services.shared.settings import TEAMS, DatabaseSettings, Team
from tests.programs import clean_environment

Kind = Literal["mysql", "sqlite"]
PRODUCT_ID = "1001"
NO_LIMIT = 1_000_000
_PLENTY = 10_000_000
_LONGEST_COMPLAINT = 240
_DAY_MS = 24 * 3600 * 1000
_WHAT = {
    "Temporal server": "temporal",
    **{f"{team} worker": rf"(worker|bare)-{team}(-\d+)?" for team in TEAMS},
    "API": "(bare-)?api",
    "payment simulator": "payments",
    "MariaDB": "mariadb",
}
"""What the processes are, by the names of the programs."""


@dataclass(frozen=True)
class Stage:
    """An engine, a payment simulator and migrated databases. No worker and no API yet."""

    shop: Shop
    data_dir: Path
    supervisor: Supervisor
    more: list[Supervisor] = field(default_factory=list[Supervisor])
    """Who watches over what runs for a while only."""

    async def start_workers(self) -> None:
        """A worker process for each team of the shop."""
        await self.supervisor.start(*map(self.shop.worker, TEAMS))

    async def start_bare_workers(self) -> None:
        """As many for the bare workflow."""
        await self.supervisor.start(*map(self._bare_worker, TEAMS))

    async def start_api(self) -> None:
        """The shop's API process."""
        await self.supervisor.start(self.shop.api())

    @asynccontextmanager
    async def running(self, *programs: Program) -> AsyncGenerator[None]:
        """Keep more programs running for as long as the block does."""
        supervisor = Supervisor(_complain)
        self.more.append(supervisor)
        try:
            await supervisor.start(*programs)
            yield
        finally:
            await supervisor.stop(asyncio.Event())
            self.more.remove(supervisor)

    def another_worker(self, team: Team, number: int) -> Program:
        """One more worker process of a team."""
        return _elsewhere(self.shop.worker(team), f"worker-{team}-{number}")

    def bare_api(self) -> tuple[str, Program]:
        """The API process with bare handlers, and where it answers."""
        [port] = take_ports({"": 0}).values()
        url = f"http://{HOST}:{port}"
        api = self.shop.api()
        return url, replace(
            api,
            name="bare-api",
            command=[sys.executable, "-m", "tests.bench.bare_api"],
            environment={**api.environment, "STREET12_API_PORT": str(port)},
            ready_url=f"{url}/readyz",
        )

    def cpu(self) -> dict[str, float]:
        """The CPU seconds used so far, by what the processes are. This one plays the customers."""
        return {"customers": cpu_seconds([os.getpid()]), **cpu_by_what(self._pids())}

    def resident(self) -> dict[str, int]:
        """The bytes of memory that are resident now, by what the processes are."""
        return {what: sum(map(_resident, pids)) for what, pids in _by_what(self._pids()).items()}

    def _pids(self) -> dict[str, int]:
        return {name: pid for one in (self.supervisor, *self.more) for name, pid in one.pids.items()}

    def _bare_worker(self, team: Team) -> Program:
        command = [sys.executable, "-m", "tests.bench.bare_worker", "--team", team]
        return replace(_elsewhere(self.shop.worker(team), f"bare-{team}"), command=command)


@asynccontextmanager
async def stage(
    kind: Kind = "sqlite",
    *,
    max_pending: int = NO_LIMIT,
    dispatch_seconds: float = 1.0,
    within: Path | None = None,
) -> AsyncGenerator[Stage]:
    """A stage of its own, with the teams' databases on SQLite or MySQL, whatever the person's shell is set up for.

    Limits that would keep a crowd out are out of the way. What it keeps is in a directory `within`, or else where the
    machine has temporary files, and in the end it is gone.
    """
    with tempfile.TemporaryDirectory(prefix="street12-bench-", dir=within) as directory, clean_environment():
        data_dir = Path(directory)
        (data_dir / "run").mkdir()
        os.environ |= {  # for all processes
            "STREET12_DATA_DIR": directory,
            "STREET12_PAYMENT_KEY": "sk_test_bench",
            "STREET12_DISPATCH_SECONDS": str(dispatch_seconds),
            "STREET12_MAX_PENDING_PAYMENTS": str(max_pending),
            "STREET12_RATE_CALLER": f"{NO_LIMIT}/second",
            "STREET12_SLOW_PAYMENT_MS": str(_DAY_MS),
        }
        settings = StackSettings(
            api_port=0, temporal_port=0, temporal_ui_port=0, payment_port=0, codec_port=0, database=kind
        )
        shop = Shop(settings, DatabaseSettings(data_dir=data_dir), data_dir)
        supervisor = Supervisor(_complain)
        os.environ |= {  # for what runs in this one
            "TEMPORAL_ADDRESS": shop.urls.temporal,
            "TEMPORAL_CONFIG_FILE": os.devnull,
            "STREET12_PAYMENT_URL": shop.urls.payments,
        }
        try:
            await together(
                supervisor.start(shop.temporal()),
                supervisor.start(shop.payments()),
                shop.open_databases(supervisor),
            )
            os.environ |= shop.database_urls
            delivery = Database(DatabaseSettings().url("delivery"))
            await Warehouse(delivery).move(product_id=PRODUCT_ID, qty=_PLENTY, reason="bench", reference="bench")
            await delivery.close()
            yield Stage(shop, data_dir, supervisor)
        finally:
            await supervisor.stop(asyncio.Event())


def cpu_by_what(pids: Mapping[str, int]) -> dict[str, float]:
    """The CPU seconds that programs have used so far, by what they are."""
    return {what: cpu_seconds(of_it) for what, of_it in _by_what(pids).items()}


def _by_what(pids: Mapping[str, int]) -> dict[str, list[int]]:
    found = {what: [pid for name, pid in pids.items() if re.fullmatch(of, name)] for what, of in _WHAT.items()}
    return {what: of_it for what, of_it in found.items() if of_it}


def cpu_seconds(pids: Iterable[int]) -> float:
    """The CPU time that these processes have used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _elsewhere(worker: Program, name: str) -> Program:
    """A worker beside the one that it was made from."""
    [port] = take_ports({"": 0}).values()
    return replace(
        worker,
        name=name,
        environment={**worker.environment, "STREET12_WORKER_HEALTH_PORT": str(port)},
        ready_url=f"http://{HOST}:{port}/readyz",
    )


def _complain(tag: str, line: str) -> None:
    if tag == "mariadb" or "keys-unavailable" in line:
        return  # it warns of its own administrator; an API that is just starting has not seen its issuer's keys
    if tag == "shop" or ("[info" not in line and ("warn" in line.lower() or "error" in line.lower())):
        print(f"{tag}: {line[:_LONGEST_COMPLAINT]}", file=sys.stderr)
