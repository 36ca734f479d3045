"""The whole shop on this machine with one command: `python -m deploy.local`, or `make run`.

Starts what it consists of, in order, watches over it, and stops it on Ctrl-C or SIGTERM. What it keeps is in the data
directory, so that the next start goes on where this one stopped.
"""

import asyncio
import io
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from deploy.apt import ProgramUnavailable
from deploy.history_key import codec_settings
from deploy.issuer import AUDIENCE, ISSUER, JWKS_PATH
from deploy.liveness import Liveness
from deploy.logstream import LogStream
from deploy.mariadb import MariaDb, is_prepared, prepare
from deploy.probes import READINESS
from deploy.stack import (
    HOST,
    Stack,
    StackError,
    StackSettings,
    Urls,
    check_database,
    data_directory,
    read_settings,
    stack_file,
    take_ports,
)
from deploy.supervisor import ChildFailed, Program, Say, Supervisor, together
from services.shared.settings import (
    TEAMS,
    ApiSettings,
    DatabaseSettings,
    OrderSettings,
    PoolSettings,
    RateSettings,
    Team,
    TraceSettings,
    WorkerSettings,
)
from workflows.messages import SEARCH_ATTRIBUTES

ROOT = Path(__file__).parent.parent
MARIADB = "mariadb"
"""The directory of the shop's own server, in the data directory."""
# One server for one machine: a queue needs no partitions, between which tasks are handed on; and the search attributes
# are all there before the first order, so that they need not be read again for each. Together a fifth of the CPU.
# Timers that are done are deleted twice a second: SQLite passes over all of them when the next ones are read. At the
# server's own pace, each 30 s, a busy shop's timers came to fire minutes late.
# A worker that ends says so, and the server then answers its polls instead of giving them one more task that nobody is
# there to take: such an activity would be tried again only after its whole attempt.
_ENGINE = (
    "frontend.enableCancelWorkerPollsOnShutdown=true",
    'history.timerProcessorUpdateAckInterval="500ms"',
    "history.timerTaskBatchSize=1000",
    "matching.numTaskqueueReadPartitions=1",
    "matching.numTaskqueueWritePartitions=1",
    "system.forceSearchAttributesCacheRefreshOnRead=false",
)
Opening = Callable[[Supervisor], Awaitable[None]]


