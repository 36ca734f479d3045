"""What names something else names something that is there: selectors, ports, targets, budgets."""

from collections.abc import Iterator

from services.shared.settings import ApiSettings, CodecServerSettings, WorkerSettings, WrongSetting
from tests.deploy.cluster import Cluster, Workload, selects
from tests.deploy.environment import Dangling, environment, settings
from tests.deploy.kustomize import Object
from tests.deploy.roles import role_of


def selectors_mean_somebody(cluster: Cluster) -> Iterator[str]:
    for one in cluster.of("Deployment", "StatefulSet"):
        if not selects(one["spec"]["selector"], one["spec"]["template"]["metadata"].get("labels", {})):
            yield f"{one['kind']} {one['metadata']['name']} does not mean its own pods"
        meant = cluster.selected(one["spec"]["selector"])
        if len(meant) > 1:
            yield f"{one['kind']} {one['metadata']['name']} means others' pods: {', '.join(map(str, meant))}"
    for one in cluster.of("PodDisruptionBudget", "PodMonitor"):
        if not cluster.selected(one["spec"]["selector"]):
            yield f"{one['kind']} {one['metadata']['name']} means nobody"
    for one in cluster.of("Service"):
        if len(cluster.selected({"matchLabels": one["spec"]["selector"]})) != 1:
            yield f"Service {one['metadata']['name']} does not mean just one workload"
    for one in cluster.of("ServiceMonitor"):
        if not [1 for service in cluster.of("Service")
                if selects(one["spec"]["selector"], service["metadata"].get("labels", {}))]:  # fmt: skip
            yield f"ServiceMonitor {one['metadata']['name']} means nobody"


def ports_are_those_of_the_processes(cluster: Cluster) -> Iterator[str]:
    """A process listens, for everybody, at the port that its container names; Services and monitors name that one."""
    for workload in cluster.workloads():
        role = role_of(workload)
        if role is not None and role.port and workload.ours is not None:
            try:
                host, port = _listening(workload, environment(cluster, workload.ours))
            except (Dangling, WrongSetting):  # told by their own policy
                continue
            if host != "0.0.0.0":
                yield f"{workload} listens for itself alone"
            if {"name": "http", "containerPort": port} not in workload.ours.get("ports", []):
                yield f"{workload} listens at {port}, which its container does not name"
    for one in cluster.of("Service"):
        meant = cluster.selected({"matchLabels": one["spec"]["selector"]})
        for port in one["spec"]["ports"]:
            if meant and port["targetPort"] not in _named(meant[0]):
                yield f"Service {one['metadata']['name']} leads to a port that nobody has: {port['targetPort']}"
    for one in cluster.of("ServiceMonitor"):
        yield from _monitored(
            one, "endpoints", {port["name"] for s in cluster.of("Service") for port in s["spec"]["ports"]}
        )
    for one in cluster.of("PodMonitor"):
        for meant in cluster.selected(one["spec"]["selector"]):
            yield from _monitored(one, "podMetricsEndpoints", _named(meant))


def _listening(workload: Workload, told: dict[str, str]) -> tuple[str, int]:
    if workload.role[0] == "worker":
        worker = settings(WorkerSettings, told)
        return worker.health_host, worker.health_port
    if workload.role[0] == "codec-server":
        codec = settings(CodecServerSettings, told)
        return codec.host, codec.port
    api = settings(ApiSettings, told)
    return api.host, api.port


def _named(workload: Workload) -> set[str]:
    return {port["name"] for container in workload.containers for port in container.get("ports", [])}


def _monitored(one: Object, field: str, named: set[str]) -> Iterator[str]:
    for endpoint in one["spec"][field]:
        if endpoint["port"] not in named or endpoint["path"] != "/metrics":
            yield f"{one['kind']} {one['metadata']['name']} asks where nobody answers"


def budgets_can_be_kept(cluster: Cluster) -> Iterator[str]:
    """Each that stays has one budget, which lets a node be drained even where there is one pod alone."""
    for one in cluster.of("PodDisruptionBudget"):
        spec = one["spec"]
        if spec.get("maxUnavailable") != 1 or "minAvailable" in spec:
            yield f"PodDisruptionBudget {one['metadata']['name']} can keep a node from being drained"
    for workload in cluster.workloads():
        if not workload.serves or role_of(workload) is None:
            continue
        budgets = [
            one for one in cluster.of("PodDisruptionBudget") if selects(one["spec"]["selector"], workload.labels)
        ]
        if len(budgets) != 1:  # with two, Kubernetes evicts nobody
            yield f"{workload} has {len(budgets)} disruption budgets"


def teams_are_spread(cluster: Cluster) -> Iterator[str]:
    """Over zones and nodes, each version for itself; in production even where that means waiting."""
    for workload in cluster.workloads():
        if not workload.serves or role_of(workload) is None:
            continue
        constraints = {one["topologyKey"]: one for one in workload.pod.get("topologySpreadConstraints", [])}
        if {"topology.kubernetes.io/zone", "kubernetes.io/hostname"} - constraints.keys():
            yield f"{workload} is not spread over zones and nodes"
            continue
        for one in constraints.values():
            keys = {"app.kubernetes.io/component", "pod-template-hash"}
            if not selects(one["labelSelector"], workload.labels) or {*one.get("matchLabelKeys", [])} != keys:
                yield f"{workload} is spread beside others than its own"
        if cluster.of("Ingress") and constraints["topology.kubernetes.io/zone"]["whenUnsatisfiable"] != "DoNotSchedule":
            yield f"{workload} can be in one zone alone"
