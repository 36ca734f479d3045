"""Builds deploy/Dockerfile as it is. Where its packages come from is this machine's pip's business, and in no layer."""

import hashlib
import sys
import tempfile
from pathlib import Path

import api
from deploy.apt import run
from deploy.local import ROOT
from tests.image.engine import Engine

_LOCK = ROOT / "deploy" / "requirements.lock"
_PIP = "[global]\nno-index = true\nfind-links = /wheels\n"


async def fetch_wheels(kept: Path) -> Path:
    """The directory with what the lock names, fetched unless it is there. Raises `ProgramUnavailable`."""
    wheels = kept / f"wheels-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]}"
    if not wheels.exists():
        new = wheels.with_suffix(".new")
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
        await run(*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(_LOCK), "-d", str(new))
        new.rename(wheels)
    return wheels


async def build(engine: Engine, wheels: Path, stage: str, revision: str) -> str:
    """Build a stage; answers the image's name. Raises `Failed`."""
    name = f"localhost/street12:{stage}"
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as pip:
        pip.write(_PIP)
        pip.flush()
        await engine(
            *("buildah", "bud", "--isolation", "chroot", "--pull-never", "--format", "docker", "--layers"),
            *("--volume", f"{wheels}:/wheels:ro", "--volume", f"{pip.name}:/etc/pip.conf:ro"),
            *("--build-arg", f"VERSION={api.VERSION}", "--build-arg", f"REVISION={revision}"),
            *("--target", stage, "--tag", name, "--file", str(ROOT / "deploy" / "Dockerfile"), str(ROOT)),
        )
    return name
