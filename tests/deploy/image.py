"""What the image and its processes promise, which the manifests rely on."""

import re

from deploy.local import ROOT
from deploy.probes import LIVENESS, LIVENESS_FILE, READINESS, STARTUP

_DOCKERFILE = ROOT / "deploy" / "Dockerfile"
USER = 10001
PROBES = {
    "startupProbe": STARTUP.kubernetes("http"),
    "readinessProbe": READINESS.kubernetes("http"),
    "livenessProbe": LIVENESS.kubernetes(LIVENESS_FILE),
}
"""Those that the one-machine shop's supervisor goes by."""


def image_environment() -> dict[str, str]:
    """The variables that are set in every container of the image, of the shop's own."""
    text = _DOCKERFILE.read_text().replace("\\\n", " ")
    lines = re.findall(r"^ENV +(.+)$", text, re.MULTILINE)
    pairs = (pair.partition("=") for line in lines for pair in line.split())
    return {name: value for name, _, value in pairs if name.startswith(("STREET12_", "PYTHON")) and "$" not in value}
