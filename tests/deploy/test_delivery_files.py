"""The two pipelines: valid, the same in what they do, and careful with what they may."""

import re
import subprocess
import sys
from asyncio import create_subprocess_exec
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.deploy.delivery import PIPELINE, ROOT, Delivery
from tests.deploy.kubectl import find_kubectl
from tests.deploy.test_pipeline import STEPS
from tests.missing import need

BUILDSPEC = PIPELINE / "buildspec.yml"
WORKFLOW = ROOT / ".github" / "workflows" / "delivery.yml"
SCHEMA = Path(__file__).parent / "buildspec.schema.json"


def loaded(file: Path) -> dict[str, Any]:
    return yaml.load(file.read_text(), yaml.BaseLoader)  # `on` is a word, not a truth


def jobs() -> dict[str, dict[str, Any]]:
    return loaded(WORKFLOW)["jobs"]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for one in cast("Mapping[str, Any]", value).values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in cast("list[Any]", value):
            yield from strings(one)
    else:
        yield str(value)


def called(value: Any) -> list[str]:
    """The steps that are run, in order."""
    return [step for text in strings(value) for step in re.findall(r"deploy/pipeline/run\.sh ([a-z-]+)", text)]


@pytest.mark.parametrize(
    "arguments", [("--builtin-schema", "vendor.github-workflows", WORKFLOW), ("--schemafile", SCHEMA, BUILDSPEC)]
)
def test_a_pipeline_is_what_its_host_understands(arguments: tuple[str | Path, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_both_pipelines_take_the_same_steps_in_the_same_order() -> None:
    phases = loaded(BUILDSPEC)["phases"]
    assert called([phases[name] for name in ("install", "pre_build", "build", "post_build")]) == [*STEPS, "roll-back"]
    assert called([job["steps"] for job in jobs().values()]) == [*STEPS, "roll-back"]


def test_jobs_wait_for_each_other() -> None:
    names = list(jobs())
    assert [job.get("needs", "") for job in jobs().values()] == ["", *names[:-1]]


def test_what_fails_in_codebuild_before_the_push_ends_the_build() -> None:
    """After a failed `build` phase CodeBuild goes on to `post_build`; after a failed `pre_build` it does not."""
    phases = loaded(BUILDSPEC)["phases"]
    assert called(phases["pre_build"]) == ["gates", "test", "build", "scan"]
    assert called(phases["post_build"]) == ["roll-back"]
    assert not [phase for phase in phases.values() if "on-failure" in phase]


async def test_a_pull_request_is_only_checked_built_and_scanned(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    for name, job in jobs().items():
        only_main = job.get("if") == "${{ github.event_name == 'push' }}"
        assert only_main == (name in ("push", "deploy")), name
    delivery = Delivery(tmp_path, await need(pytestconfig, "kubectl", find_kubectl))
    for command in loaded(BUILDSPEC)["phases"]["build"]["commands"]:
        environment = {**delivery.environment, "STREET12_DELIVERY": "check"}
        done = await create_subprocess_exec("bash", "-c", command, env=environment, cwd=ROOT)
        assert await done.wait() == 0
    assert not delivery.calls()


def test_nobody_has_more_rights_than_they_need() -> None:
    assert loaded(WORKFLOW)["permissions"] == {}
    for name, job in jobs().items():
        may_be_aws = {"id-token": "write"} if name in ("push", "deploy") else {}
        assert job["permissions"] == {"contents": "read", **may_be_aws}, name
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert [step["with"]["persist-credentials"] for step in checkouts] == ["false"], name
    assert jobs()["deploy"]["environment"] == "production"


def test_two_deliveries_never_overlap_and_none_is_cut_short() -> None:
    concurrency = loaded(WORKFLOW)["concurrency"]
    assert concurrency == {
        "group": "delivery-${{ github.event_name == 'pull_request' && github.ref || 'production' }}",
        "cancel-in-progress": "${{ github.event_name == 'pull_request' }}",
    }
    assert all(int(job["timeout-minutes"]) <= 90 for job in jobs().values())


def test_foreign_code_is_named_by_its_commit() -> None:
    used = [step["uses"] for job in jobs().values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", one) for one in used), used


def test_no_secret_stands_in_a_pipeline() -> None:
    """A secret goes to the one step that needs it, and no input of others is put into a command line."""
    text = BUILDSPEC.read_text() + WORKFLOW.read_text()
    assert not re.search(r"AKIA|aws_secret|BEGIN .*PRIVATE|eyJ[\w-]{10}|sk_(live|test)", text, re.IGNORECASE)
    for job in jobs().values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), step
            if called(step) != ["verify"]:
                assert "secrets." not in str(step), step
    assert loaded(BUILDSPEC)["env"]["variables"] == {"STREET12_DELIVERY": "deliver"}


def test_every_setting_that_is_handed_over_is_read_by_a_script() -> None:
    scripts = "".join(script.read_text() for script in PIPELINE.glob("*.sh"))
    env = loaded(BUILDSPEC)["env"]
    named = {name for kind in ("parameter-store", "secrets-manager") for name in env[kind]}
    for job in jobs().values():
        named |= job.get("env", {}).keys() | {name for step in job["steps"] for name in step.get("env", {})}
    assert {name for name in named if not re.search(rf"\b{name}\b", scripts)} == set()
