"""The world is shown all of the API but what is for those who run it."""

import json
from typing import Any

import pytest

from deploy.codec_server import LARGEST_BODY
from deploy.local import ROOT
from services.gateway.operations import PROBES
from services.shared.settings import ApiSettings
from tests.deploy.cluster import Cluster
from tests.deploy.environment import environment, settings
from tests.deploy.kustomize import Object
from tests.deploy.plants import planted

INSIDE = {*PROBES}
PUBLIC = {
    *json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"],
    "/docs",
    "/docs/start.js",
    "/openapi.json",
}
LONGEST_WAIT_SECONDS = 30
"""That a caller may ask for: `Prefer: wait=N`."""
PROXY_RESTS_SECONDS = 60
"""How long ingress-nginx keeps a connection to the API for its next request (`upstream-keepalive-timeout`)."""


def routed(ingress: Object, path: str) -> bool:
    """Whether a request for a path is passed on."""
    rules: list[Any] = [one for rule in ingress["spec"]["rules"] for one in rule["http"]["paths"]]
    return any(
        path == one["path"] or (one["pathType"] == "Prefix" and f"{path}/".startswith(f"{one['path'].rstrip('/')}/"))
        for one in rules
    )


def wrongly_routed(ingress: Object) -> set[str]:
    paths = {path.replace("{", "").replace("}", "") for path in PUBLIC}
    wrong = {path for path in paths - INSIDE if not routed(ingress, path)}
    return wrong | {path for path in INSIDE | {"/", "/dev/tokens"} if routed(ingress, path)}


def ingress(cluster: Cluster, name: str) -> Object:
    found = cluster.find("Ingress", name)
    assert found is not None
    return found


def test_what_the_document_has_is_routed_and_the_probes_are_not(production: Cluster) -> None:
    assert {"/metrics", "/livez", "/readyz"} == INSIDE
    assert wrongly_routed(ingress(production, "api")) == set()


@pytest.mark.parametrize(
    ("path", "value", "wrong"),
    [
        ("spec.rules.0.http.paths.0.pathType", "Exact", "/orders/orderId"),
        ("spec.rules.0.http.paths.0.path", "/", "/metrics"),
        ("spec.rules.0.http.paths.8.path", "/coupon", "/coupons"),
    ],
)
def test_another_routing_is_found(production: Cluster, path: str, value: str, wrong: str) -> None:
    assert wrong in wrongly_routed(planted(ingress(production, "api"), path, value))


def test_everything_is_encrypted_and_leads_to_a_service(production: Cluster) -> None:
    for one in production.of("Ingress"):
        hosts = {host for entry in one["spec"]["tls"] for host in entry["hosts"]}
        assert {rule["host"] for rule in one["spec"]["rules"]} == hosts
        assert all((entry["secretName"], "tls.crt") in production.secrets for entry in one["spec"]["tls"])
        for path in (path for rule in one["spec"]["rules"] for path in rule["http"]["paths"]):
            service = production.find("Service", path["backend"]["service"]["name"])
            assert service is not None
            assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}


def test_the_proxy_has_the_patience_that_the_api_promises(production: Cluster) -> None:
    annotations = ingress(production, "api")["metadata"]["annotations"]
    container = production.workload("api").ours
    assert container is not None
    api = settings(ApiSettings, environment(production, container))
    patience = float(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"])
    assert patience > LONGEST_WAIT_SECONDS + api.request_seconds
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "on"
    assert api.trusted_proxies, "everybody would have the proxy's address"
    assert api.keep_alive_seconds > PROXY_RESTS_SECONDS, (
        "a request could meet the end of the connection that it is sent on"
    )


def test_the_codec_server_shows_what_the_web_ui_asks_for_and_takes_a_page_of_a_history(production: Cluster) -> None:
    codec = ingress(production, "codec-server")
    assert [routed(codec, path) for path in ("/decode", "/encode", "/livez", "/readyz", "/")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    limit = codec["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert limit == f"{LARGEST_BODY // 2**20}m"
