"""Every overlay keeps every policy, and every policy can fail."""

import pytest

from tests.deploy.cluster import Cluster
from tests.deploy.mistakes import lives as lives_mistakes
from tests.deploy.mistakes import numbers as numbers_mistakes
from tests.deploy.mistakes import parts as parts_mistakes
from tests.deploy.mistakes import pods as pods_mistakes
from tests.deploy.mistakes import told as told_mistakes
from tests.deploy.plants import Mistake, policies_of
from tests.deploy.policies import Policy, lives, numbers, parts, pods, told

POLICIES = [policy for module in (pods, lives, told, parts, numbers) for policy in policies_of(module)]
MISTAKES = [
    *pods_mistakes.MISTAKES,
    *lives_mistakes.MISTAKES,
    *told_mistakes.MISTAKES,
    *parts_mistakes.MISTAKES,
    *numbers_mistakes.MISTAKES,
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_every_overlay_keeps_it(clusters: dict[str, Cluster], policy: Policy) -> None:
    assert {name: found for name, cluster in clusters.items() if (found := [*policy(cluster)])} == {}


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_found(clusters: dict[str, Cluster], mistake: Mistake) -> None:
    """By the policy that is there for it, which has nothing to say of the manifests as they are."""
    mistake.must_be_found(clusters)


def test_each_policy_is_seen_to_fail() -> None:
    assert {mistake.policy for mistake in MISTAKES} == {*POLICIES}
