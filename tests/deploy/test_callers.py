"""By whom the shop's pods are called: the proxy calls the API and the codec server, Prometheus reads metrics."""

import pytest

from services.shared.settings import TEAMS
from tests.deploy.cluster import Cluster
from tests.deploy.network import STRAY, End, Port, pod, reaches
from tests.deploy.plants import GONE, with_mistake

WORKERS = {f"worker-{team}" for team in TEAMS}
CALLERS = {
    "proxy": End("10.244.1.1", "ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx"}),
    "prometheus": End("10.244.2.2", "monitoring", {"app.kubernetes.io/name": "prometheus"}),
    "neighbour": End("10.244.9.9", "default", {"app.kubernetes.io/component": "api"}),
    "world": End("203.0.113.7"),
}
MAY = {
    ("proxy", "api", 8000),
    ("proxy", "codec-server", 8081),
    ("prometheus", "api", 8000),
    *(("prometheus", worker, 8080) for worker in WORKERS),
}


def called(cluster: Cluster) -> set[tuple[str, str, int]]:
    """Who calls whom at which port; the shop's pods are among the callers."""
    pods = {workload.name: pod(cluster, workload.name) for workload in cluster.workloads()} | {"a stray pod": STRAY}
    return {
        (caller, name, port)
        for caller, begins in {**CALLERS, **pods}.items()
        for name, ends in pods.items()
        for port in (8000, 8080, 8081, 22)
        if reaches(cluster, begins, ends, Port(port))
    }


@pytest.mark.parametrize("name", ["production", "production, versioned"])
def test_nobody_is_called_but_by_whom_he_is_there_for(clusters: dict[str, Cluster], name: str) -> None:
    assert called(clusters[name]) == MAY


@pytest.mark.parametrize(
    ("policy", "path", "value"),
    [
        ("nobody", "", None),
        ("nobody", "spec.policyTypes", ["Egress"]),
        ("callers-of-api", "spec.ingress.0.from", GONE),
        ("callers-of-codec-server", "spec.podSelector", {}),
        ("metrics-of-workers", "spec.ingress.0.ports", GONE),
        ("metrics-of-workers", "", None),
    ],
)
def test_a_door_left_open_or_shut_is_found(production: Cluster, policy: str, path: str, value: object) -> None:
    assert called(with_mistake(production, "NetworkPolicy", policy, path, value)) != MAY
