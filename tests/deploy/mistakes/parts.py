"""Mistakes in what names something else."""

from tests.deploy.plants import OURS, POD, Mistake
from tests.deploy.policies import parts

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