class Shop:
    """What runs on this machine: its addresses and its programs."""

    def __init__(self, settings: StackSettings, databases: DatabaseSettings, data_dir: Path) -> None:
        ports = take_ports(
            {
                "STREET12_API_PORT": settings.api_port,
                "STREET12_TEMPORAL_PORT": settings.temporal_port,
                "STREET12_TEMPORAL_UI_PORT": settings.temporal_ui_port,
                "STREET12_PAYMENT_PORT": settings.payment_port,
                "STREET12_CODEC_PORT": settings.codec_port,
                "mariadb": 0,
                **dict.fromkeys(TEAMS, 0),  # where each team's worker tells whether it is ready
            }
        )
        self._ports = ports
        self._data_dir = data_dir
        self.mariadb: MariaDb | None = None
        self._on_mariadb = databases.without_url if settings.database == "mysql" else []
        self.database_urls = {_url_of(team): databases.url(team) for team in TEAMS}
        self.urls = Urls(
            api=f"http://{HOST}:{ports['STREET12_API_PORT']}",
            temporal=f"{HOST}:{ports['STREET12_TEMPORAL_PORT']}",
            temporalUi=f"http://{HOST}:{ports['STREET12_TEMPORAL_UI_PORT']}",
            payments=f"http://{HOST}:{ports['STREET12_PAYMENT_PORT']}",
            codec=f"http://{HOST}:{ports['STREET12_CODEC_PORT']}",
            metrics={
                "api": f"http://{HOST}:{ports['STREET12_API_PORT']}/metrics",
                **{f"worker-{team}": f"http://{HOST}:{ports[team]}/metrics" for team in TEAMS},
            },
        )
        self.codec = codec_settings(data_dir)
        keys = self.codec.keys.get_secret_value() if self.codec.keys else ""
        self._history = {"STREET12_CODEC_KEYS": keys}  # for those alone who write or read it
        # A Temporal Cloud account that the person's shell is set up for is not meant here.
        # And each worker is given its own team's database alone.
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("TEMPORAL_") and name not in (*self.database_urls, *self._history)
        }
        self._environment = {
            "STREET12_PAYMENT_KEY": "sk_test_local",
            "STREET12_LOG_FORMAT": "terminal",
            "STREET12_ORDER_LINK": f"{self.urls.api}/dev/orders/{{orderId}}",
            "STREET12_CODEC_ACCEPT_PLAIN": "true",  # an older data directory's histories are in clear
            **own,
            "PYTHONUNBUFFERED": "1",
            "TEMPORAL_ADDRESS": self.urls.temporal,
            "TEMPORAL_CONFIG_FILE": os.devnull,
            "STREET12_DATA_DIR": str(data_dir),
            "STREET12_PAYMENT_URL": self.urls.payments,
            "STREET12_API_PORT": str(ports["STREET12_API_PORT"]),
            "STREET12_AUTH_ISSUER": ISSUER,
            "STREET12_AUTH_AUDIENCE": AUDIENCE,
            "STREET12_AUTH_JWKS_URL": f"{self.urls.api}{JWKS_PATH}",
        }

    async def open(self, supervisor: Supervisor) -> None:
        """Start everything; what needs nothing of one another starts at once."""
        await together(
            self.open_engine(supervisor),
            supervisor.start(self.payments()),
            supervisor.start(self.codec_server()),
            self.open_databases(supervisor),
        )
        await together(supervisor.start(*map(self.worker, TEAMS)), supervisor.start(self.api()))

    async def open_engine(self, supervisor: Supervisor) -> None:
        """Start the engine, and give one that an earlier release had started what it lacks."""
        await supervisor.start(self.temporal())
        # The engine's development server forgets what ended a day ago, sooner than books are compared.
        await supervisor.finish(self._python("namespace", "-m", "deploy.namespace", "--lengthen-retention"))

    async def open_databases(self, supervisor: Supervisor) -> None:
        """Bring each team's database up to date, those on a MariaDB server of the shop's own after starting it.

        Their schema is changed by the server's administrator; the workers and the API come as users who cannot.
        Raises `StackError`.
        """
        owners: dict[str, str] = {}
        if self._on_mariadb:
            try:
                self.mariadb = await prepare(self._data_dir / MARIADB, port=self._ports["mariadb"])
            except ProgramUnavailable as error:
                raise StackError(f"STREET12_DATABASE is mysql, but {error}") from None
            await supervisor.start(self.mariadb.program())
            for team in self._on_mariadb:
                access = await self.mariadb.create_database(f"street12_{team}")
                owners[_url_of(team)] = access.owner
                self.database_urls[_url_of(team)] = access.user
        await supervisor.finish(self.databases(**owners))

    def temporal(self) -> Program:
        binary = Path(sys.executable).with_name("temporal")
        # A new one has them from the beginning: what is added later it comes to know within a minute.
        attributes = [f"--search-attribute={name}={kind}" for name, kind in SEARCH_ATTRIBUTES.items()]
        return Program(
            name="temporal",
            command=[
                *(str(binary), "server", "start-dev", "--ip", HOST, "--log-level", "warn"),
                *("--port", str(self._ports["STREET12_TEMPORAL_PORT"])),
                *("--ui-port", str(self._ports["STREET12_TEMPORAL_UI_PORT"])),
                *("--ui-codec-endpoint", self.urls.codec),
                *("--db-filename", str(self._data_dir / "temporal.db")),
                *("--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=1"),
                *(part for setting in _ENGINE for part in ("--dynamic-config-value", setting)),
                *attributes,
            ],
            environment=self._environment,
            # Asked through the Web UI, so that both have come up.
            ready_url=f"{self.urls.temporalUi}/api/v1/namespaces/default",
            silent_stop=True,  # it complains of every connection that it closes itself
        )

    def payments(self) -> Program:
        port = str(self._ports["STREET12_PAYMENT_PORT"])
        ledger = str(self._data_dir / "payments.db")
        return self._python(
            "payments",
            *("-m", "deploy.payments", "--host", HOST, "--port", port, "--ledger", ledger),
            ready_url=f"{self.urls.payments}/healthz",
        )

    def codec_server(self) -> Program:
        """Without tokens, because the Web UI of the engine's development server has no login."""
        port = str(self._ports["STREET12_TEMPORAL_UI_PORT"])
        return self._python(
            "codec",
            *("-m", "deploy.codec_server"),
            ready_url=f"{self.urls.codec}/readyz",
            liveness_file="STREET12_CODEC_LIVENESS_FILE",
            STREET12_CODEC_HOST=HOST,
            STREET12_CODEC_PORT=str(self._ports["STREET12_CODEC_PORT"]),
            STREET12_CODEC_ORIGINS=f"{self.urls.temporalUi},http://localhost:{port}",
            STREET12_CODEC_TOKENS="false",
            **self._history,
        )

    def databases(self, **owners: str) -> Program:
        return self._python("databases", "-m", "deploy.migrate", "--demo", **self.database_urls | owners)

    def worker(self, team: Team) -> Program:
        port = self._ports[team]
        return self._python(
            f"worker-{team}",
            *("worker.py", "--team", team),
            ready_url=f"http://{HOST}:{port}/readyz",
            liveness_file="STREET12_WORKER_LIVENESS_FILE",
            STREET12_WORKER_HEALTH_PORT=str(port),
            **{_url_of(team): self.database_urls[_url_of(team)]},
            **self._history,
        )

    def api(self) -> Program:
        return self._python(
            "api",
            *("-m", "deploy.local_api"),
            ready_url=f"{self.urls.api}/readyz",
            liveness_file="STREET12_API_LIVENESS_FILE",
            **self.database_urls,
            **self._history,
        )

    def _python(
        self, name: str, *arguments: str, ready_url: str = "", liveness_file: str = "", **environment: str
    ) -> Program:
        """A program of the shop's own; `liveness_file` is the setting that names it, where the program touches one."""
        liveness = None
        if liveness_file:
            file = self._data_dir / "run" / f"{name}.alive"
            liveness = Liveness(url=ready_url.removesuffix(READINESS.path), file=file)
            environment[liveness_file] = str(file)
        return Program(
            name=name,
            command=[sys.executable, *arguments],
            environment=self._environment | environment,
            directory=ROOT,
            ready_url=ready_url,
            liveness=liveness,
        )


