"""Writes the alert rules as the Prometheus operator takes them: `make rules`.

Kustomize reads nothing outside of its own directory, and cannot make a rule of a file that is none. So there is a copy,
which a test compares with what it was made from.
"""

from typing import Any

import yaml

from tests.deploy.kustomize import KUBERNETES
from tests.prometheus import RULES

OBJECT = KUBERNETES / "components" / "monitoring" / "rules.yaml"
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
