"""What the image and its processes promise, which the manifests rely on."""

import re

from deploy.local import ROOT

_DOCKERFILE = ROOT / "deploy" / "Dockerfile"
# What the Dockerfile is to set, for as long as there is none.
_PLANNED = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "STREET12_API_HOST": "0.0.0.0",
    "STREET12_API_LIVENESS_FILE": "/tmp/alive",
    "STREET12_WORKER_HEALTH_HOST": "0.0.0.0",
    "STREET12_WORKER_HEALTH_PORT": "8080",
    "STREET12_WORKER_LIVENESS_FILE": "/tmp/alive",
    "STREET12_CODEC_HOST": "0.0.0.0",
    "STREET12_CODEC_LIVENESS_FILE": "/tmp/alive",
    "STREET12_DATA_DIR": "/tmp",
    "STREET12_LOG_FORMAT": "json",
}
USER = 10001
# The probes, as deploy/probes.py has them for the one-machine shop: test_probes.py compares.
PROBES = {
    "startupProbe": {
        "httpGet": {"path": "/livez", "port": "http"},
        "periodSeconds": 2,
        "timeoutSeconds": 2,
        "failureThreshold": 30,
    },
    "readinessProbe": {
        "httpGet": {"path": "/readyz", "port": "http"},
        "periodSeconds": 2,
        "timeoutSeconds": 2,
        "failureThreshold": 1,
    },
    "livenessProbe": {
        "exec": {"command": ["sh", "-c", "test -n \"$(find /tmp/alive -newermt '15 seconds ago')\""]},
        "periodSeconds": 5,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
        "terminationGracePeriodSeconds": 5,
    },
}


def image_environment() -> dict[str, str]:
    """The variables that are set in every container of the image, of the shop's own."""
    if not _DOCKERFILE.exists():
        return dict(_PLANNED)
    text = _DOCKERFILE.read_text().replace("\\\n", " ")
    lines = re.findall(r"^ENV +(.+)$", text, re.MULTILINE)
    pairs = (pair.partition("=") for line in lines for pair in line.split())
    return {name: value for name, _, value in pairs if name.startswith(("STREET12_", "PYTHON")) and "$" not in value}
