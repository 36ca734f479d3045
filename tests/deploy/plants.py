"""Mistakes, made in copies of manifests, so that it can be seen that they are found."""

import inspect
from copy import deepcopy
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple, cast

from tests.deploy.cluster import OURS as _OURS
from tests.deploy.cluster import Cluster
from tests.deploy.kustomize import Object
from tests.deploy.policies import Policy

POD = "spec.template.spec"
OURS = f"{POD}.containers.{_OURS}"
"""Where a workload has its pod, and there the container of our image."""

GONE = object()
"""Instead of a value: what was there is taken away."""


def planted(one: Object, path: str, value: Any) -> Object:
    """A copy of an object with something else at a place in it: `spec.ports.0.name`. A dot in a name is written `~`."""
    copy = deepcopy(one)
    *way, last = (step.replace("~", ".") for step in path.split("."))
    place: Any = copy
    for step in way:
        place = place[_at(place, step)]
    if value is GONE:
        del place[_at(place, last)]
    elif last == "-":
        place.append(value)
    else:
        place[_at(place, last)] = value
    return copy


def _at(place: Any, step: str) -> Any:
    """Items of lists by their number, or by their name."""
    if not isinstance(place, list):
        return step
    if step.isdigit():
        return int(step)
    items = cast("list[Any]", place)
    return next(number for number, item in enumerate(items) if item["name"] == step)


def with_mistake(cluster: Cluster, kind: str, name: str, path: str, value: Any) -> Cluster:
    """The cluster with one mistake in it; without `path`, the object itself is gone."""
    one = cluster.find(kind, name)
    assert one is not None, f"there is no {kind} {name}"
    others = [other for other in cluster.objects if other is not one]
    return replace(cluster, objects=[*others, planted(one, path, value)] if path else others)


class Mistake(NamedTuple):
    """What is changed in which object, `Deployment api`, and what is said of it by the policy that is there for it."""

    policy: Policy
    object: str
    path: str
    value: Any
    complaint: str
    overlay: str = "production"

    def __str__(self) -> str:
        return f"{self.object} {self.path} {'GONE' if self.value is GONE else self.value}"[:60].replace("/", "_")

    def must_be_found(self, clusters: dict[str, Cluster]) -> None:
        """By the policy, which has nothing to say of the manifests as they are."""
        kind, _, name = self.object.partition(" ")
        cluster = clusters[self.overlay]
        full = next(one["metadata"]["name"] for one in cluster.of(kind) if _called(one["metadata"]["name"], name))
        assert [*self.policy(cluster)] == []
        assert self.complaint in " ".join(self.policy(with_mistake(cluster, kind, full, self.path, self.value)))


def _called(full: str, name: str) -> bool:
    """ConfigMaps' names end in a hash."""
    return full == name or (full.rpartition("-")[0] == name and len(full) - len(name) == 11)


def policies_of(module: ModuleType) -> list[Policy]:
    """The policies in a module: its public functions of a cluster alone."""
    functions = [one for _, one in inspect.getmembers(module, inspect.isfunction) if one.__module__ == module.__name__]
    return [one for one in functions if [*inspect.signature(one).parameters] == ["cluster"] and one.__name__[0] != "_"]
