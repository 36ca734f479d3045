"""Whether each object is one: strictly, with not a field that nobody knows."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from referencing import Registry, Resource

from tests.deploy.kustomize import Object
from tests.deploy.temporal_schemas import TEMPORAL

VERSIONS = ("1.33", "1.34", "1.35", "1.36", "1.37")
"""Of Kubernetes."""
_CORE = ("", "apps", "autoscaling", "batch", "networking.k8s.io", "policy")
_MODELS: dict[str, dict[str, Any]] = {
    "keda.sh/v1alpha1": {
        "ScaledObject": keda.ScaledObject,
        "TriggerAuthentication": keda.TriggerAuthentication,
    },
    "monitoring.coreos.com/v1": {
        "PodMonitor": prometheus_operator.PodMonitor,
        "PrometheusRule": prometheus_operator.PrometheusRule,
        "ServiceMonitor": prometheus_operator.ServiceMonitor,
    },
}


def faults(one: Object) -> list[str]:
    """What is wrong with an object, each in a sentence."""
    return _faults(json.dumps(one))


@cache
def _faults(text: str) -> list[str]:
    """Once for an object that several overlays have."""
    one: Object = json.loads(text)
    group, _, _ = one["apiVersion"].rpartition("/")
    name = f"{one['kind']} {one['metadata']['name']}"
    if group == "temporal.io":
        found = _of_the_controller(one)
    elif one["apiVersion"] in _MODELS:
        found = _by_model(one)
    elif group in _CORE:
        found = _by_kubernetes(one)
    else:
        found = iter(["nobody knows this kind"])
    return [f"{name}: {fault}" for fault in found]


def _by_kubernetes(one: Object) -> Iterator[str]:
    group, _, version = one["apiVersion"].rpartition("/")
    kind = f"{one['kind']}-{group.partition('.')[0]}{'-' if group else ''}{version}".lower()
    for release in VERSIONS:
        validator = _validator(release, kind)
        if validator is None:
            yield f"Kubernetes {release} has no {one['kind']} in {one['apiVersion']}"
            continue
        for error in validator.iter_errors(one):
            yield f"Kubernetes {release} has no such thing at {error.json_path}: {error.message}"


@cache
def _validator(release: str, kind: str) -> Any:
    """Of the schemas that kubernetes-validate brings along, read once: its own function reads a megabyte each time.

    Nothing where there is no such kind.
    """
    directory = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{release}.0-local-strict"
    schema = directory / f"{kind}.json"
    if not schema.is_file():
        return None
    return Draft202012Validator(json.loads(schema.read_text()), registry=_definitions(directory))


@cache
def _definitions(directory: Traversable) -> Registry[Any]:
    definitions = Resource[Any].from_contents(json.loads((directory / "_definitions.json").read_text()))
    return definitions @ Registry[Any]()


def _by_model(one: Object) -> Iterator[str]:
    """The models pass over fields that they do not know: those are missing in what the model says of itself."""
    model = _MODELS[one["apiVersion"]].get(one["kind"])
    if model is None:
        yield f"there is no model of {one['kind']} in {one['apiVersion']}"
        return
    try:
        known = model.model_validate(one).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValidationError as error:
        yield str(error)
        return
    yield from _lost(one, known, "")


def _lost(given: Any, known: Any, path: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():  # pyright: ignore[reportUnknownVariableType]
            if key in known:
                yield from _lost(value, known[key], f"{path}.{key}")
            else:
                yield f"no such field: {path}.{key}"
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):  # pyright: ignore[reportUnknownArgumentType]
        for number, (value, other) in enumerate(zip(given, known, strict=True)):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield from _lost(value, other, f"{path}[{number}]")
    elif given != known:
        yield f"{path} is {given!r} and is read as {known!r}"


def _of_the_controller(one: Object) -> Iterator[str]:
    if one["apiVersion"] != "temporal.io/v1alpha1" or one["kind"] not in TEMPORAL:
        yield "the worker controller knows no such kind"
        return
    validator: Any = Draft202012Validator(TEMPORAL[one["kind"]])
    for error in validator.iter_errors(one):
        yield f"{error.json_path}: {error.message}"
    if one["kind"] == "WorkerDeployment":
        ramp = [step["rampPercentage"] for step in one["spec"]["rollout"].get("steps", [])]
        if ramp != sorted({*ramp}):
            yield f"each step must lead more to the new version than the one before: {ramp}"
        yield from _by_kubernetes(as_deployment(one))
    if one["kind"] == "WorkerResourceTemplate":
        made = deepcopy(one["spec"]["template"])
        made["spec"]["scaleTargetRef"] = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": "made-by-the-controller",
        }
        yield from _by_kubernetes(made)


def as_deployment(one: Object) -> Object:
    """The Deployment that the controller makes of a `WorkerDeployment` for a version."""
    labels = {"temporal.io/deployment-name": one["metadata"]["name"], "temporal.io/build-id": "0.2.0-abcd"}
    template = deepcopy(one["spec"].get("template", {}))
    template.setdefault("metadata", {}).setdefault("labels", {}).update(labels)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": one["metadata"]["name"], "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
