"""The values for the engine's Helm chart: what the shop relies on stands in them, and nothing that is secret."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.testing import WorkflowEnvironment

from deploy import local
from tests.engines import real_engine
from workflows import client

VALUES: dict[str, Any] = yaml.safe_load((Path(local.__file__).parent / "temporal" / "values.yaml").read_text())
PERSISTENCE: dict[str, Any] = VALUES["server"]["config"]["persistence"]
SERVICES = ("frontend", "history", "matching", "worker")
# Looked up in the source of the server of 1.31.2, which passes over a key that it does not know without a word.
KNOWN = {
    "frontend.keepAliveMinTime",
    "frontend.enableCancelWorkerPollsOnShutdown",
    "frontend.shutdownFailHealthCheckDuration",
    "frontend.shutdownDrainDuration",
}


def dynamic() -> dict[str, Any]:
    return {name: values[0]["value"] for name, values in VALUES["server"]["dynamicConfig"].items()}


def test_server_and_schema_are_of_one_version_that_routes_by_worker_versions() -> None:
    tags = {VALUES[part]["image"]["tag"] for part in ("server", "admintools")}
    assert len(tags) == 1
    assert tuple(map(int, tags.pop().split("."))) >= (1, 29, 1)


def test_the_number_of_shards_is_what_it_was() -> None:
    assert PERSISTENCE["numHistoryShards"] == 512  # never changed: the file says why


def test_both_stores_come_with_a_secret_over_checked_tls() -> None:
    for name in (PERSISTENCE["defaultStore"], PERSISTENCE["visibilityStore"]):
        sql = PERSISTENCE["datastores"][name]["sql"]
        assert (sql["pluginName"], sql["user"], sql["createDatabase"]) == ("mysql8", "temporal", False)
        assert sql["existingSecret"]
        assert sql["tls"]["enabled"]
        assert sql["tls"]["enableHostVerification"]
        assert sql["tls"]["caFile"].startswith(VALUES["server"]["additionalVolumeMounts"][0]["mountPath"] + "/")


def test_no_password_stands_in_it() -> None:
    assert not re.search(r'"[a-z]*(password|clientSecret)": "', json.dumps(VALUES), re.IGNORECASE)
    for variable in VALUES["web"]["additionalEnv"]:
        assert ("valueFrom" in variable) == ("SECRET" in variable["name"]), variable["name"]


def test_each_service_outlives_a_node() -> None:
    for part in (*(VALUES["server"][name] for name in SERVICES), VALUES["web"]):
        assert part["replicaCount"] >= 2
        assert part["podDisruptionBudget"] == {"maxUnavailable": 1}
        assert part["resources"]["requests"]
        assert part["resources"]["limits"]["memory"]


def test_the_web_ui_decrypts_with_its_users_tokens_and_lets_nobody_in_without() -> None:
    shown = {variable["name"]: variable.get("value") for variable in VALUES["web"]["additionalEnv"]}
    assert str(shown["TEMPORAL_CODEC_ENDPOINT"]).startswith("https://")  # it passes tokens over HTTPS only
    assert shown["TEMPORAL_CODEC_PASS_ACCESS_TOKEN"] == shown["TEMPORAL_AUTH_ENABLED"] == "true"


def test_the_clients_signs_of_life_are_no_attack() -> None:
    allowed_seconds = int(str(dynamic()["frontend.keepAliveMinTime"]).removesuffix("s"))
    kept_alive = client._KEEP_ALIVE  # pyright: ignore[reportPrivateUsage]
    assert kept_alive.interval_millis > allowed_seconds * 1000


async def test_the_engine_takes_its_dynamic_configuration() -> None:
    assert {*dynamic()} == KNOWN
    given = [
        part for name, value in dynamic().items() for part in ("--dynamic-config-value", f"{name}={json.dumps(value)}")
    ]
    async with real_engine(more=given) as engine:
        assert await _completes_polls(engine)
    async with real_engine() as engine:
        assert not await _completes_polls(engine)


async def _completes_polls(engine: WorkflowEnvironment) -> bool:
    request = DescribeNamespaceRequest(namespace=engine.client.namespace)
    known = await engine.client.workflow_service.describe_namespace(request)
    return known.namespace_info.capabilities.worker_poll_complete_on_shutdown
