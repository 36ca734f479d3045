"""What any release has recorded of its orders replays with the code as it is."""

import re
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from tests.replay.against import read, replay
from tests.replay.histories import HISTORIES, recorded, release
from tests.replay.paths import paths
from workflows.client import traced

each_history = pytest.mark.parametrize("file", recorded(), ids=lambda file: f"{file.parent.name}/{file.stem}")


@each_history
async def test_a_recorded_history_replays(file: Path) -> None:
    failure = await replay(read(file))
    assert failure is None, (
        f"orders that release {file.parent.name} has started and that went this way would get stuck; "
        f"what to do is in docs/changing-workflows.md: {failure}"
    )


@each_history
async def test_a_recorded_history_replays_in_a_process_that_traces(file: Path) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    assert await replay(read(file), [traced(provider.get_tracer("test"))]) is None


def test_every_path_is_recorded_of_this_release() -> None:
    known, found = {path.name for path in paths()}, {file.stem for file in recorded(release())}
    assert found == known, (
        f"run `make histories`: of release {release()} there is no history of {sorted(known - found)}, "
        f"and one too many of {sorted(found - known)}"
    )


@each_history
def test_a_recorded_history_names_no_machine(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r'\d+@|"identity"|"stackTrace"|site-packages', text)


def test_nothing_else_lies_among_the_histories() -> None:
    """What no test looks at protects no order."""
    strangers = {file for file in HISTORIES.rglob("*") if file.is_file()} - {*recorded()}
    assert not strangers
