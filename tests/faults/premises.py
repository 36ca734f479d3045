"""The whole shop as processes that can be hit, behind wires that can be disturbed, its databases on their own disk.

As in production, the order and delivery teams are on MySQL and marketing is on what it chose.
"""

import os
import shutil
import signal
from asyncio import Event
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import make_url

from deploy.local import MARIADB, Shop
from deploy.mariadb import prepare
from deploy.stack import HOST, StackSettings
from deploy.supervisor import Patience, Program, Say, Supervisor, together
from services.shared.settings import TEAMS, DatabaseSettings, Team
from tests.e2e.shop import NO_RATE_LIMIT
from tests.faults.disk import Disk, NoDisk, mounted_disk
from tests.faults.wires import Wires
from tests.issuer import TEST_ISSUER
from tests.programs import clean_environment

_QUICK_STOP = {"STREET12_WORKER_GRACE_SECONDS": "5", "STREET12_WORKER_HARD_DEADLINE_SECONDS": "10"}
# What is killed is started again at once, however often that happens.
_PATIENCE = Patience(first_pause=0.1, longest_pause=0.5, deaths_before_ready=10)


@dataclass(frozen=True)
class Premises:
    """A shop that runs, and where to hit it."""

    shop: Shop
    supervisor: Supervisor
    programs: Mapping[str, Program]
    wires: Wires
    disk: Disk | None
    no_disk: str
    """Why there is no disk."""

    def signal(self, process: str, number: signal.Signals) -> int:
        """Send a signal; says to which pid."""
        pid = self.supervisor.pids[process]
        os.kill(pid, number)
        return pid


@asynccontextmanager
async def premises(data_dir: Path, settings: Mapping[str, str], say: Say) -> AsyncGenerator[Premises]:
    """A shop that is open. In the end nothing of it is left but the files in its data directory."""
    (data_dir / "run").mkdir(parents=True)
    TEST_ISSUER.keep_in(data_dir)
    async with AsyncExitStack() as stack:
        disk, no_disk = None, ""
        try:
            disk = stack.enter_context(mounted_disk(data_dir / "disk"))
        except NoDisk as error:
            no_disk = str(error)
        if disk is not None:
            await _move_databases(data_dir, disk)
            stack.callback(_move_back, data_dir, disk)
        with _environment(data_dir, settings):
            ports = dict.fromkeys(("api_port", "temporal_port", "temporal_ui_port", "payment_port", "codec_port"), 0)
            shop = Shop(StackSettings(**ports, database="mysql"), DatabaseSettings(), data_dir)
        supervisor = Supervisor(say, patience=_PATIENCE)
        stack.push_async_callback(supervisor.stop, Event())
        await together(
            supervisor.start(shop.temporal()), supervisor.start(shop.payments()), shop.open_databases(supervisor)
        )
        wires, detours = _detours(shop)
        await supervisor.start(wires.program)

        def rerouted(program: Program) -> Program:
            return replace(program, environment={k: detours.get(v, v) for k, v in program.environment.items()})

        programs = [rerouted(shop.api()), *(rerouted(shop.worker(team)) for team in TEAMS)]
        await together(*(supervisor.start(program) for program in programs))
        assert shop.mariadb is not None
        programs += [shop.temporal(), shop.payments(), shop.mariadb.program()]
        yield Premises(shop, supervisor, {program.name: program for program in programs}, wires, disk, no_disk)


def _detours(shop: Shop) -> tuple[Wires, Mapping[str, str]]:
    """The wires, and for each address of a server what takes its place: the same by way of its wire."""
    payments, temporal = urlsplit(shop.urls.payments), urlsplit(f"//{shop.urls.temporal}")
    on_mysql = {url: make_url(url) for url in database_urls(shop).values() if url.startswith("mysql")}
    ends: list[tuple[str, str | None, int | None, bool]] = [
        ("payments' wire", payments.hostname, payments.port, False),
        ("temporal's wire", temporal.hostname, temporal.port, False),
        *(
            (f"{team} database's wire", on_mysql[url].host, on_mysql[url].port, True)
            for team, url in database_urls(shop).items()
            if url in on_mysql
        ),
    ]
    wires = Wires([(name, host, port, mysql) for name, host, port, mysql in ends if host and port])
    to_payments, to_temporal, *to_mysql = (wire.listen for wire in wires.wires)
    detours = {
        shop.urls.payments: f"http://{HOST}:{to_payments}",
        shop.urls.temporal: f"{HOST}:{to_temporal}",
        **{
            url: on_mysql[url].set(host=HOST, port=port).render_as_string(hide_password=False)
            for url, port in zip(on_mysql, to_mysql, strict=True)
        },
    }
    return wires, detours


def database_urls(shop: Shop) -> dict[Team, str]:
    """Where each team's database is, not behind any wire."""
    return {team: shop.database_urls[f"STREET12_{team.upper()}_DATABASE_URL"] for team in TEAMS}


async def _move_databases(data_dir: Path, disk: Disk) -> None:
    """Have the MySQL server's files on the disk. Where the shop looks for them, it finds them."""
    server = data_dir / MARIADB
    await prepare(server, port=0)
    shutil.move(server, disk.root / MARIADB)
    server.symlink_to(disk.root / MARIADB)


def _move_back(data_dir: Path, disk: Disk) -> None:
    """Before the disk is gone: whoever wants to know what went wrong needs what is on it."""
    (data_dir / MARIADB).unlink()
    disk.free()
    for one in disk.root.iterdir():
        copy = shutil.copytree if one.is_dir() else shutil.copy2
        copy(one, data_dir / one.name)


@contextmanager
def _environment(data_dir: Path, settings: Mapping[str, str]) -> Generator[None]:
    """What the shop's processes are started with, whatever the person's shell is set up for."""
    disk = data_dir / "disk"
    marketing = (disk if disk.exists() else data_dir) / "marketing.db"
    with clean_environment():
        own = {
            "STREET12_DATA_DIR": str(data_dir),
            "STREET12_LOG_FORMAT": "json",
            "STREET12_MARKETING_DATABASE_URL": f"sqlite+aiosqlite:///{marketing}",
        }
        os.environ |= {**own, **NO_RATE_LIMIT, **_QUICK_STOP, **settings}
        yield