async def run(data_dir: Path, urls: Urls, opening: Opening, say: Say, opened: Callable[[], None]) -> None:
    """Open the shop, keep it open until SIGINT, SIGTERM or SIGHUP, close it. Raises `ChildFailed`."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
            loop.add_signal_handler(number, lambda: (hurry if stop.is_set() else stop).set())
    is_open = False

    def publish() -> None:
        if is_open:
            try:
                Stack(urls=urls, processes=supervisor.pids).write(data_dir)
            except OSError as error:
                say("shop", f"{stack_file(data_dir)} cannot be written: {error.strerror}")

    supervisor = Supervisor(say, spawned=publish)
    try:
        stopping = asyncio.create_task(stop.wait())
        starting = asyncio.ensure_future(opening(supervisor))
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            is_open = True
            publish()
            opened()
            await stopping
        else:
            starting.cancel()
            with suppress(asyncio.CancelledError):
                await starting
    finally:
        say("shop", "stopping (Ctrl-C again: at once) …")
        stop.set()
        await supervisor.stop(hurry)
        stack_file(data_dir).unlink(missing_ok=True)
        say("shop", "stopped")


def check_data(settings: StackSettings, databases: DatabaseSettings, data_dir: Path) -> None:
    """Raises `StackError` when what an earlier shop left in the data directory cannot be gone on with."""
    files = [databases.file(team) for team in databases.without_url]
    if settings.database == "mysql":
        other, there = "sqlite", any(file.exists() for file in files)
    else:
        other, there = "mysql", bool(files) and is_prepared(data_dir / MARIADB)
    if there:
        raise StackError(
            f"The orders in {data_dir} were taken with STREET12_DATABASE={other}: set that,"
            " or set STREET12_DATA_DIR to another directory."
        )
    for file in (data_dir / "temporal.db", data_dir / "payments.db", *files):
        check_database(file)


def what_runs_where(urls: Urls, mariadb: MariaDb | None, data_dir: Path, seconds: float) -> Table:
    table = Table(title=f"12번가 is open ({seconds:.1f} s)", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # whole, to be copied
    table.add_row("Shop API", urls.api)
    table.add_row("… to try it", f"{urls.api}/docs")
    table.add_row("Temporal Web UI", urls.temporalUi)
    table.add_row("… its server", urls.temporal)
    table.add_row("… what decrypts for both", urls.codec)
    table.add_row("Payment simulator", urls.payments)
    table.add_row("… its ledger", f"{urls.payments}/ledger")
    table.add_row("Metrics", "\n".join(urls.metrics.values()))
    if mariadb is not None:
        table.add_row("MariaDB", f"mariadb --socket={mariadb.socket}")
    table.add_row("Data", str(data_dir))
    table.add_row("A first order", "make demo, in another terminal")
    table.add_row("Stop", "Ctrl-C")
    return table


def _url_of(team: Team) -> str:
    return f"STREET12_{team.upper()}_DATABASE_URL"


def main() -> int:
    """The process's exit status: 0 when the shop was stopped, 1 when it could not run here."""
    began = time.monotonic()
    # A terminal that cannot write Korean is no reason to stop.
    cast("io.TextIOWrapper[Any]", sys.stdout).reconfigure(errors="replace")
    say = LogStream(Console())
    try:
        settings = read_settings(StackSettings)
        databases = read_settings(DatabaseSettings)
        for kind in (PoolSettings, OrderSettings, ApiSettings, RateSettings, TraceSettings, WorkerSettings):
            read_settings(kind)  # what the children will read
        with data_directory(settings.data_dir) as data_dir:
            stack_file(data_dir).unlink(missing_ok=True)
            check_data(settings, databases, data_dir)
            shop = Shop(settings, databases, data_dir)
            say("shop", "opening …")

            def opened() -> None:
                say.show(what_runs_where(shop.urls, shop.mariadb, data_dir, time.monotonic() - began))

            asyncio.run(run(data_dir, shop.urls, shop.open, say, opened))
    except (StackError, ChildFailed) as error:
        print(f"street12: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
