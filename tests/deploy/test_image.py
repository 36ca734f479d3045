"""What the image is made of: just what its roles need, and nothing that a release must not be able to do."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.__main__ import ROLES
from deploy.local import ROOT
from deploy.probes import LIVENESS, LIVENESS_FILE
from services.shared.settings import ApiSettings, CodecServerSettings, PaymentSettings
from tests.deploy import dockerfile
from tests.deploy.known import is_known, settings

LAPTOP_ONLY = ("payments", "local-api")
NOT_OF = {
    "api": ("alembic",),
    "worker": ("alembic", "fastapi", "uvicorn"),
    "migrate": ("temporalio", "fastapi", "stripe"),
    "namespace": ("fastapi", "stripe", "alembic"),
    "codec-server": ("stripe", "alembic", "uvicorn"),
}
"""What a role has no use for, and does not wait for when it starts."""
RELEASED = tuple(role for role in ROLES if role not in LAPTOP_ONLY)
# The role's `--help`, where nothing can be loaded but what the image installs; then what was.
HELP = """
import json, sys
from importlib.metadata import packages_distributions

role, *installed = sys.argv[1:]
names = {module: {one.lower().replace("_", "-").replace(".", "-") for one in of}
         for module, of in packages_distributions().items()}

class Absent:
    def find_spec(self, module, path=None, target=None):
        if not names.get(module.partition(".")[0], {*installed}) & {*installed}:
            raise ModuleNotFoundError(f"the image has no {module}", name=module)

sys.meta_path.insert(0, Absent())
from deploy.__main__ import main
try:
    main([role, "--help"])
finally:
    print(json.dumps([*sys.modules]))
"""
BLOCKED = """
import sys
print("loading", flush=True)
while True:
    try:
        sys.stdin.read()
    except BaseException:
        pass
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that a release's processes run in, with exactly the repository's files that are in the image."""
    return dockerfile.lay_out("release", tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dockerfile.lay_out("laptop", tmp_path_factory.mktemp("laptop"))


def environment(**more: str) -> dict[str, str]:
    """As the image's processes have it."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("STREET12_", "TEMPORAL_", "OTEL_"))
    }
    own.pop("PYTHONPATH", None)
    return own | dockerfile.environment("release") | more


def run(directory: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def locked(file: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / file).read_text(), flags=re.MULTILINE))


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, dockerfile.FILE], capture_output=True, text=True, timeout=120, check=False)
    assert (found.returncode, found.stdout) == (0, "")


# The files


@pytest.mark.parametrize("role", RELEASED)
def test_each_role_of_a_release_has_all_that_it_loads_and_loads_no_others(release: Path, role: str) -> None:
    told = run(release, "-c", HELP, role, *locked("deploy/requirements.lock"))
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("usage: python -m deploy")
    loaded = {*json.loads(told.stdout.splitlines()[-1])}
    others = {module for another, module in ROLES.items() if another != role}
    assert loaded & {*others, *NOT_OF.get(role, ())} == set()


@pytest.mark.parametrize("role", LAPTOP_ONLY)
def test_what_only_a_laptop_needs_is_there_and_in_no_release(release: Path, laptop: Path, role: str) -> None:
    told = run(laptop, "-c", HELP, role, *locked("deploy/requirements.lock"))
    assert (told.returncode, told.stderr) == (0, "")
    told = run(release, "-m", "deploy", role)
    assert told.returncode == 2
    assert told.stderr == (
        f"python -m deploy ROLE …: there is no role {role!r};"
        " the roles are api, worker, migrate, namespace, codec-server.\n"
    )


def test_a_release_cannot_sign_tokens_and_brings_no_tests_and_no_documents(release: Path, laptop: Path) -> None:
    files = [file for file in release.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".py", ".mako"}
    assert {file.relative_to(release).parts[0] for file in files} == {
        *("api.py", "worker.py", "activities", "deploy", "services", "workflows")
    }
    assert not [file for file in files if "jwt.encode" in file.read_text() or file.name.startswith("test_")]
    assert [file.name for file in laptop.rglob("*.py") if "jwt.encode" in file.read_text()] == ["issuer.py"]


def test_the_image_installs_what_the_shop_runs_on_everywhere() -> None:
    assert locked("deploy/requirements.lock") <= locked("requirements.lock")


def test_the_build_is_sent_what_it_copies_and_little_else() -> None:
    sources = {
        word.partition("/")[0]
        for stage in dockerfile.read().values()
        for copy in stage.instructions
        if copy.keyword == "COPY" and "--from" not in copy.text
        for word in copy.words[:-1]
    }
    lines = dockerfile.FILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == sources
    assert "**/__pycache__" in rules


# Processes


