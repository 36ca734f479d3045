"""The overlays that are checked, each with what runs before its roll-out, and the components that somebody may add."""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.shared.settings import TEAMS
from tests.deploy.cluster import Cluster
from tests.deploy.kustomize import KUBERNETES, Object, render

_COMPONENTS = KUBERNETES / "components"
_ACCOUNTS = ("", "-owner")
SECRETS = {
    **{(f"{team}-database{account}", "url"): f"mysql+aiomysql://{team}{account}:pass@db/{team}" for team in TEAMS
       for account in _ACCOUNTS},
    ("payment", "key"): "sk_live_something",
    ("codec", "keys"): f"first:{b64encode(bytes(32)).decode()}",
    ("temporal", "apiKey"): "an API key",
    ("temporal", "tls.crt"): "a certificate",
    ("temporal", "tls.key"): "its key",
    ("temporal", "ca.crt"): "the CA of both",
    ("rates", "url"): "redis://shop:pass@rates:6379/0",
    ("shop-tls", "tls.crt"): "a certificate",
    ("codec-tls", "tls.crt"): "a certificate",
}  # fmt: skip
"""The secrets that production has to have, with something in each that could be there."""


@dataclass(frozen=True)
class Overlay:
    """Kustomizations that are applied one after the other, with components added to each."""

    name: str
    directories: Sequence[str]
    components: Sequence[str] = ()
    only_here: Sequence[str] = ()
    """Components for the last of them alone."""

    def render(self, kubectl: Path) -> Cluster:
        """What is in the cluster in the end. Raises `CannotBeRendered`."""
        found: dict[tuple[str, str, str], Object] = {}
        for number, directory in enumerate(self.directories, start=1):
            more = [*self.components, *(self.only_here if number == len(self.directories) else ())]
            for one in render(kubectl, KUBERNETES / directory, *(_COMPONENTS / name for name in more)):
                key = (one["apiVersion"], one["kind"], one["metadata"]["name"])
                assert found.setdefault(key, one) == one, f"{directory} changes {key}"
        kept = SECRETS if not any(kind == "Secret" for _, kind, _ in found) else _generated([*found.values()])
        return Cluster([*found.values()], kept)


def _generated(objects: list[Object]) -> dict[tuple[str, str], str]:
    return {
        (one["metadata"]["name"], key): b64decode(value).decode()
        for one in objects
        if one["kind"] == "Secret"
        for key, value in one["data"].items()
    }


_PRODUCTION = ("overlays/production/migrate", "overlays/production")
OVERLAYS = [
    Overlay("local", ["overlays/local/migrate", "overlays/local"]),
    Overlay("production", _PRODUCTION),
    Overlay("production, versioned", ["overlays/production/migrate", "overlays/production-versioned"]),
    Overlay("production, API key", _PRODUCTION, ["temporal-cloud-api-key"]),
    Overlay("production, mTLS", _PRODUCTION, ["temporal-cloud-mtls"], ["temporal-mtls/scaling"]),
    Overlay(
        "versioned, API key",
        _PRODUCTION,
        ["temporal-cloud-api-key"],
        ["versioned-workers", "temporal-cloud-api-key/versioned"],
    ),
    Overlay("versioned, mTLS", _PRODUCTION, ["temporal-cloud-mtls"], ["versioned-workers", "temporal-mtls/versioned"]),
    Overlay(
        "production, own mTLS",
        _PRODUCTION,
        ["temporal-mtls", "temporal-mtls/own-authority"],
        ["temporal-mtls/scaling", "temporal-mtls/own-authority/scaling"],
    ),
    Overlay(
        "versioned, own mTLS",
        _PRODUCTION,
        ["temporal-mtls", "temporal-mtls/own-authority"],
        ["versioned-workers", "temporal-mtls/versioned"],
    ),
    Overlay("production, own authority of databases", _PRODUCTION, ["database-authority"]),
    Overlay("production, shared rates", _PRODUCTION, (), ["shared-rates"]),
]
