"""What deploy/Dockerfile is built on, where no registry is to be had: made from Debian's packages and this CPython.

It bears the name that the Dockerfile asks for, so that the Dockerfile is built as it is. It is larger than what the
name stands for elsewhere, but holds the same: Debian 12's libraries, `/usr/local/bin/python3.11`, pip.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from deploy.apt import ProgramUnavailable, run
from tests.deploy import dockerfile
from tests.image.engine import Engine

# What CPython's own modules are linked with, and what the image on the registry has beside it.
_PACKAGES = (
    *("ca-certificates", "netbase", "tzdata", "libssl3", "libffi8", "libsqlite3-0", "libbz2-1.0", "liblzma5"),
    *("libreadline8", "zlib1g", "libuuid1", "libncursesw6"),
)
_LEFT_OUT = ("doc", "man", "locale", "info")
_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
_FINISH = """
ldconfig
ln -s python3.11 /usr/local/bin/python3
ln -s python3 /usr/local/bin/python
python -m ensurepip --default-pip
find /usr/local -name __pycache__ -prune -exec rm -r {} +
"""


def base_name() -> str:
    """What the Dockerfile is built on, as registries call it."""
    [default] = [line for line in dockerfile.FILE.read_text().splitlines() if line.startswith("ARG PYTHON=")]
    return f"docker.io/library/{default.partition('=')[2]}"


async def provide_base(engine: Engine) -> str:
    """Make the base, unless it is there; tells where it came from. Raises `ProgramUnavailable`, `Failed`."""
    if await engine.has(base_name()):
        return "kept from an earlier run"
    if sys.version_info[:2] != (3, 11):
        raise ProgramUnavailable("the image's base is made from this CPython, which must be 3.11")
    with tempfile.TemporaryDirectory() as work:
        layer, root = Path(work, "local"), Path(work, "root.tar")
        _copy_python(Path(sys.base_prefix), layer)
        finish = layer / "finish.sh"
        finish.write_text(_FINISH)
        await run(*_bootstrap(layer, root))
        await engine(
            "podman",
            "import",
            "--change",
            "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            str(root),
            base_name(),
        )
    return "made of Debian's packages and this machine's CPython"


def _bootstrap(layer: Path, root: Path) -> list[str]:
    return [
        *("mmdebstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}"),
        *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in _LEFT_OUT),
        *('--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=Acquire::Check-Date "false"'),
        f"--customize-hook=sync-in {layer} /usr/local",
        '--customize-hook=chroot "$1" sh -eu /usr/local/finish.sh && rm "$1/usr/local/finish.sh"',
        *("bookworm", str(root)),
        *([str(_SOURCES)] if _SOURCES.exists() else []),
    ]


def _copy_python(prefix: Path, layer: Path) -> None:
    unwanted = shutil.ignore_patterns("site-packages", "__pycache__", "test", "config-3.11*", "*.a")
    shutil.copytree(prefix / "lib" / "python3.11", layer / "lib" / "python3.11", ignore=unwanted, symlinks=True)
    (layer / "bin").mkdir()
    shutil.copy(prefix / "bin" / "python3.11", layer / "bin")
    for library in (prefix / "lib").glob("libpython3*.so*"):
        shutil.copy(library, layer / "lib", follow_symlinks=False)
