"""Record the history of every path that an order can take: `make histories`.

Writes the set of the present release anew, as a whole. The sets of earlier releases stay, for as long as orders that
they started may be open: docs/changing-workflows.md.
"""

import argparse
import asyncio
import logging

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from temporalio.client import WorkflowHistory
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig
from temporalio.testing import WorkflowEnvironment

from services.shared.process import end
from tests.engines import real_engine, skipping_engine
from tests.replay.against import parsed, read, replay
from tests.replay.histories import HISTORIES, patches, recorded, release, story, text_of
from tests.replay.paths import Path, paths
from tests.saga.conftest import running_saga
from tests.saga.world import World

_IDENTITY = "recorder"  # otherwise histories name the process and the machine
_ATTEMPTS = 3  # on a busy machine a message may come too late for its path


class NotRecorded(Exception):
    """What could not be recorded or must not be replaced, and what to do about it."""


def main() -> int:
    """The process's exit status: 1 when nothing was written."""
    parser = argparse.ArgumentParser(prog="python -m tests.replay.record", description=__doc__)
    parser.add_argument("--replace", action="store_true", help="no order was started by this release: forget its set")
    replace: bool = parser.parse_args().replace
    logging.disable(logging.CRITICAL)  # the paths' failures are meant
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter="ERROR"))))
    console = Console(highlight=False)
    present = {} if replace else {file.stem: read(file) for file in recorded(release())}
    try:
        texts = asyncio.run(_record(console, present))
    except NotRecorded as error:
        console.print(f"Nothing was written. {error}", style="red", soft_wrap=True)
        return 1
    _write(texts)
    size = sum(len(text.encode()) for text in texts.values()) // 1024
    console.print(f"{len(texts)} histories of release {release()}, {size} KiB, are in {HISTORIES / release()}")
    return 0


async def _record(console: Console, present: dict[str, WorkflowHistory]) -> dict[str, str]:
    """What to write, by path. Orders that `present` histories stand for must not be forgotten."""
    for name, history in present.items():
        if failure := await replay(history):
            raise _would_forget(f"`{name}` does not replay with this code ({failure})")
    texts: dict[str, str] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        todo = paths()
        task = progress.add_task("", total=len(todo))
        for engine in (real_engine, skipping_engine):
            async with engine(identity=_IDENTITY) as environment:
                for path in (path for path in todo if path.skips_time == (engine is skipping_engine)):
                    progress.update(task, description=path.name)
                    texts[path.name] = await _recorded(environment, path)
                    progress.advance(task)
    unknown = patches(map(parsed, texts.values())) - patches(present.values())
    if present and unknown:
        raise _would_forget(f"its orders know nothing of the patch {', '.join(sorted(unknown))}")
    return texts


def _would_forget(why: str) -> NotRecorded:
    return NotRecorded(
        f"The set of release {release()} must stay: {why}.\n"
        "Orders that it started may be open: raise `version` in pyproject.toml, which begins a set of its own "
        "(docs/changing-workflows.md). Where no such order exists: make histories REPLACE=1"
    )


async def _recorded(environment: WorkflowEnvironment, path: Path) -> str:
    """One path's history, which is seen to be of that path and to replay from what is kept of it."""
    mistaken = None
    for _ in range(_ATTEMPTS):
        try:
            async with running_saga(environment, World()) as saga:
                await path.play(saga)
                history = await saga.handle.fetch_history()
        except TimeoutError:
            mistaken = "what it waits for did not come"
            continue
        mistaken = path.mistaken_for_another(story(history))
        if mistaken is None:
            text = text_of(history)
            if failure := await replay(parsed(text)):
                raise NotRecorded(f"{path.name} does not replay: {failure}")
            return text
    raise NotRecorded(f"{path.name} was not taken: {mistaken}. The path is described in tests/replay/paths.py")


def _write(texts: dict[str, str]) -> None:
    directory = HISTORIES / release()
    directory.mkdir(parents=True, exist_ok=True)
    for file in recorded(release()):
        if file.stem not in texts:
            file.unlink()
    for name, text in texts.items():
        (directory / f"{name}.json").write_text(text)


if __name__ == "__main__":
    end(main())
