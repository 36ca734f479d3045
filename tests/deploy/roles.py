"""What each process of the image reads of its environment, and so what a manifest may and must tell it."""

from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry.sdk import environment_variables

from services.shared.settings import (
    TEAMS,
    ApiSettings,
    AuthSettings,
    CodecServerSettings,
    CodecSettings,
    DatabaseSettings,
    LogSettings,
    NamespaceSettings,
    OrderSettings,
    PaymentSettings,
    PoolSettings,
    RateSettings,
    Settings,
    TraceSettings,
    WorkerSettings,
)
from tests.deploy.cluster import Workload
from tests.deploy.known import named

TEMPORAL = {
    *("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_API_KEY", "TEMPORAL_TLS"),
    *("TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"),
    *("TEMPORAL_TLS_SERVER_CA_CERT_PATH", "TEMPORAL_TLS_SERVER_NAME"),
}
"""Of what `temporalio.envconfig` reads: what a manifest may set."""
OTEL: set[str] = {name for name in dir(environment_variables) if name.startswith("OTEL_")}
_WORKER = (WorkerSettings, CodecSettings, DatabaseSettings, LogSettings, PoolSettings, TraceSettings)
_API = (
    *(ApiSettings, AuthSettings, CodecSettings, DatabaseSettings, LogSettings, OrderSettings, PoolSettings),
    *(RateSettings, TraceSettings),
)


@dataclass(frozen=True)
class Role:
    """What a process reads."""

    settings: tuple[type[Settings], ...]
    databases: tuple[str, ...] = ()
    """Whose database it uses: it is given these URLs and no others."""
    engine: bool = False
    port: str = ""
    """The variable that says where it listens; its host and liveness file are named alike."""

    @property
    def urls(self) -> set[str]:
        return {f"STREET12_{team.upper()}_DATABASE_URL" for team in self.databases}

    @property
    def names(self) -> set[str]:
        """The variables that it may be given."""
        read = {name for kind in self.settings for name in named(kind)}
        read -= {f"STREET12_{team.upper()}_DATABASE_URL" for team in TEAMS} - self.urls
        read |= TEMPORAL if self.engine else set[str]()
        return read | OTEL if TraceSettings in self.settings else read


ROLES: Mapping[str, Role] = {
    "api": Role(_API, TEAMS, engine=True, port="STREET12_API_PORT"),
    "local-api": Role(_API, TEAMS, engine=True, port="STREET12_API_PORT"),
    "worker --team order": Role(
        (*_WORKER, OrderSettings, PaymentSettings), ("order",), engine=True, port="STREET12_WORKER_HEALTH_PORT"
    ),
    "worker --team delivery": Role(_WORKER, ("delivery",), engine=True, port="STREET12_WORKER_HEALTH_PORT"),
    "worker --team marketing": Role(_WORKER, ("marketing",), engine=True, port="STREET12_WORKER_HEALTH_PORT"),
    "codec-server": Role(
        (CodecServerSettings, CodecSettings, AuthSettings, LogSettings), port="STREET12_CODEC_PORT"
    ),
    **{f"migrate --team {team}": Role((DatabaseSettings,), (team,)) for team in TEAMS},
    "migrate --demo": Role((DatabaseSettings,), TEAMS),
    "namespace": Role((NamespaceSettings, OrderSettings), engine=True),
}  # fmt: skip
"""By the arguments of the image's entry point."""


def role_of(workload: Workload) -> Role | None:
    """Nothing for what is not of the shop, and for the payment simulator, which reads nothing."""
    return ROLES.get(" ".join(workload.role))
