"""All that one overlay brings into a cluster, what runs before the roll-out included, and how its parts are found."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.deploy.kustomize import Object

OURS = "street12"
"""The name of our container, in each pod that runs our image."""
_PODS = ("Deployment", "StatefulSet", "WorkerDeployment", "Job")


@dataclass(frozen=True)
class Workload:
    """Something that runs pods."""

    object: Object

    @property
    def kind(self) -> str:
        return self.object["kind"]

    @property
    def name(self) -> str:
        return self.object["metadata"]["name"]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def labels(self) -> dict[str, str]:
        """Its pods'."""
        return self.object["spec"]["template"]["metadata"].get("labels", {})

    @property
    def pod(self) -> Object:
        """The pod's `spec`."""
        return self.object["spec"]["template"]["spec"]

    @property
    def containers(self) -> list[Object]:
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def ours(self) -> Object | None:
        """The container that runs our image, where there is one."""
        return next((one for one in self.containers if one["name"] == OURS), None)

    @property
    def role(self) -> list[str]:
        """What our image is told to be: `["worker", "--team", "order"]`."""
        return [] if self.ours is None else self.ours.get("args", [])

    @property
    def serves(self) -> bool:
        """Whether it is there to stay."""
        return self.kind != "Job"


@dataclass(frozen=True)
class Cluster:
    """The objects of an overlay."""

    objects: list[Object]
    secrets: Mapping[tuple[str, str], str]
    """What is in the secrets that are not among the objects, but kept for them: by name and key."""

    def of(self, *kinds: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] in kinds]

    def find(self, kind: str, name: str) -> Object | None:
        return next((one for one in self.of(kind) if one["metadata"]["name"] == name), None)

    def workloads(self) -> Iterator[Workload]:
        return (Workload(one) for one in self.of(*_PODS))

    def workload(self, name: str) -> Workload:
        return next(one for one in self.workloads() if one.name == name)

    def selected(self, selector: Object) -> list[Workload]:
        """The workloads whose pods a selector means."""
        return [one for one in self.workloads() if selects(selector, one.labels)]


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector of Kubernetes means something with these labels; an empty one means everything."""
    unknown = selector.keys() - {"matchLabels", "matchExpressions"}
    assert not unknown, f"a selector with {unknown}"
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", "the other operators are not needed yet"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True
