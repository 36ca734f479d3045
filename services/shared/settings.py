"""Settings, read from the environment once per process by its composition root and passed on from there.

Temporal's own connection is not here: `temporalio.envconfig` reads the standard `TEMPORAL_*` variables.
"""

import re
from base64 import b64decode
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    AliasChoices,
    AnyHttpUrl,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from services.shared.tls import trust

Team = Literal["order", "delivery", "marketing"]
TEAMS: tuple[Team, ...] = ("order", "delivery", "marketing")
_TEN_YEARS = 10 * 365 * 24
_NO_BUILD = "local"
# No default port: browsers leave it out, so an origin that names it would match none.
_ORIGIN = re.compile(r"(?:http://(?!.*:80$)|https://(?!.*:443$))(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[1-9][0-9]{0,4})?")
_KEY_ID = re.compile("[A-Za-z0-9._-]{1,32}")
_KEY_BYTES = 32
_DRIVERS = ("mysql+aiomysql", "sqlite+aiosqlite")
_NOTHING_OF_TLS = re.compile("[?&](ssl|tls)[^=&]*=?(&|$)")
_REDIS_URL = re.compile(
    r"rediss?://([^\s:@/?#]*:[^\s:@/?#]+@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?(/[0-9]{0,4})?"
)
_SettingsT = TypeVar("_SettingsT", bound="Settings")


class Settings(BaseSettings):
    """A group of settings from the environment; one that is empty counts as not set."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, allow_inf_nan=False)


class WrongSetting(Exception):
    """A setting that cannot be used, in one sentence for the person who started the process."""


def read_settings(kind: type[_SettingsT], **given: Any) -> _SettingsT:
    """Settings from the environment, but for those `given`.

    Raises `WrongSetting` naming the wrong one, what it is and what is allowed.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        name = str(wrong["loc"][0])
        field = kind.model_fields.get(name)
        name = name if name.isupper() else f"{kind.model_config.get('env_prefix', '')}{name}".upper()
        if wrong["type"] == "missing":
            fault = "is not set"
        elif field is not None and SecretStr in (field.annotation, *get_args(field.annotation)):
            fault = "cannot be used"
        else:
            fault = f"is {wrong['input']!r}"
        raise WrongSetting(f"The setting {name} {fault}: {wrong['msg'].removeprefix('Value error, ')}.") from None


class LogSettings(Settings):
    """How a process logs (`STREET12_LOG_…`): JSON unless a person reads it on a terminal."""

    model_config = SettingsConfigDict(env_prefix="STREET12_LOG_")

    format: Literal["auto", "json", "terminal"] = "auto"


class TraceSettings(Settings):
    """Where spans go (OpenTelemetry's own `OTEL_…`, the rest of which its SDK reads); nowhere without an endpoint."""

    otel_exporter_otlp_endpoint: AnyHttpUrl | None = None
    otel_exporter_otlp_traces_endpoint: AnyHttpUrl | None = None
    otel_exporter_otlp_protocol: Literal["http/protobuf"] = "http/protobuf"
    otel_exporter_otlp_traces_protocol: Literal["http/protobuf"] = "http/protobuf"
    otel_traces_exporter: Literal["otlp", "none"] = "otlp"
    otel_sdk_disabled: bool = False

    @property
    def on(self) -> bool:
        """Whether this process traces at all."""
        endpoint = self.otel_exporter_otlp_endpoint or self.otel_exporter_otlp_traces_endpoint
        return endpoint is not None and self.otel_traces_exporter == "otlp" and not self.otel_sdk_disabled


