"""What the manifests come to: kustomizations of this repository, rendered as kubectl would apply them."""

import os
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import yaml

from deploy.local import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
Object: TypeAlias = dict[str, Any]


class CannotBeRendered(Exception):
    """kustomize refuses the kustomization, and says why."""


@cache
def render(kubectl: Path, directory: Path, *components: Path) -> list[Object]:
    """The objects of a kustomization, with more components where some are named. Raises `CannotBeRendered`."""
    if components:
        with TemporaryDirectory() as around:  # as a person would who adds them to the overlay's own
            kustomization: Object = {
                "namespace": "street12",
                "resources": [os.path.relpath(directory, Path(around).resolve())],
                "components": [os.path.relpath(component, Path(around).resolve()) for component in components],
            }
            (Path(around) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
            return render(kubectl, Path(around))
    answer = subprocess.run([kubectl, "kustomize", directory], capture_output=True, text=True, timeout=60, check=False)
    if answer.returncode != 0 or answer.stderr:  # a warning is a mistake, too
        raise CannotBeRendered(f"{directory}: {answer.stderr}")
    return [one for one in yaml.load_all(answer.stdout, Loader=yaml.CSafeLoader) if one]
