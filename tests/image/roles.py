"""The shop, every role of it in a container: which settings each is given, and where it then answers."""

from dataclasses import dataclass, field
from pathlib import Path

from deploy.issuer import AUDIENCE, ISSUER, JWKS_PATH
from deploy.stack import HOST, take_ports
from services.shared.settings import TEAMS, Team
from tests.image.container import Container
from tests.image.engine import Engine

DATABASES = Path(__file__).parents[2] / "deploy" / "laptop" / "databases.sql"
_READY = {"payments": "/healthz"}


@dataclass(frozen=True)
class Roles:
    """Starts containers of the two images. Each role gets what it needs and nothing else."""

    engine: Engine
    release: str
    laptop: str
    temporal: str
    mysql_port: int
    codec_keys: str
    data_dir: Path
    """With the issuer's key; what is written there is its own user's."""
    suffix: str
    """Of the containers' names, so that nobody else has them."""
    ports: dict[str, int] = field(
        default_factory=lambda: take_ports(
            dict.fromkeys(("api", "local-api", "payments", "codec-server", *(f"worker-{team}" for team in TEAMS)), 0)
        )
    )

    def url(self, name: str) -> str:
        """Where a process answers."""
        return f"http://{HOST}:{self.ports[name]}"

    def ready_url(self, name: str) -> str:
        """Where a process says that it is ready."""
        return self.url(name) + _READY.get(name, "/readyz")

    async def migrate(self, team: Team) -> tuple[int, str]:
        settings = self._database(team, "_owner")
        return await Container.finish(self.engine, self.release, "migrate", "--team", team, settings=settings)

    async def namespace(self) -> tuple[int, str]:
        settings = {"TEMPORAL_ADDRESS": self.temporal}
        return await Container.finish(self.engine, self.release, "namespace", settings=settings)

    async def payments(self) -> Container:
        arguments = ("--host", HOST, "--port", str(self.ports["payments"]), "--ledger", "/tmp/payments.db")
        return await Container.run(self.engine, self.laptop, self._named("payments"), "payments", *arguments)

    async def worker(self, team: Team) -> Container:
        payment = {"STREET12_PAYMENT_URL": self.url("payments"), "STREET12_PAYMENT_KEY": "sk_test_image"}
        return await self._run(
            f"worker-{team}",
            *("worker", "--team", team),
            TEMPORAL_ADDRESS=self.temporal,
            STREET12_CODEC_KEYS=self.codec_keys,
            STREET12_WORKER_HEALTH_HOST=HOST,
            STREET12_WORKER_HEALTH_PORT=str(self.ports[f"worker-{team}"]),
            **self._database(team),
            **(payment if team == "order" else {}),
        )

    async def api(self, name: str = "api") -> Container:
        return await self._run(name, "api", **self._api("api"))

    async def local_api(self) -> Container:
        """The laptop's API, in which the issuer is."""
        return await Container.run(
            self.engine,
            self.laptop,
            self._named("local-api"),
            "local-api",
            settings={**self._api("local-api"), "STREET12_DATA_DIR": "/data"},
            mounts=[f"{self.data_dir}:/data"],
        )

    async def codec_server(self) -> Container:
        return await self._run(
            "codec-server",
            "codec-server",
            STREET12_CODEC_KEYS=self.codec_keys,
            STREET12_CODEC_HOST=HOST,
            STREET12_CODEC_PORT=str(self.ports["codec-server"]),
            **self._auth,
        )

    def _api(self, role: str) -> dict[str, str]:
        return {
            "TEMPORAL_ADDRESS": self.temporal,
            "STREET12_CODEC_KEYS": self.codec_keys,
            "STREET12_API_HOST": HOST,
            "STREET12_API_PORT": str(self.ports[role]),
            **self._auth,
            **{name: url for team in TEAMS for name, url in self._database(team).items()},
        }

    @property
    def _auth(self) -> dict[str, str]:
        return {
            "STREET12_AUTH_ISSUER": ISSUER,
            "STREET12_AUTH_AUDIENCE": AUDIENCE,
            "STREET12_AUTH_JWKS_URL": f"{self.url('local-api')}{JWKS_PATH}",
        }

    def _database(self, team: Team, who: str = "") -> dict[str, str]:
        name, password = f"street12_{team}", f"laptop-{team}{who.replace('_', '-')}"
        url = f"mysql+aiomysql://{name}{who}:{password}@{HOST}:{self.mysql_port}/{name}?charset=utf8mb4"
        return {f"STREET12_{team.upper()}_DATABASE_URL": url}

    async def _run(self, name: str, *role: str, **settings: str) -> Container:
        return await Container.run(self.engine, self.release, self._named(name), *role, settings=settings)

    def _named(self, name: str) -> str:
        return f"{name}-{self.suffix}"
