"""What the checks of the manifests go by is what the code has."""

import ast
from pathlib import Path

import pytest
import yaml

from deploy.local import ROOT
from tests.deploy.cluster import Cluster
from tests.deploy.image import image_environment
from tests.deploy.known import named
from tests.deploy.prometheus_rule import OBJECT, prometheus_rule
from tests.deploy.roles import ROLES
from tests.prometheus import RULES

IN_THE_IMAGE = {
    *("STREET12_API_HOST", "STREET12_API_LIVENESS_FILE", "STREET12_CODEC_HOST", "STREET12_CODEC_LIVENESS_FILE"),
    *("STREET12_WORKER_HEALTH_HOST", "STREET12_WORKER_HEALTH_PORT", "STREET12_WORKER_LIVENESS_FILE"),
}
# What somebody applies or adds to an overlay: tests/deploy/overlays.py.
_BEGINNINGS = (
    *("overlays/local", "overlays/local/migrate", "overlays/production", "overlays/production/migrate"),
    *("overlays/production-versioned", "components/temporal-cloud-api-key", "components/temporal-cloud-mtls"),
    *("components/temporal-cloud-api-key/versioned", "components/temporal-mtls/versioned"),
    *("components/temporal-mtls/scaling", "components/temporal-mtls/own-authority"),
    *("components/temporal-mtls/own-authority/scaling", "components/shared-rates"),
    "components/database-authority",
)


@pytest.mark.parametrize(
    ("file", "roles"),
    [
        ("api.py", {"api"}),
        ("worker.py", {role for role in ROLES if role.startswith("worker")}),
        ("deploy/codec_server.py", {"codec-server"}),
        ("deploy/migrate.py", {role for role in ROLES if role.startswith("migrate")}),
        ("deploy/namespace.py", {"namespace"}),
    ],
)
def test_each_role_reads_what_its_process_reads(file: str, roles: set[str]) -> None:
    read = {
        call.args[0].id
        for call in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "read_settings"
        and isinstance(call.args[0], ast.Name)
    }
    assert read == {kind.__name__ for role in roles for kind in ROLES[role].settings}


def test_the_image_sets_what_the_manifests_leave_out() -> None:
    assert image_environment().keys() >= IN_THE_IMAGE
    known = {name for role in ROLES.values() for kind in role.settings for name in named(kind)}
    assert {name for name in image_environment() if name.startswith("STREET12_")} <= known


def test_the_operator_has_the_rules_that_the_shop_has() -> None:
    """And so each is about a metric that there is: tests/e2e/test_dashboard.py. After a change, `make rules`."""
    assert OBJECT.read_text() == prometheus_rule(RULES.read_text())


def test_no_kustomization_is_forgotten() -> None:
    """Each one is rendered by one of the overlays that are checked."""
    kubernetes = ROOT / "deploy" / "kubernetes"
    reached, waiting = set[Path](), [kubernetes / name for name in _BEGINNINGS]
    while waiting:
        directory = waiting.pop().resolve()
        if directory not in reached and (directory / "kustomization.yaml").exists():
            reached.add(directory)
            waiting += [directory / line.strip().removeprefix("- ").partition(" #")[0]
                        for line in (directory / "kustomization.yaml").read_text().splitlines()
                        if line.startswith("  - ") and ":" not in line]  # fmt: skip
    assert reached == {file.parent for file in kubernetes.rglob("kustomization.yaml")}


def test_the_laptops_engines_are_set_alike(clusters: dict[str, Cluster]) -> None:
    [container] = clusters["local"].workload("temporal").containers
    composed = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["temporal"]["command"]
    assert [one for one in container["args"] if "dynamic" in one] == [one for one in composed if "dynamic" in one] != []
