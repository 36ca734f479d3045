"""Replay histories against the workflow as it is: `python -m tests.replay.against FILE …`.

Takes what `make histories` recorded, and what `temporal workflow show --output json` says of an order. Run by its path
with another `PYTHONPATH` it replays against that copy of the code.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Interceptor, Replayer

from services.shared.process import end
from workflows.order import OrderWorkflow


def main(names: Sequence[str]) -> int:
    """Say how each replays. Exit status 1 when one does not."""
    broken = 0
    for name in names:
        failure = asyncio.run(replay(read(Path(name))))
        broken += failure is not None
        print(f"{name}: {'replays' if failure is None else f'{type(failure).__name__}: {failure}'}")  # noqa: T201
    return 1 if broken else 0


def read(file: Path) -> WorkflowHistory:
    """A history from its file."""
    return parsed(file.read_text())


def parsed(text: str) -> WorkflowHistory:
    """A history from what a file holds."""
    history = WorkflowHistory.from_json("", text)
    started = history.events[0].workflow_execution_started_event_attributes
    return WorkflowHistory(started.workflow_id, history.events)


async def replay(history: WorkflowHistory, interceptors: Sequence[Interceptor] = ()) -> Exception | None:
    """Why a history does not replay, such as a `NondeterminismError`; nothing when it does.

    In the SDK's own sandbox, which is stricter than the worker's: it also refuses clocks, files and randomness.
    """
    replayer = Replayer(workflows=[OrderWorkflow], data_converter=pydantic_data_converter, interceptors=interceptors)
    return (await replayer.replay_workflow(history, raise_on_replay_failure=False)).replay_failure


if __name__ == "__main__":
    end(main(sys.argv[1:]))
