"""Every object of every overlay is one by the schemas of its kind, and what is none is found."""

from typing import Any

import pytest

from tests.deploy.cluster import Cluster
from tests.deploy.plants import planted
from tests.deploy.schemas import faults

PLANTS: list[tuple[str, str, str, Any, str]] = [
    ("Deployment", "api", "spec.template.spec.contaners", [], "contaners"),
    ("Deployment", "api", "spec.template.spec.containers.0.livenessProbe.periodSecond", 5, "periodSecond"),
    ("Deployment", "api", "spec.template.spec.terminationGracePeriodSeconds", "30", "'30' is not of type"),
    ("Deployment", "api", "apiVersion", "apps/v1beta1", "no Deployment in apps/v1beta1"),
    ("Ingress", "api", "spec.rules.0.http.paths.0.pathTyp", "Exact", "pathTyp"),
    ("NetworkPolicy", "to-engine", "spec.egres", [], "egres"),
    ("ScaledObject", "worker-order", "spec.minReplicas", 1, "no such field: .spec.minReplicas"),
    ("ScaledObject", "worker-order", "spec.triggers.0.metadta", {}, "no such field: .spec.triggers[0].metadta"),
    ("ScaledObject", "worker-order", "spec.maxReplicaCount", "many", "maxReplicaCount"),
    ("ServiceMonitor", "api", "spec.endpoints.0.intervall", "15s", "no such field: .spec.endpoints[0].intervall"),
    ("PrometheusRule", "street12", "spec.groups.0.rules.0.expresion", "1", "expresion"),
    ("PrometheusRule", "street12", "kind", "PrometheusRules", "there is no model of PrometheusRules"),
    ("Service", "api", "apiVersion", "example.com/v1", "nobody knows this kind"),
    ("Connection", "temporal", "spec.hostPort", "temporal", "hostPort"),
    ("Connection", "temporal", "kind", "TemporalConnection", "knows no such kind"),
    ("WorkerDeployment", "worker-order", "spec.rollout.gate.input", {}, "'input' was unexpected"),
    ("WorkerDeployment", "worker-order", "spec.rollout.steps.0.rampPercentage", 30, "each step must lead more"),
    ("WorkerDeployment", "worker-order", "spec.replicas", 3, "'replicas' was unexpected"),
    ("WorkerDeployment", "worker-order", "spec.template.spec.containers.0.imag", "x", "imag"),
    ("WorkerResourceTemplate", "worker-order", "spec.template.spec.scaleTargetRef", {"name": "x"}, "was expected"),
    ("WorkerResourceTemplate", "worker-order", "spec.template.spec.metrics.0.resourc", {}, "resourc"),
]


def test_every_object_is_one(cluster: Cluster) -> None:
    assert [fault for one in cluster.objects for fault in faults(one)] == []


@pytest.mark.parametrize(("kind", "name", "path", "value", "complaint"), PLANTS, ids=lambda value: str(value)[:40])
def test_what_is_none_is_found(
    clusters: dict[str, Cluster], kind: str, name: str, path: str, value: Any, complaint: str
) -> None:
    found = [cluster.find(kind, name) for cluster in (clusters["production"], clusters["production, versioned"])]
    one = next(one for one in found if one is not None)
    assert faults(one) == []
    assert complaint in " ".join(faults(planted(one, path, value)))