class PoolSettings(Settings):
    """How a process uses a database (`STREET12_POOL_…`). Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="STREET12_POOL_")

    size: int = Field(default=5, ge=1)
    overflow: int = Field(default=5, ge=0)
    recycle_seconds: int = Field(default=60, ge=1)
    """The age at which a connection is replaced. A client that vanished keeps its locks a little longer than this."""
    transaction_seconds: float = Field(default=5.0, gt=0)
    """The longest that a transaction may take, its repetitions and the wait for a connection included."""
    attempts: int = Field(default=5, ge=1)
    """How often a transaction that the database asks to repeat is tried in all."""


class DatabaseSettings(Settings):
    """Each team's own database: a URL, or else an SQLite file of its own in the data directory."""

    model_config = SettingsConfigDict(env_prefix="STREET12_")

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
            if _NOTHING_OF_TLS.search(value.get_secret_value()):  # which the URL would drop
                raise ValueError("what it says of TLS is empty")
            trust(url)
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


class PaymentSettings(Settings):
    """The payment provider (`STREET12_PAYMENT_…`). Stripe itself, or something that speaks its wire."""

    model_config = SettingsConfigDict(env_prefix="STREET12_PAYMENT_")

    url: str = "https://api.stripe.com"
    key: SecretStr
    timeout_seconds: float = Field(default=8.0, gt=0)
    """The longest that one call to the provider may take."""


class OrderSettings(Settings):
    """The order team's rules that a shop may want to set (`STREET12_…`)."""

    model_config = SettingsConfigDict(env_prefix="STREET12_")

    order_link: str = ""
    """Where operators can look an order up, with `{orderId}` for its id; the Web UI links there."""
    delivery_deadline_hours: float = Field(default=24 * 7, gt=0, le=_TEN_YEARS)
    """An order not delivered this long after its delivery started is flagged for a person."""
    dispatch_seconds: float = Field(default=1.0, gt=0, le=86_400)
    """How often the dispatcher looks for accepted orders that have no workflow."""
    dispatch_lease_seconds: float = Field(default=10.0, gt=0, le=86_400)
    """How long an accepted order belongs to the process that is starting it."""
    idempotency_hours: float = Field(default=48.0, gt=0, le=_TEN_YEARS)
    """How long a caller's Idempotency-Key stands for the order that it brought; at least, and published."""
    payment_budget_hours: float = Field(default=24.0, gt=0, le=_TEN_YEARS)
    """A payment whose outcome could not be learned by then is called off, and its order flagged."""
    max_pending_payments: int = Field(default=3, ge=1)
    """How many accepted orders may wait for their payment at once. API and worker need the same of these three."""
    slow_payment_ms: int = Field(default=610, ge=1, le=86_400_000)
    """When the median of the last ten payments is above it, no orders are taken for a while."""
    admission_cooldown_seconds: float = Field(default=5.0, gt=0, le=86_400)
    """How long that is, until one order may try whether payments are fast again."""
    reconcile_minutes: float = Field(default=60.0, ge=1, le=10_080)
    """How often all that is said of orders is compared."""
    reconcile_days: float = Field(default=30.0, gt=0, le=3650)
    """How old the orders are that are compared, at most."""
    reconcile_keep_days: float = Field(default=90.0, ge=1, le=3650)
    """How long the reports of that are kept."""

    @property
    def delivery_deadline(self) -> timedelta:
        return timedelta(hours=self.delivery_deadline_hours)

    @property
    def payment_budget(self) -> timedelta:
        return timedelta(hours=self.payment_budget_hours)


class NamespaceSettings(Settings):
    """The engine's namespace, where the shop makes it (`STREET12_NAMESPACE_…`)."""

    model_config = SettingsConfigDict(env_prefix="STREET12_NAMESPACE_")

    retention_days: int | None = Field(default=None, ge=1, le=3650)
    """How long a new one keeps ended workflows; unless set, a week more than the reconciliation looks back."""


def _listed(value: object) -> object:
    return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else value


def _origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError("an origin must be as browsers write it, like https://shop.example or http://localhost:3000")
    return value


def _network(value: str) -> str:
    try:
        ip_network(value)
    except ValueError:
        raise ValueError("a proxy must be an address or a network, like 10.0.0.7 or 10.0.0.0/8") from None
    return value


def _own_address(value: str) -> str:
    try:
        address = ip_address(value)
    except ValueError:
        address = None
    if address is None or not address.is_private or address.is_unspecified:
        raise ValueError("it must be single private addresses, separated by commas, like 172.18.0.1")
    return value


