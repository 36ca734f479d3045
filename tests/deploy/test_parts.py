"""What names something names something that is there; and each policy can fail."""

import pytest

from tests.deploy.cluster import Cluster
from tests.deploy.plants import OURS, POD, Mistake, policies_of
from tests.deploy.policies import Policy, parts

_API = "Deployment api"
_ORDER = "Deployment worker-order"
MISTAKES = [
    Mistake(
        parts.selectors_mean_somebody, "PodDisruptionBudget api",
        "spec.selector.matchLabels.app~kubernetes~io/component", "apis", "means nobody",
    ),
    Mistake(
        parts.selectors_mean_somebody, "Service api", "spec.selector", {"app.kubernetes.io/name": "street12"},
        "does not mean just one",
    ),
    Mistake(
        parts.selectors_mean_somebody, "ServiceMonitor api", "spec.selector.matchLabels", {"app": "api"},
        "means nobody",
    ),
    Mistake(
        parts.selectors_mean_somebody, _API, "spec.selector.matchLabels", {"app.kubernetes.io/name": "street12"},
        "means others' pods",
    ),
    Mistake(parts.ports_are_those_of_the_processes, "Service api", "spec.ports.0.targetPort", "web", "nobody has: web"),
    Mistake(parts.ports_are_those_of_the_processes, _ORDER, f"{OURS}.ports.0.containerPort", 8000, "listens at 8080"),
    Mistake(
        parts.ports_are_those_of_the_processes, "PodMonitor workers", "spec.podMetricsEndpoints.0.port", "metrics",
        "where nobody answers",
    ),
    Mistake(
        parts.budgets_can_be_kept, "PodDisruptionBudget worker-order", "spec.minAvailable", 1, "from being drained",
    ),
    Mistake(parts.budgets_can_be_kept, "PodDisruptionBudget worker-order", "", None, "has 0 disruption budgets"),
    Mistake(
        parts.teams_are_spread, _API, f"{POD}.topologySpreadConstraints.0.whenUnsatisfiable", "ScheduleAnyway",
        "in one zone alone",
    ),
    Mistake(parts.teams_are_spread, _API, f"{POD}.topologySpreadConstraints.0.matchLabelKeys", [], "beside others"),
]  # fmt: skip


@pytest.mark.parametrize("policy", policies_of(parts), ids=lambda policy: policy.__name__)
def test_every_overlay_keeps_it(clusters: dict[str, Cluster], policy: Policy) -> None:
    assert {name: found for name, cluster in clusters.items() if (found := [*policy(cluster)])} == {}


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_found(clusters: dict[str, Cluster], mistake: Mistake) -> None:
    mistake.must_be_found(clusters)


def test_each_policy_is_seen_to_fail() -> None:
    assert {mistake.policy for mistake in MISTAKES} == {*policies_of(parts)}
