"""Whom the shop's pods reach: all that each needs, and nothing else."""

import pytest

from services.shared.settings import TEAMS
from tests.deploy.cluster import Cluster
from tests.deploy.network import OURS, STRAY, End, Port, pod, reaches
from tests.deploy.plants import GONE, with_mistake

WORKERS = {f"worker-{team}" for team in TEAMS}
PODS = {"api", "codec-server", "namespace", *WORKERS, *(f"migrate-{team}" for team in TEAMS)}
MYSQL, ENGINE, HTTPS, OTLP = Port(3306), Port(7233), Port(443), Port(4318)
ELSEWHERE = {
    "order database": End("10.20.1.10"),
    "delivery database": End("10.20.2.10"),
    "marketing database": End("10.20.3.10"),
    "engine": End("10.244.7.7", "temporal", {
        "app.kubernetes.io/name": "temporal", "app.kubernetes.io/component": "frontend",
    }),
    "engine's history": End("10.244.7.8", "temporal", {
        "app.kubernetes.io/name": "temporal", "app.kubernetes.io/component": "history",
    }),
    "names": End("10.96.0.10", "kube-system", {"k8s-app": "kube-dns"}),
    "collector": End("10.244.8.8", "monitoring", {"app": "collector"}),
    "provider": End("54.187.174.169"),
    "neighbour": End("10.244.9.9", "default", {"app.kubernetes.io/component": "api"}),
    "metadata service": End("169.254.169.254"),
}  # fmt: skip
# What each may reach outside of the namespace; whoever is not named reaches nobody.
MAY: dict[tuple[str, Port], set[str]] = {
    ("order database", MYSQL): {"api", "worker-order", "migrate-order"},
    ("delivery database", MYSQL): {"api", "worker-delivery", "migrate-delivery"},
    ("marketing database", MYSQL): {"api", "worker-marketing", "migrate-marketing"},
    ("engine", ENGINE): {"api", "namespace", *WORKERS},
    ("names", Port(53, "UDP")): PODS,
    ("names", Port(53)): PODS,
    ("collector", OTLP): {"api", *WORKERS},
    ("provider", HTTPS): {"api", "codec-server", "worker-order"},
}
PORTS = {*(port for _, port in MAY), Port(80), Port(22), Port(8000), Port(8080)}


def reached(cluster: Cluster) -> dict[tuple[str, Port], set[str]]:
    """By whom each place outside is reached at each port, of the pods of the shop."""
    found: dict[tuple[str, Port], set[str]] = {}
    for place, end in ELSEWHERE.items():
        for port in PORTS:
            by = {name for name in PODS if reaches(cluster, pod(cluster, name), end, port)}
            by |= {"a stray pod"} if place != "names" and reaches(cluster, STRAY, end, port) else set[str]()
            if by:
                found[place, port] = by
    return found


@pytest.mark.parametrize("name", ["production", "production, versioned"])
def test_each_reaches_what_it_needs_and_nobody_else(clusters: dict[str, Cluster], name: str) -> None:
    assert reached(clusters[name]) == MAY


def test_marketing_cannot_reach_the_order_database(clusters: dict[str, Cluster]) -> None:
    """The one that is asked for by name; where databases are elsewhere, and where they are pods."""
    for name, database in (
        ("production", ELSEWHERE["order database"]),
        ("local", pod(clusters["local"], "order-database")),
    ):
        for other in ("worker-marketing", "migrate-marketing", "worker-delivery", "codec-server"):
            assert not reaches(clusters[name], pod(clusters[name], other), database, MYSQL)
        assert reaches(clusters[name], pod(clusters[name], "worker-order"), database, MYSQL)


def test_the_local_shop_holds_together(clusters: dict[str, Cluster]) -> None:
    local = clusters["local"]

    def meet(begins: str, ends: str, port: int) -> bool:
        return reaches(local, pod(local, begins), pod(local, ends), Port(port))

    for team in TEAMS:
        for client in ("api", f"worker-{team}", f"migrate-{team}", "demo"):
            assert meet(client, f"{team}-database", 3306)
    for client in ("api", "namespace", *sorted(WORKERS)):
        assert meet(client, "temporal", 7233)
    assert meet("worker-order", "payments", 12111)
    assert not meet("worker-marketing", "payments", 12111)
    assert meet("codec-server", "api", 8000)
    assert not meet("worker-order", "api", 8000)


@pytest.mark.parametrize("name", ["production, API key", "production, mTLS", "versioned, API key"])
def test_temporal_cloud_is_reached_where_it_is(clusters: dict[str, Cluster], name: str) -> None:
    cluster, cloud = clusters[name], End("3.115.2.2")
    assert {one for one in PODS if reaches(cluster, pod(cluster, one), cloud, ENGINE)} == MAY["engine", ENGINE]
    assert not reaches(cluster, pod(cluster, "worker-order"), ELSEWHERE["engine"], ENGINE)


def test_shared_rates_are_reached_by_the_api_alone(clusters: dict[str, Cluster]) -> None:
    cluster = clusters["production, shared rates"]
    assert {one for one in PODS if reaches(cluster, pod(cluster, one), End("10.20.40.10"), Port(6379))} == {"api"}


@pytest.mark.parametrize(
    ("policy", "path", "value"),
    [
        ("to-order-database", "spec.podSelector", {}),
        ("to-order-database", "spec.egress.0.to", GONE),
        ("to-order-database", "spec.egress.0.to.0.ipBlock.cidr", "10.20.0.0/16"),
        ("to-internet", "spec.egress.0.to.0.ipBlock.except", GONE),
        ("to-engine", "spec.egress.0.to.0.podSelector", GONE),
        ("to-collector", "spec.egress.0.ports", GONE),
        ("names", "spec.egress.0.to.0.namespaceSelector.matchLabels.kubernetes~io/metadata~name", "dns"),
    ],
)
def test_a_door_left_open_is_found(production: Cluster, policy: str, path: str, value: object) -> None:
    assert reached(with_mistake(production, "NetworkPolicy", policy, path, value)) != MAY


def test_every_pod_of_the_namespace_is_looked_at(clusters: dict[str, Cluster]) -> None:
    for name in ("production", "production, versioned"):
        assert {workload.name for workload in clusters[name].workloads()} == PODS
    assert all(one["metadata"].get("namespace") == OURS for one in clusters["production"].of("NetworkPolicy"))
