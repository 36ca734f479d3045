"""The environment that a container of the shop really gets: the image's, then what the manifest adds."""

import os
from collections.abc import Iterator
from typing import Any, TypeVar
from unittest.mock import patch

from services.shared.settings import Settings, read_settings
from tests.deploy.cluster import Cluster
from tests.deploy.image import image_environment
from tests.deploy.kustomize import Object

SettingsT = TypeVar("SettingsT", bound=Settings)


class Dangling(Exception):
    """Something is named that is not there."""


def manifest_environment(cluster: Cluster, container: Object) -> dict[str, str]:
    """What the manifest sets, ConfigMaps and secrets looked up. Raises `Dangling`."""
    return dict(_given(cluster, container))


def environment(cluster: Cluster, container: Object) -> dict[str, str]:
    """All that the process is told. Raises `Dangling`."""
    return image_environment() | manifest_environment(cluster, container)


def settings(kind: type[SettingsT], told: dict[str, str], **given: Any) -> SettingsT:
    """What a process makes of it. Raises `WrongSetting`."""
    with patch.dict(os.environ, told, clear=True):
        return read_settings(kind, **given)


def _given(cluster: Cluster, container: Object) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom", []):
        name = source["configMapRef"]["name"]
        found = cluster.find("ConfigMap", name)
        if found is None:
            raise Dangling(f"there is no ConfigMap {name}")
        yield from (found.get("data") or {}).items()
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference is None:
            yield variable["name"], variable["value"]
            continue
        key = (reference["name"], reference["key"])
        if key not in cluster.secrets:
            raise Dangling(f"nobody keeps a secret {key[0]} with the key {key[1]}")
        yield variable["name"], cluster.secrets[key]
