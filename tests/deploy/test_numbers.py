"""There are enough, and no more than the databases bear; and each policy can fail."""

import pytest

from tests.deploy.cluster import Cluster
from tests.deploy.plants import GONE, Mistake, policies_of
from tests.deploy.policies import Policy, numbers

_ORDER = "Deployment worker-order"
MISTAKES = [
    Mistake(
        numbers.scalers_have_somebody_to_scale, "HorizontalPodAutoscaler api", "spec.scaleTargetRef.name", "apis",
        "which is not there",
    ),
    Mistake(numbers.scalers_have_somebody_to_scale, _ORDER, "spec.replicas", 2, "sets back"),
    Mistake(
        numbers.queues_are_watched, "ScaledObject worker-order", "spec.triggers.0.metadata.taskQueue", "orders",
        "does not watch its team's queue",
    ),
    Mistake(
        numbers.queues_are_watched, "ScaledObject worker-order", "spec.triggers.0.metadata.queueTypes", "activity",
        "does not see all tasks",
    ),
    Mistake(
        numbers.queues_are_watched, "ScaledObject worker-order", "spec.triggers.0.metadata.apiKeyFromEnv", GONE,
        "has not the workers' API key", "production, API key",
    ),
    Mistake(
        numbers.queues_are_watched, "ScaledObject worker-order", "spec.triggers.0.authenticationRef", GONE,
        "has not the workers' certificate", "production, mTLS",
    ),
    Mistake(numbers.there_are_enough, "ScaledObject worker-order", "spec.minReplicaCount", 1, "can be down to 1"),
    Mistake(numbers.databases_bear_it, "ScaledObject worker-order", "spec.maxReplicaCount", 6, "140 connections"),
]  # fmt: skip


@pytest.mark.parametrize("policy", policies_of(numbers), ids=lambda policy: policy.__name__)
def test_every_overlay_keeps_it(clusters: dict[str, Cluster], policy: Policy) -> None:
    assert {name: found for name, cluster in clusters.items() if (found := [*policy(cluster)])} == {}


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_found(clusters: dict[str, Cluster], mistake: Mistake) -> None:
    mistake.must_be_found(clusters)


def test_each_policy_is_seen_to_fail() -> None:
    assert {mistake.policy for mistake in MISTAKES} == {*policies_of(numbers)}
