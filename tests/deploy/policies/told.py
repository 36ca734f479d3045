"""What each process is told: all that it needs, nothing that it does not read, nothing that it cannot use."""

from collections.abc import Iterator

from temporalio.envconfig import ClientConfigProfile

from services.shared.settings import CodecSettings, WrongSetting
from tests.deploy.cluster import Cluster, Workload
from tests.deploy.environment import Dangling, environment, manifest_environment, settings
from tests.deploy.image import image_environment
from tests.deploy.kustomize import Object
from tests.deploy.roles import TEMPORAL, Role, role_of


def each_is_told_what_it_reads(cluster: Cluster) -> Iterator[str]:
    """Every variable is one that the process reads; every one that it needs is there, and can be used."""
    for workload in cluster.workloads():
        role, container = role_of(workload), workload.ours
        if role is None or container is None:
            continue
        try:
            set_here, told = manifest_environment(cluster, container), environment(cluster, container)
        except Dangling as error:
            yield f"{workload}: {error}"
            continue
        yield from (f"{workload} does not read {name}" for name in sorted(set_here.keys() - role.names))
        same = {name for name, value in set_here.items() if image_environment().get(name) == value}
        yield from (f"{workload} repeats the image's {name}" for name in sorted(same))
        yield from (f"{workload} lacks {name}" for name in sorted(role.urls - told.keys()))
        yield from (f"{workload}: {fault}" for fault in _unusable(role, told))
        if role.engine and workload.kind != "WorkerDeployment":
            yield from (f"{workload}: {fault}" for fault in _unconnected(workload, told))


def _unusable(role: Role, told: dict[str, str]) -> Iterator[str]:
    for kind in role.settings:
        try:
            settings(
                kind, told, **({"encrypt": True} if kind is CodecSettings and role.port.endswith("C_PORT") else {})
            )
        except WrongSetting as error:
            yield str(error)


def _unconnected(workload: Workload, told: dict[str, str]) -> Iterator[str]:
    profile = ClientConfigProfile.load(
        disable_file=True, override_env_vars={name: told[name] for name in TEMPORAL & told.keys()}
    )
    if not profile.address or ":" not in profile.address or not profile.namespace:
        yield "it does not know where the engine is"
    secured = profile.tls is not None and not profile.tls.disabled
    if profile.api_key and not secured:
        yield "its API key would be sent in clear"
    assert workload.ours is not None
    mounts = {mount["mountPath"] for mount in workload.ours.get("volumeMounts", [])}
    for variable in ("TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"):
        if variable in told and told[variable].rpartition("/")[0] not in mounts:
            yield f"{variable} is a file that nobody mounts"


def nothing_is_set_twice(cluster: Cluster) -> Iterator[str]:
    """Not by the manifest, and not by the worker controller beside it."""
    for workload in cluster.workloads():
        for container in workload.containers:
            names = [variable["name"] for variable in container.get("env", [])]
            if workload.kind == "WorkerDeployment":
                names += [*_by_the_controller(cluster, workload)]
                try:
                    names += manifest_environment(cluster, {"envFrom": container.get("envFrom", [])})
                except Dangling:
                    continue
            yield from (f"{workload} sets {name} twice" for name in sorted({*names}) if names.count(name) > 1)


def _by_the_controller(cluster: Cluster, workload: Workload) -> Iterator[str]:
    yield from ("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_DEPLOYMENT_NAME", "TEMPORAL_WORKER_BUILD_ID")
    yield "STREET12_WORKER_DEPLOYMENT_NAME"  # the same by another name
    yield "STREET12_WORKER_BUILD_ID"
    connection = cluster.find("Connection", workload.object["spec"]["workerOptions"]["connectionRef"]["name"])
    spec: Object = {} if connection is None else connection["spec"]
    if "apiKeySecretRef" in spec:
        yield "TEMPORAL_API_KEY"
    if "mutualTLSSecretRef" in spec:
        yield from ("TEMPORAL_TLS", "TEMPORAL_TLS_CLIENT_KEY_PATH", "TEMPORAL_TLS_CLIENT_CERT_PATH")


def the_controller_finds_the_engine_where_the_others_do(cluster: Cluster) -> Iterator[str]:
    """The address, the namespace and the access of a `Connection` are those of the API."""
    for one in cluster.of("WorkerDeployment"):
        options, name = one["spec"]["workerOptions"], one["metadata"]["name"]
        connection = cluster.find("Connection", options["connectionRef"]["name"])
        api = cluster.workload("api").ours
        assert api is not None
        told = environment(cluster, api)
        if connection is None:
            yield f"WorkerDeployment {name} has no Connection"
            continue
        spec = connection["spec"]
        if (spec["hostPort"], options["temporalNamespace"]) != (told["TEMPORAL_ADDRESS"], told["TEMPORAL_NAMESPACE"]):
            yield f"WorkerDeployment {name} is connected with another engine than the API"
        for field, variable in (
            ("apiKeySecretRef", "TEMPORAL_API_KEY"),
            ("mutualTLSSecretRef", "TEMPORAL_TLS_CLIENT_CERT_PATH"),
        ):
            if (field in spec) != (variable in told):
                yield f"WorkerDeployment {name} and the API have not the same access to the engine: {field}"


def secrets_are_kept_elsewhere(cluster: Cluster) -> Iterator[str]:
    """No value of one in a manifest of production, and none in a ConfigMap."""
    if cluster.of("Secret") and cluster.of("Ingress"):
        yield "a secret is among the manifests"
    allowed = {"STREET12_AUTH_JWKS_URL"}
    for one in cluster.of("ConfigMap"):
        data: dict[str, str] = one.get("data") or {}
        found = {name for name in data if name.endswith(("_KEY", "_KEYS", "_URL"))} - allowed
        yield from (f"ConfigMap {one['metadata']['name']} holds {name}" for name in sorted(found))
