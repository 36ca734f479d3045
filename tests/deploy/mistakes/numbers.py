"""Mistakes in how many there are."""

from tests.deploy.plants import GONE, Mistake
from tests.deploy.policies import numbers

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
