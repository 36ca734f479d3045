"""Settings, read from the environment once per process by its composition root and passed on from there.

Temporal's own connection is not here: `temporalio.envconfig` reads the standard `TEMPORAL_*` variables.
"""

from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

Team = Literal["order", "delivery", "marketing"]
TEAMS: tuple[Team, ...] = ("order", "delivery", "marketing")


_DRIVERS = ("mysql+aiomysql", "sqlite+aiosqlite")
_SettingsT = TypeVar("_SettingsT", bound=BaseSettings)


class WrongSetting(Exception):
    """A setting that cannot be used, in one sentence for the person who started the process."""


def read_settings(kind: type[_SettingsT]) -> _SettingsT:
    """Settings from the environment. Raises `WrongSetting` naming the wrong one, what it is and what is allowed."""
    try:
        return kind()
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        name = str(wrong["loc"][0])
        name = name if name.isupper() else f"{kind.model_config.get('env_prefix', '')}{name}".upper()
        given = "is not set" if wrong["type"] == "missing" else f"is {wrong['input']!r}"
        if str(wrong["loc"][0]).endswith("_url"):
            given = "cannot be used"  # it may hold a password
        raise WrongSetting(f"The setting {name} {given}: {wrong['msg'].removeprefix('Value error, ')}.") from None


class LogSettings(BaseSettings):
    """How a process logs (`STREET12_LOG_…`): JSON unless a person reads it on a terminal."""

    model_config = SettingsConfigDict(env_prefix="STREET12_LOG_", env_ignore_empty=True, frozen=True)

    format: Literal["auto", "json", "terminal"] = "auto"


class PoolSettings(BaseSettings):
    """How a process uses a database (`STREET12_POOL_…`). Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="STREET12_POOL_", env_ignore_empty=True, frozen=True)

    size: int = Field(default=5, ge=1)
    overflow: int = Field(default=5, ge=0)
    recycle_seconds: int = Field(default=60, ge=1)
    """The age at which a connection is replaced. A client that vanished keeps its locks a little longer than this."""
    transaction_seconds: float = Field(default=5.0, gt=0)
    """The longest that a transaction may take, its repetitions and the wait for a connection included."""
    attempts: int = Field(default=5, ge=1)
    """How often a transaction that the database asks to repeat is tried in all."""


class DatabaseSettings(BaseSettings):
    """Each team's own database: a URL, or else an SQLite file of its own in the data directory."""

    model_config = SettingsConfigDict(env_prefix="STREET12_", env_ignore_empty=True, frozen=True)

    data_dir: Path = Path(".local")
    order_database_url: SecretStr | None = None
    delivery_database_url: SecretStr | None = None
    marketing_database_url: SecretStr | None = None

    @field_validator("order_database_url", "delivery_database_url", "marketing_database_url")
    @classmethod
    def _can_be_used(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                url = make_url(value.get_secret_value())
            except (ArgumentError, ValueError):
                url = None
            # An @ in the database's name is one of the password that was not encoded.
            if url is None or url.drivername not in _DRIVERS or (url.port or 0) > 65535 or "@" in (url.database or ""):
                raise ValueError(
                    "it must be mysql+aiomysql://user:password@host:port/name or sqlite+aiosqlite:////absolute/path,"
                    " special characters of the password percent-encoded"
                )
        return value

    def url(self, team: Team) -> str:
        """The SQLAlchemy URL of a team's database; it may hold a password."""
        given: SecretStr | None = getattr(self, f"{team}_database_url")
        return given.get_secret_value() if given is not None else f"sqlite+aiosqlite:///{self.file(team).absolute()}"

    def file(self, team: Team) -> Path:
        """Where a team's database is kept that has no URL."""
        return self.data_dir / f"{team}.db"

    @property
    def without_url(self) -> list[Team]:
        """The teams whose database has no URL."""
        return [team for team in TEAMS if getattr(self, f"{team}_database_url") is None]


class PaymentSettings(BaseSettings):
    """The payment provider (`STREET12_PAYMENT_…`). Stripe itself, or something that speaks its wire."""

    model_config = SettingsConfigDict(env_prefix="STREET12_PAYMENT_", env_ignore_empty=True, frozen=True)

    url: str = "https://api.stripe.com"
    key: SecretStr
    timeout_seconds: float = Field(default=8.0, gt=0)
    """The longest that one call to the provider may take."""


class OrderSettings(BaseSettings):
    """The order team's rules that a shop may want to set (`STREET12_…`)."""

    model_config = SettingsConfigDict(env_prefix="STREET12_", env_ignore_empty=True, frozen=True)

    delivery_deadline_hours: float = Field(default=24 * 7, gt=0)
    """An order not delivered this long after its delivery started is flagged for a person."""
    dispatch_seconds: float = Field(default=1.0, gt=0)
    """How often the dispatcher looks for accepted orders that have no workflow."""
    dispatch_lease_seconds: float = Field(default=10.0, gt=0)
    """How long an accepted order belongs to the process that is starting it."""

    @property
    def delivery_deadline(self) -> timedelta:
        return timedelta(hours=self.delivery_deadline_hours)


class ApiSettings(BaseSettings):
    """The HTTP process (`STREET12_API_…`)."""

    model_config = SettingsConfigDict(env_prefix="STREET12_API_", env_ignore_empty=True, frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    drain_seconds: float = Field(default=10.0, ge=0)
    """How long requests in flight may take to finish after SIGTERM."""


class WorkerSettings(BaseSettings):
    """A worker process (`STREET12_WORKER_…`)."""

    model_config = SettingsConfigDict(env_prefix="STREET12_WORKER_", env_ignore_empty=True, frozen=True)

    health_host: str = "127.0.0.1"
    health_port: int = Field(default=0, ge=0, le=65535)
    """Where `/livez` and `/readyz` answer; 0 takes any free port, which the log then names."""
    liveness_file: Path | None = None
    """Touched every 5 s while the event loop turns."""
    grace_seconds: float = Field(default=20.0, ge=0)
    """How long activities in flight may take to finish after SIGTERM."""
    hard_deadline_seconds: float = Field(default=30.0, gt=0)
    """The process ends this long after SIGTERM, whatever is still running."""
    build_id: str = Field(
        default="local", validation_alias=AliasChoices("TEMPORAL_WORKER_BUILD_ID", "STREET12_WORKER_BUILD_ID")
    )
