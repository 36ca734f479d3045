"""Every expression of the dashboard and of the alert rules speaks of what a running shop really measures."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.apt import run
from deploy.local import ROOT
from deploy.stack import Stack, take_ports
from tests.e2e.shop import Shop, eventually
from tests.e2e.test_metrics import everything_happens
from tests.prometheus import RULES, Prometheus, need_prometheus, running_prometheus

DASHBOARD = ROOT / "deploy" / "grafana" / "shop.json"
_NAME = re.compile(r"\b((?:street12|temporal|process)[_:][a-z0-9_:]+)\b")
# What a shop that is well does not have; who sees to it that there is such a metric.
ABSENT = {
    "temporal_workflow_task_execution_failed_total": "tests/saga/test_measured.py",
    "street12_database_repeats_total": "tests/database/test_transactions.py",
}


def dashboard() -> Iterator[tuple[str, str]]:
    """Each panel's title, and an expression of it."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def rules() -> Iterator[tuple[str, str]]:
    """Each rule's name and expression."""
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        yield rule.get("alert") or rule["record"], rule["expr"]


def alerts() -> set[str]:
    return {name for name, _ in rules() if ":" not in name}


async def test_every_expression_is_about_what_the_shop_measures(
    shop: Shop, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    binary = await need_prometheus(request.config)
    await everything_happens(shop)
    [port] = take_ports({"prometheus": 0}).values()
    targets = Stack.read(shop.data_dir).urls.metrics
    async with running_prometheus(binary, tmp_path, port, targets) as prometheus:

        async def seen() -> bool:
            """Everybody was asked twice, and the rules went over it."""
            up = await prometheus.ask("query", query='count(count_over_time(up{job!=""}[1m]) > 2 and up == 1)')
            recorded = await prometheus.ask("query", query="street12:team_up == 1")
            answering = int(up["result"][0]["value"][1]) if up["result"] else 0
            return answering == len(targets) and len(recorded["result"]) == 3

        await eventually(seen, "Prometheus to have seen the shop")
        await assert_known(prometheus)


async def assert_known(prometheus: Prometheus) -> None:
    known = await prometheus.names()
    asked = 0
    for title, expression in (*dashboard(), *rules()):
        names = {*_NAME.findall(expression)}
        assert names, f"{title} is about nothing: {expression}"
        unknown = {name for name in names if name not in known} - ABSENT.keys()
        assert not unknown, f"{title}: the shop measures no {unknown}"
        await prometheus.ask("query", query=expression)
        asked += 1
    assert asked > 60
    firing = await prometheus.ask("query", query='ALERTS{alertstate="firing"}')
    assert [alert["metric"]["alertname"] for alert in firing["result"]] == [], "a shop that is well calls nobody"


def test_every_alert_is_seen_firing_and_keeping_still_and_has_its_runbook() -> None:
    tests = (RULES.parent / "tests.yml").read_text()
    runbooks = (ROOT / "docs" / "operations.md").read_text()
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    told = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    assert told.keys() == alerts()
    for name, rule in told.items():
        assert f'ALERTS{{alertname="{name}",alertstate="firing"}}' in tests, f"{name} was never seen firing"
        assert re.search(rf"alertname: {name}[,}}]", tests), f"{name} was never seen keeping still"
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert f"\n### {name}\n" in runbooks, f"{name} has no runbook"
        assert rule["labels"]["severity"] in ("page", "ticket")


async def test_the_rules_pass_their_own_tests(request: pytest.FixtureRequest) -> None:
    promtool = await need_prometheus(request.config, "promtool")
    await run(promtool, "check", "rules", str(RULES))
    await run(promtool, "test", "rules", str(RULES.parent / "tests.yml"))
