"""How many there are, and by what: enough for one to fail, and no more than the databases bear."""

from collections.abc import Iterator

from activities.contract import DELIVERY_QUEUE, MARKETING_QUEUE, ORDER_QUEUE
from services.shared.settings import PoolSettings, WrongSetting
from tests.deploy.cluster import Cluster, Workload
from tests.deploy.environment import Dangling, environment, settings
from tests.deploy.kustomize import Object
from tests.deploy.roles import role_of

QUEUES = {"worker-order": ORDER_QUEUE, "worker-delivery": DELIVERY_QUEUE, "worker-marketing": MARKETING_QUEUE}
LEAST = {"api": 3, "worker-order": 2, "worker-delivery": 2, "worker-marketing": 1, "codec-server": 1}
"""A core team may be away for 26 s a month: never one pod alone."""
_MAX_CONNECTIONS = 151
"""MySQL's, unless told otherwise; of which 10 are for people and one for a migration: docs/data.md."""


def scalers_have_somebody_to_scale(cluster: Cluster) -> Iterator[str]:
    for one in cluster.of("HorizontalPodAutoscaler", "ScaledObject"):
        name = one["spec"]["scaleTargetRef"]["name"]
        target = cluster.find("Deployment", name)
        if target is None:
            yield f"{one['kind']} {one['metadata']['name']} scales {name}, which is not there"
        elif "replicas" in target["spec"]:
            yield f"Deployment {name} sets back what {one['kind']} has scaled"
    for one in cluster.of("WorkerResourceTemplate"):
        name = one["spec"]["workerDeploymentRef"]["name"]
        if cluster.find("WorkerDeployment", name) is None:
            yield f"WorkerResourceTemplate {one['metadata']['name']} is for {name}, which is not there"


def queues_are_watched(cluster: Cluster) -> Iterator[str]:
    """KEDA asks the engine that the workers ask, about the queue that they work on, for both kinds of tasks."""
    for one in cluster.of("ScaledObject"):
        name = one["metadata"]["name"]
        workload = next((w for w in cluster.workloads() if w.name == one["spec"]["scaleTargetRef"]["name"]), None)
        for trigger in one["spec"]["triggers"]:
            asked = trigger["metadata"]
            if trigger["type"] != "temporal" or asked.get("taskQueue") != QUEUES.get(name):
                yield f"ScaledObject {name} does not watch its team's queue"
            if asked.get("queueTypes") != "workflow,activity":
                yield f"ScaledObject {name} does not see all tasks"
            if workload is not None and workload.ours is not None:
                yield from (f"ScaledObject {name}: {fault}" for fault in _asks_like(cluster, workload, trigger))


def _asks_like(cluster: Cluster, workload: Workload, trigger: Object) -> Iterator[str]:
    assert workload.ours is not None
    asked = trigger["metadata"]
    try:
        told = environment(cluster, workload.ours)
    except Dangling:
        return
    for field, variable in (("endpoint", "TEMPORAL_ADDRESS"), ("namespace", "TEMPORAL_NAMESPACE")):
        if asked.get(f"{field}FromEnv") != variable or variable not in told:
            yield f"it does not ask where the workers do: {field}"
    if ("TEMPORAL_API_KEY" in told) != (asked.get("apiKeyFromEnv") == "TEMPORAL_API_KEY"):
        yield "it has not the workers' API key"
    reference = trigger.get("authenticationRef", {}).get("name")
    if ("TEMPORAL_TLS_CLIENT_CERT_PATH" in told) != (reference is not None):
        yield "it has not the workers' certificate"
    found = None if reference is None else cluster.find("TriggerAuthentication", reference)
    given: list[Object] = [] if found is None else found["spec"]["secretTargetRef"]
    wanted = {"cert", "key"} | ({"ca"} if "TEMPORAL_TLS_SERVER_CA_CERT_PATH" in told else set[str]())
    if reference is not None and {one["parameter"] for one in given} != wanted:
        yield "its TriggerAuthentication is none"
    yield from ("its TriggerAuthentication names no secret"
                for one in given if (one["name"], one["key"]) not in cluster.secrets)  # fmt: skip


def there_are_enough(cluster: Cluster) -> Iterator[str]:
    """In production: one can fail, or its node be drained, and the rest goes on."""
    if not cluster.of("Ingress"):
        return
    for name, least in LEAST.items():
        if counted(cluster, name)[0] < least:
            yield f"{name} can be down to {counted(cluster, name)[0]}"


def databases_bear_it(cluster: Cluster) -> Iterator[str]:
    """All processes together open no more connections to the order database than MySQL takes by default."""
    if not cluster.of("Ingress"):
        return
    connections = 0
    for workload in cluster.workloads():
        role = role_of(workload)
        if role is None or "order" not in role.databases or not workload.serves or workload.ours is None:
            continue
        try:
            pool = settings(PoolSettings, environment(cluster, workload.ours))
        except (Dangling, WrongSetting):
            continue
        most = counted(cluster, workload.name)[1]
        processes = most * 2 if workload.kind == "WorkerDeployment" else most + 1  # two versions, or one pod more
        connections += processes * (pool.size + pool.overflow)
    if connections + 1 + 10 >= _MAX_CONNECTIONS:
        yield f"the order database is to bear {connections} connections"


def counted(cluster: Cluster, name: str) -> tuple[int, int]:
    """How many pods of a workload there are, at least and at most."""
    for one in cluster.of("HorizontalPodAutoscaler", "ScaledObject"):
        spec = one["spec"]
        if spec["scaleTargetRef"]["name"] == name:
            if one["kind"] == "ScaledObject":
                return spec["minReplicaCount"], spec["maxReplicaCount"]
            return spec["minReplicas"], spec["maxReplicas"]
    for one in cluster.of("WorkerResourceTemplate"):
        if one["spec"]["workerDeploymentRef"]["name"] == name:
            spec = one["spec"]["template"]["spec"]
            return spec["minReplicas"], spec["maxReplicas"]
    replicas = cluster.workload(name).object["spec"].get("replicas", 1)
    return replicas, replicas