_Origin = Annotated[str, AfterValidator(_origin)]
_Network = Annotated[str, AfterValidator(_network)]
ThisMachine = Annotated[tuple[Annotated[str, AfterValidator(_own_address)], ...], NoDecode, BeforeValidator(_listed)]
"""Addresses, beside its own loopback, from which this machine asks: in a container, whose published ports its callers
come by, that is the gateway of its network."""


class ApiSettings(Settings):
    """The HTTP process (`STREET12_API_…`)."""

    model_config = SettingsConfigDict(env_prefix="STREET12_API_")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    liveness_file: Path | None = None
    """Touched every 5 s while the event loop turns."""
    unready_seconds: float = Field(default=0.0, ge=0, le=3600)
    """How long after SIGTERM it still serves as ever while `/readyz` says 503, so that every balancer has noticed."""
    drain_seconds: int = Field(default=10, ge=0)
    """How long requests in flight may take to finish after that."""
    keep_alive_seconds: int = Field(default=5, ge=0, le=3600)
    """How long a connection may rest between two requests. Longer than a balancer lets it rest: whoever closes it first
    may meet the other's next request, and only the balancer knows that it has sent none."""
    max_requests: int = Field(default=256, ge=1)
    """How many requests are worked on at once; who comes on top is told to come back. Streams are not counted."""
    request_seconds: float = Field(default=15.0, gt=0, le=86_400)
    """The longest that a request may take, beside the time that its caller asked to wait."""
    cors_origins: Annotated[tuple[_Origin, ...], NoDecode, BeforeValidator(_listed)] = ()
    """The origins whose pages may call the API from a browser, separated by commas."""
    trusted_proxies: Annotated[tuple[_Network, ...], NoDecode, BeforeValidator(_listed)] = ()
    """Addresses and networks, separated by commas, that are believed when they say whose request they pass on."""


class AuthSettings(Settings):
    """Whose tokens the API takes (`STREET12_AUTH_…`): those of an OAuth 2 issuer that signs JWTs."""

    model_config = SettingsConfigDict(env_prefix="STREET12_AUTH_")

    issuer: str
    """What `iss` must be."""
    audience: str
    """What `aud` must be or hold."""
    jwks_url: AnyHttpUrl
    """Where the issuer's public keys are."""
    role_claim: str = "role"
    """The claim that says `operator` or `carrier`; without it, the caller is a customer."""


def codec_keys(text: str) -> dict[str, bytes]:
    """Keys by their id, in the order in which they are written. Raises `ValueError`, which repeats nothing of them."""
    keys: dict[str, bytes] = {}
    for number, pair in enumerate(text.split(","), start=1):
        key_id, _, encoded = pair.strip().partition(":")
        if not _KEY_ID.fullmatch(key_id):
            raise ValueError(
                f"pair {number} must be id:key, the id being 1 to 32 letters, digits, dots, dashes or underscores"
            )
        if key_id in keys:
            raise ValueError(f"pair {number} has the id of an earlier one: each key needs an id of its own")
        try:
            key = b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise ValueError(f"the key of pair {number} must be {_KEY_BYTES} bytes in base64 (openssl rand -base64 32)")
        keys[key_id] = key
    return keys


