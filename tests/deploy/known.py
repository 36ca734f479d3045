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
    return dict(_named(Settings))


def is_known(name: str) -> bool:
    """Whether anything reads this variable of the environment."""
    return name in settings() or name.startswith(OF_OTHERS) or name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")


def _named(kind: type[Settings]) -> Generator[tuple[str, Any]]:
    prefix = kind.model_config.get("env_prefix", "")
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else [alias or f"{prefix}{name}"]
        yield from ((str(one).upper(), field.default) for one in names)
    for narrower in kind.__subclasses__():
        yield from _named(narrower)
