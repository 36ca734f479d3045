"""No pod may do more than it has to: no root, no rights, nothing to write to, no token, so much and no more."""

import re
from collections.abc import Iterator

from tests.deploy.cluster import OURS, Cluster, Workload
from tests.deploy.image import USER
from tests.deploy.kustomize import Object

_TAGGED = re.compile(r".+(?::(?!latest$)[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})")
_UNITS = {"Mi": 2**20, "Gi": 2**30}


def nobody_is_root(cluster: Cluster) -> Iterator[str]:
    """Restricted pod security, as the namespace's label has it enforced, and a numeric user."""
    for workload in cluster.workloads():
        pod = workload.pod
        context = pod.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{workload} may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{workload} has no seccomp profile"
        if workload.ours is not None and context.get("runAsUser") != USER:
            yield f"{workload} does not run as the image's user"
        for shared in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(shared):
                yield f"{workload} has {shared}"
        for volume in pod.get("volumes", []):
            if "hostPath" in volume:
                yield f"{workload} reads the node's files: {volume['name']}"
        for container in workload.containers:
            yield from (f"{workload}, {container['name']}: {fault}" for fault in _rights(container))


def _rights(container: Object) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "it can gain rights"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "it has capabilities"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "its file system can be written to"
    overridden = {"runAsUser", "runAsNonRoot", "seccompProfile"} & context.keys()
    if overridden:
        yield f"it sets for itself what is the pod's: {overridden}"


def nobody_has_a_token(cluster: Cluster) -> Iterator[str]:
    """Each role has a service account of its own, which says nothing to the Kubernetes API."""
    accounts: dict[str, str] = {}
    for workload in cluster.workloads():
        if workload.pod.get("automountServiceAccountToken") is not False:
            yield f"{workload} has a token"
        account = workload.pod.get("serviceAccountName")
        if account is None:
            if workload.role and workload.name not in ("demo", "payments"):
                yield f"{workload} has no service account of its own"
            continue
        if accounts.setdefault(account, workload.name) != workload.name:
            yield f"{workload} has the service account of {accounts[account]}"
        found = cluster.find("ServiceAccount", account)
        if found is None:
            yield f"there is no service account {account}"
        elif found.get("automountServiceAccountToken") is not False:
            yield f"the service account {account} hands out tokens"
    for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        yield from (f"{kind} {one['metadata']['name']}: nobody needs rights" for one in cluster.of(kind))


def each_image_is_a_certain_one(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads():
        for container in workload.containers:
            if not _TAGGED.fullmatch(container["image"]):
                yield f"{workload} runs {container['image']}, which can be anything"
            if container["name"] == OURS and "street12" not in container["image"]:
                yield f"{workload} runs {container['image']}, which is not ours"


def everybody_has_limits(cluster: Cluster) -> Iterator[str]:
    """Of memory as much as is requested: a node can always give it, so nobody is killed for a neighbour's sake."""
    for workload in cluster.workloads():
        for container in workload.containers:
            requests, limits = (container.get("resources", {}).get(what, {}) for what in ("requests", "limits"))
            for what in ("cpu", "memory"):
                if what not in requests or what not in limits:
                    yield f"{workload} has no request or no limit of {what}"
            if requests.get("memory") != limits.get("memory"):
                yield f"{workload} may be given less memory than its limit"
            elif "memory" in limits and _held_in_memory(workload) * 4 > _bytes(limits["memory"]):
                yield f"{workload} may fill a quarter of its memory with files"


def _held_in_memory(workload: Workload) -> int:
    directories = [volume["emptyDir"] for volume in workload.pod.get("volumes", []) if "emptyDir" in volume]
    return sum(_bytes(one.get("sizeLimit", "1Gi")) for one in directories if one.get("medium") == "Memory")


def _bytes(amount: str) -> int:
    return int(amount[:-2]) * _UNITS[amount[-2:]]


def what_is_written_is_writable(cluster: Cluster) -> Iterator[str]:
    """The image writes to /tmp, and the file system is read-only."""
    for workload in cluster.workloads():
        if workload.ours is None:
            continue
        volumes = {volume["name"]: volume for volume in workload.pod.get("volumes", [])}
        mounts = {mount["mountPath"]: mount for mount in workload.ours.get("volumeMounts", [])}
        tmp = mounts.get("/tmp", {})
        if "emptyDir" not in volumes.get(tmp.get("name", ""), {}) or tmp.get("readOnly"):
            yield f"{workload} cannot write to /tmp"
        elif "sizeLimit" not in volumes[tmp["name"]]["emptyDir"]:
            yield f"{workload} can fill /tmp without end"
        yield from (f"{workload} mounts {one['name']}, which is none of its volumes"
                    for one in mounts.values() if one["name"] not in volumes)  # fmt: skip