class CodecSettings(Settings):
    """How the engine's history is encrypted (`STREET12_CODEC_…`): the same for API, workers and codec server."""

    model_config = SettingsConfigDict(env_prefix="STREET12_CODEC_")

    encrypt: bool = True
    """Without it, what is new stands in clear, and plain payloads are accepted."""
    accept_plain: bool = False
    """Whether what stands in clear is read, too: until the last order has ended that began before there were keys."""
    keys: SecretStr | None = Field(default=None, validate_default=True)
    """Pairs of id:key, separated by commas, a key being 32 bytes in base64. The first encrypts, all of them decrypt."""

    @field_validator("keys")
    @classmethod
    def _can_be_used(cls, value: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if value is not None:
            codec_keys(value.get_secret_value())
        elif others.data.get("encrypt", True):
            raise PydanticCustomError(
                "missing",
                "without a key, what customers order would stand in the engine's history in clear;"
                " where that is meant, set STREET12_CODEC_ENCRYPT=false",
            )
        return value

    @property
    def by_id(self) -> dict[str, bytes]:
        """The keys, the one that encrypts first."""
        return {} if self.keys is None else codec_keys(self.keys.get_secret_value())


class CodecServerSettings(Settings):
    """The process that decrypts for the Web UI and the `temporal` command line (`STREET12_CODEC_…`)."""

    model_config = SettingsConfigDict(env_prefix="STREET12_CODEC_")

    host: str = "127.0.0.1"
    port: int = Field(default=8081, ge=0, le=65535)
    origins: Annotated[tuple[_Origin, ...], NoDecode, BeforeValidator(_listed)] = ()
    """The origins of the Web UI, separated by commas: no other page may ask."""
    liveness_file: Path | None = None
    """Touched every 5 s while the event loop turns."""
    this_machine: ThisMachine = Field(default=(), validation_alias="STREET12_THIS_MACHINE")
    """Where from else this machine asks."""
    tokens: bool = True
    """Whether who asks must show an operator's token. Without, it answers this machine alone."""

    @field_validator("tokens")
    @classmethod
    def _or_this_machine_alone(cls, value: bool, others: ValidationInfo) -> bool:
        here = others.data.get("host", "127.0.0.1") == "127.0.0.1" or others.data.get("this_machine")
        if not value and not here:
            raise ValueError(
                "without tokens, STREET12_CODEC_HOST must be 127.0.0.1, or anybody could decrypt"
                " (in a container whose port is published on 127.0.0.1, set STREET12_THIS_MACHINE to its gateway)"
            )
        return value


class RateSettings(Settings):
    """How many requests the API takes (`STREET12_RATE_…`); from whom exactly says `services/gateway/rates.py`."""

    model_config = SettingsConfigDict(env_prefix="STREET12_RATE_")

    caller: str = "600/minute"
    """From one caller."""
    address: str = "1200/minute"
    """From one address, without a valid token: mobile networks put many customers behind one."""
    redis_url: SecretStr | None = None
    """Where all API processes count together. Without it, each counts for itself."""

    @field_validator("caller", "address")
    @classmethod
    def _is_a_rate(cls, value: str) -> str:
        if not re.fullmatch("[1-9][0-9]{0,8}/(second|minute|hour|day)", value):
            raise ValueError("it must be a number of requests per second, minute, hour or day, like 600/minute")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis(cls, value: SecretStr | None) -> SecretStr | None:
        url = None if value is None else _REDIS_URL.fullmatch(value.get_secret_value())
        if value is not None and (url is None or int(url["port"] or 0) > 65535):
            raise ValueError(
                "it must be redis://user:password@host:port/number, or rediss:// for TLS,"
                " special characters of the password percent-encoded"
            )
        return value


class WorkerSettings(Settings):
    """A worker process (`STREET12_WORKER_…`)."""

    model_config = SettingsConfigDict(env_prefix="STREET12_WORKER_")

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
        default=_NO_BUILD, validation_alias=AliasChoices("TEMPORAL_WORKER_BUILD_ID", "STREET12_WORKER_BUILD_ID")
    )
    """Which build this is: a label in histories, and with a deployment's name the version that tasks are routed by."""
    deployment_name: str = Field(
        default="", validation_alias=AliasChoices("TEMPORAL_DEPLOYMENT_NAME", "STREET12_WORKER_DEPLOYMENT_NAME")
    )
    """With it the engine gives this worker what is meant for its version, and nothing until its version is current.

    Both are what the Temporal worker controller sets.
    """

    @field_validator("deployment_name")
    @classmethod
    def _needs_a_build(cls, value: str, others: ValidationInfo) -> str:
        if value and others.data.get("build_id") == _NO_BUILD:
            raise ValueError("with STREET12_WORKER_BUILD_ID it names a version, and that is not set")
        return value
