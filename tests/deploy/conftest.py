"""The overlays, rendered once."""

import pytest

from tests.deploy.cluster import Cluster
from tests.deploy.kubectl import find_kubectl
from tests.deploy.overlays import OVERLAYS, Overlay
from tests.missing import need


@pytest.fixture(scope="session")
async def clusters(request: pytest.FixtureRequest) -> dict[str, Cluster]:
    """What each overlay brings into a cluster, by the overlay's name."""
    kubectl = await need(request.config, "kubectl", find_kubectl)
    return {overlay.name: overlay.render(kubectl) for overlay in OVERLAYS}


@pytest.fixture(scope="session", params=OVERLAYS, ids=lambda overlay: overlay.name)
def overlay(request: pytest.FixtureRequest) -> Overlay:
    return request.param


@pytest.fixture
def cluster(clusters: dict[str, Cluster], overlay: Overlay) -> Cluster:
    """One overlay after the other."""
    return clusters[overlay.name]


@pytest.fixture
def production(clusters: dict[str, Cluster]) -> Cluster:
    return clusters["production"]
