"""How a pod comes, is looked after and goes."""

from collections.abc import Iterator

from services.shared.settings import ApiSettings, WorkerSettings, WrongSetting
from tests.deploy.cluster import Cluster, Workload
from tests.deploy.environment import Dangling, environment, settings
from tests.deploy.image import PROBES
from tests.deploy.roles import role_of

_NOTICED_SECONDS = 5
"""How long it takes at most until nobody sends a pod anything any more that is leaving."""
_CODEC_SERVER_SECONDS = 5
"""For its requests in flight: deploy/codec_server.py."""
_TO_END_SECONDS = 10


def everybody_is_looked_after(cluster: Cluster) -> Iterator[str]:
    """Whoever stays has all three probes; ours have those that the one-machine shop has, too."""
    for workload in cluster.workloads():
        if not workload.serves:
            continue
        for container in workload.containers:
            lacking = PROBES.keys() - container.keys()
            if lacking:
                yield f"{workload} has no {', '.join(sorted(lacking))}"
            elif container is workload.ours and role_of(workload) is not None:
                yield from (f"{workload} has another {name}" for name in PROBES if container[name] != PROBES[name])


def the_file_of_the_liveness_probe_is_touched(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads():
        role = role_of(workload)
        if role is None or not role.port or workload.ours is None:
            continue
        variable = role.port.removesuffix("_PORT").removesuffix("_HEALTH") + "_LIVENESS_FILE"
        file = _told(cluster, workload).get(variable)
        command = workload.ours.get("livenessProbe", {}).get("exec", {}).get("command", [""])[-1]
        if file is None or f"find {file} " not in command:
            yield f"{workload} is asked for a file that it does not touch; it touches {file}"


def each_has_the_time_that_it_needs_to_end(cluster: Cluster) -> Iterator[str]:
    """What a process does after SIGTERM ends before the kubelet ends it."""
    for workload in cluster.workloads():
        if workload.ours is None or role_of(workload) is None or not workload.serves:
            continue
        hook = workload.ours.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if hook < _NOTICED_SECONDS:
            yield f"{workload} ends before everybody knows that it is leaving: its preStop takes {hook} s"
        grace = workload.pod.get("terminationGracePeriodSeconds", 30)
        try:
            needed = hook + _drain_seconds(workload, _told(cluster, workload))
        except WrongSetting as error:
            yield f"{workload}: {error}"
            continue
        if grace < needed:
            yield f"{workload} is given {grace} s to end and needs {needed:g}"


def _drain_seconds(workload: Workload, told: dict[str, str]) -> float:
    if workload.role[0] == "worker":
        worker = settings(WorkerSettings, told)
        return max(worker.grace_seconds + _TO_END_SECONDS, worker.hard_deadline_seconds + 5)
    if workload.role[0] in ("api", "local-api"):
        return settings(ApiSettings, told).drain_seconds + _TO_END_SECONDS
    return _CODEC_SERVER_SECONDS + _TO_END_SECONDS


def nobody_is_missed_during_a_roll_out(cluster: Cluster) -> Iterator[str]:
    """A new pod is ready before an old one goes; but for what can be there only once."""
    for one in cluster.of("Deployment"):
        spec, name = one["spec"], one["metadata"]["name"]
        if spec.get("strategy", {}).get("type") == "Recreate" and spec.get("replicas", 1) == 1:
            if cluster.of("Ingress"):
                yield f"Deployment {name} is away during a roll-out"
            continue
        rolling = spec.get("strategy", {}).get("rollingUpdate", {})
        if rolling.get("maxUnavailable") != 0 or not rolling.get("maxSurge"):
            yield f"Deployment {name} is fewer during a roll-out"
        if not spec.get("revisionHistoryLimit") or not spec.get("minReadySeconds"):
            yield f"Deployment {name} has no revisionHistoryLimit or no minReadySeconds"


def each_job_ends(cluster: Cluster) -> Iterator[str]:
    for one in cluster.of("Job"):
        lacking = {"backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"} - one["spec"].keys()
        if lacking:
            yield f"Job {one['metadata']['name']} has no {', '.join(sorted(lacking))}"


def _told(cluster: Cluster, workload: Workload) -> dict[str, str]:
    assert workload.ours is not None
    try:
        return environment(cluster, workload.ours)
    except Dangling:  # told by its own policy
        return {}