def test_migrations_are_there_and_run(release: Path, tmp_path: Path) -> None:
    told = run(release, "-m", "deploy", "migrate", "--team", "marketing", STREET12_DATA_DIR=str(tmp_path))
    assert (told.returncode, told.stderr) == (0, "")
    assert (tmp_path / "marketing.db").exists()


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (["api"], "STREET12_AUTH_ISSUER"),
        (["worker", "--team", "order"], "STREET12_CODEC_KEYS"),
        (["codec-server"], "STREET12_CODEC_KEYS"),
    ],
)
def test_a_role_without_its_settings_ends_with_one_sentence_and_status_1(
    release: Path, tmp_path: Path, arguments: list[str], setting: str
) -> None:
    port = {"STREET12_WORKER_HEALTH_PORT": "0", "STREET12_WORKER_LIVENESS_FILE": str(tmp_path / "alive")}
    told = run(release, "-m", "deploy", *arguments, **port)
    assert told.returncode == 1
    assert told.stderr.splitlines()[-1].startswith(f"The setting {setting} is not set")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "python -m deploy ROLE …: a role is missing; the roles are api, worker,"),
        (["wrker"], "python -m deploy ROLE …: there is no role 'wrker'; the roles are api, worker,"),
    ],
)
def test_a_wrong_role_is_told_in_one_sentence_that_names_the_right_ones(
    release: Path, arguments: list[str], said: str
) -> None:
    told = run(release, "-m", "deploy", *arguments)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith(said)
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["worker"], ["worker", "--team", "sales"], ["api", "--port", "1"]])
def test_an_argument_that_the_role_does_not_take_is_told_by_the_role(release: Path, arguments: list[str]) -> None:
    told = run(release, "-m", "deploy", *arguments)
    assert told.returncode == 2
    assert f"python -m deploy {arguments[0]}: error: " in told.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_role_that_is_just_being_loaded_ends_at_a_signal(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    directory = dockerfile.lay_out("release", tmp_path / "image")
    (directory / "api.py").write_text(BLOCKED)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy", "api"),
        cwd=directory,
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"loading\n"
            process.send_signal(number)
            assert await process.wait() == status  # by a handler: without one it would be the number alone
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# How it runs


def test_it_runs_as_a_user_that_is_a_number_and_not_root() -> None:
    for stage in ("release", "laptop"):
        assert dockerfile.instructions(stage, "USER")[-1].text == "10001:10001"


def test_what_a_release_runs_on_has_no_step_that_installs_anything() -> None:
    for step in dockerfile.instructions("release", "RUN"):
        assert not re.search(r"apt|pip\b.* install|curl|wget|gcc|make\b", step.text), step.text
    assert [*dockerfile.read()][-1] == "release"  # what is built where nobody names a stage


def test_dependencies_are_installed_by_hash() -> None:
    [install] = [step for step in dockerfile.instructions("build", "RUN") if " install " in step.text]
    assert {"--require-hashes", "--only-binary", "--no-cache-dir"} <= {*install.words}


def test_its_ports_are_those_of_the_settings() -> None:
    told = dockerfile.environment("release")
    [ports] = dockerfile.instructions("release", "EXPOSE")
    api, codec = ApiSettings.model_fields["port"].default, CodecServerSettings.model_fields["port"].default
    assert ports.words == [str(api), told["STREET12_WORKER_HEALTH_PORT"], str(codec)]
    assert PaymentSettings.model_fields["url"].default == "https://api.stripe.com"  # never a simulator in a release


def test_each_name_in_its_environment_is_a_setting() -> None:
    told = dockerfile.environment("release")
    assert [name for name in told if not is_known(name)] == []
    assert {name for name in settings() if name.endswith("LIVENESS_FILE")} == {
        name for name, value in told.items() if value == "/tmp/alive"
    }
    assert {name for name in settings() if name.endswith("_HOST")} == {
        name for name, value in told.items() if value == "0.0.0.0"
    }


def test_its_health_is_the_liveness_file_which_must_be_young(tmp_path: Path) -> None:
    [check] = dockerfile.instructions("release", "HEALTHCHECK")
    command = json.loads(check.text.partition("CMD ")[2])
    assert command == LIVENESS.command(LIVENESS_FILE)
    file = tmp_path / "alive"
    here = [*command[:-1], command[-1].replace("/tmp/alive", str(file))]

    def is_healthy() -> bool:
        return subprocess.run(here, capture_output=True, timeout=30, check=False).returncode == 0

    assert not is_healthy()
    file.touch()
    assert is_healthy()
    os.utime(file, (0, file.stat().st_mtime - 16))
    assert not is_healthy()


def test_it_is_told_to_stop_as_the_processes_expect() -> None:
    assert [stop.text for stop in dockerfile.instructions("release", "STOPSIGNAL")] == ["SIGTERM"]
    assert [entry.text for entry in dockerfile.instructions("release", "ENTRYPOINT")] == [
        '["python", "-m", "deploy"]'  # not through a shell, which would keep the signal to itself
    ]
