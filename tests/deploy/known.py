"""The settings that exist, as the environment names them."""

from collections.abc import Generator
from typing import Any

from pydantic import AliasChoices

import deploy.stack  # for its settings
from services.shared.settings import Settings

OF_OTHERS = ("TEMPORAL_", "OTEL_")
"""How the names begin of what the engine's and OpenTelemetry's own libraries read."""
_ = deploy.stack.StackSettings


def settings() -> dict[str, Any]:
    """Each setting's default by its name; a setting that has two names is there twice."""
    return {name: default for kind in _groups(Settings) for name, default in named(kind).items()}


def is_known(name: str) -> bool:
    """Whether anything reads this variable of the environment."""
    return name in settings() or name.startswith(OF_OTHERS) or name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")


def named(kind: type[Settings]) -> dict[str, Any]:
    """The defaults of one group of settings, by the variables that it is read from."""
    prefix = kind.model_config.get("env_prefix", "")
    found: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else [alias or f"{prefix}{name}"]
        found |= {str(one).upper(): field.default for one in names}
    return found


def _groups(kind: type[Settings]) -> Generator[type[Settings]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _groups(narrower)
