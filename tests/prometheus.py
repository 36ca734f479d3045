"""A Prometheus server for tests, and the tool that checks its rules."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from deploy.apt import find_program
from deploy.local import ROOT
from deploy.stack import HOST
from deploy.supervisor import Program, Supervisor
from tests.missing import need

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"


async def need_prometheus(config: pytest.Config, program: str = "prometheus") -> str:
    """Where a program of Prometheus' package is. Skips where there is none; fails under `CI=true`."""
    return await need(config, "Prometheus", partial(find_program, program, package="prometheus"))


class Prometheus:
    """A server that runs, and what it knows."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def ask(self, path: str, **query: str) -> Any:
        answer = (await self._client.get(f"/api/v1/{path}", params=query)).json()
        assert answer["status"] == "success", (query, answer)
        return answer["data"]

    async def names(self) -> set[str]:
        """The metrics that it has."""
        return {*await self.ask("label/__name__/values")}


@asynccontextmanager
async def running_prometheus(
    binary: str, directory: Path, port: int, targets: Mapping[str, str]
) -> AsyncGenerator[Prometheus]:
    """A server with the shop's rules that asks these processes, by their names, for their metrics each second."""
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [url.split("/")[2]]}]}
        for name, url in sorted(targets.items())
    ]
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = {"global": every, "rule_files": [str(RULES)], "scrape_configs": jobs}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    program = Program(
        name="prometheus",
        command=[
            *(binary, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"),
            f"--web.listen-address={HOST}:{port}",
        ],
        environment=os.environ,
        ready_url=f"http://{HOST}:{port}/-/ready",
        silent_stop=True,
    )
    supervisor = Supervisor(lambda _tag, _line: None)
    try:
        await supervisor.start(program)
        async with httpx2.AsyncClient(base_url=f"http://{HOST}:{port}", trust_env=False, timeout=15.0) as client:
            yield Prometheus(client)
    finally:
        await supervisor.stop(asyncio.Event())
