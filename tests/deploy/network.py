"""Who reaches whom by the network policies, as Kubernetes reads them: what any policy allows is allowed.

A connection needs to be let out where it begins and let in where it ends. Where no policy means a pod, everything is
allowed in that direction; what is outside of the namespace lets everybody in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from tests.deploy.cluster import Cluster, selects
from tests.deploy.kustomize import Object

OURS = "street12"


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod, with its namespace and labels, or an address."""

    address: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Port:
    number: int
    protocol: str = "TCP"


STRAY = End(namespace=OURS)
"""A pod of the namespace that nobody thought of."""


def pod(cluster: Cluster, name: str) -> End:
    """A pod of a workload."""
    return End(namespace=OURS, labels=cluster.workload(name).labels)


def reaches(cluster: Cluster, begins: End, ends: End, port: Port) -> bool:
    """Whether a connection comes about."""
    policies = cluster.of("NetworkPolicy")
    out = _passes(policies, "Egress", begins, ends, port)
    return out and _passes(policies, "Ingress", ends, begins, port)


def _passes(policies: list[Object], direction: str, subject: End, other: End, port: Port) -> bool:
    if subject.namespace != OURS:
        return True
    meant: list[Object] = [
        one["spec"]
        for one in policies
        if direction in one["spec"]["policyTypes"] and selects(one["spec"]["podSelector"], subject.labels)
    ]
    rules: list[Object] = [rule for spec in meant for rule in spec.get(direction.lower(), [])]
    peers = "to" if direction == "Egress" else "from"
    return not meant or any(_of_ports(rule, port) and _of_peers(rule.get(peers), other) for rule in rules)


def _of_ports(rule: Object, port: Port) -> bool:
    """A rule without ports is about all of them."""
    ports: list[Object] = rule.get("ports") or []
    return not ports or any((one["port"], one.get("protocol", "TCP")) == (port.number, port.protocol) for one in ports)


def _of_peers(peers: list[Object] | None, other: End) -> bool:
    """A rule without peers is about everybody, which is how a forgotten line opens a door."""
    return not peers or any(_is(peer, other) for peer in peers)


def _is(peer: Object, other: End) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        return other.address != "" and _within(other.address, block["cidr"]) and not any(
            _within(other.address, network) for network in block.get("except", [])
        )  # fmt: skip
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace}):
            return False
    elif other.namespace != OURS:
        return False
    return selects(peer.get("podSelector", {}), other.labels)


def _within(address: str, network: str) -> bool:
    return ip_address(address) in ip_network(network)
