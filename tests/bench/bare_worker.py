"""One worker process of the bare workflow, shaped like `worker.py`: `python -m tests.bench.bare_worker --team TEAM`."""

import argparse
import asyncio
import signal
from datetime import timedelta
from typing import Any

from aiohttp import web
from temporalio.worker import Worker

from services.shared.process import end
from services.shared.settings import TEAMS, CodecSettings, Team, WorkerSettings, read_settings
from tests.bench.bare import QUEUES, BareWorkflow, EmptyWorkflow, activities
from worker import RUNNER
from workflows.client import connect
from workflows.codec import history_codec


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--team", choices=TEAMS, required=True)
    asyncio.run(_run(parser.parse_args().team, WorkerSettings()))


async def _run(team: Team, settings: WorkerSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    workflows: dict[str, Any] = {
        "workflows": [BareWorkflow, EmptyWorkflow],
        "workflow_runner": RUNNER,
        "max_cached_workflows": 5000,
    }
    worker = Worker(
        await connect(codec=history_codec(read_settings(CodecSettings))),
        task_queue=QUEUES[team],
        activities=activities(team),
        graceful_shutdown_timeout=timedelta(seconds=settings.grace_seconds),
        build_id=settings.build_id,
        **(workflows if team == "order" else {}),
    )
    runner = await _ready(settings)
    try:
        async with worker:
            await stop.wait()
    finally:
        await runner.cleanup()


async def _ready(settings: WorkerSettings) -> web.AppRunner:
    async def readyz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ready"})

    app = web.Application()
    app.add_routes([web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, settings.health_host, settings.health_port).start()
    return runner


if __name__ == "__main__":
    main()
    end(0)
