"""Writes the alert rules as the Prometheus operator takes them: `python -m deploy.prometheus_rule`, or `make rules`."""

from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).parent
RULES = _HERE / "prometheus" / "rules.yml"
OBJECT = _HERE / "kubernetes" / "components" / "monitoring" / "rules.yaml"
_HEAD = "# Written by `make rules` from deploy/prometheus/rules.yml: change that.\n"


def prometheus_rule(groups: str) -> str:
    """A `PrometheusRule` with the groups of a rules file."""
    rule: dict[str, Any] = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "street12"},
        "spec": yaml.safe_load(groups),
    }
    return _HEAD + yaml.safe_dump(rule, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    OBJECT.write_text(prometheus_rule(RULES.read_text()))
