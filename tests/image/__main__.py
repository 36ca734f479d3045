"""Builds the image, runs the whole shop in it, and stops it: `python -m tests.image`, or `make image-test`.

All roles run as a cluster lets them (read-only, without capabilities, as nobody), with a real engine, and MariaDB in
MySQL's place. An order goes all its way. What is shown is printed; what is not so ends it with status 1.
"""

import asyncio
import base64
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from google.protobuf.json_format import MessageToDict
from temporalio.testing import WorkflowEnvironment

import api
from deploy.apt import ProgramUnavailable
from deploy.local import ROOT
from services.shared.settings import TEAMS
from tests.e2e.shop import OPERATOR, PRIVATE, Shop, Wish
from tests.engines import real_engine
from tests.image.base import base_name, provide_base
from tests.image.build import build, fetch_wheels
from tests.image.container import Container, must, until
from tests.image.engine import Engine, Failed, running_engine
from tests.image.roles import DATABASES, Roles
from tests.issuer import TEST_ISSUER
from tests.mariadb import running_mariadb

KEPT = ROOT / ".local" / "image"
"""What the next run need not make again: images and wheels."""
USER = 10001
GRACE_SECONDS = 45
"""As long as a cluster waits for a worker."""
_BUILDERS = ("pip", "pip3", "gcc", "cc", "g++", "make", "ld", "git", "curl", "wget")
_began = time.monotonic()


def say(what: str) -> None:
    print(f"{time.monotonic() - _began:6.1f} s  {what}", flush=True)  # noqa: T201


async def main() -> int:
    """The exit status: 1 where something is not so, or could not be looked at."""
    try:
        async with running_engine(KEPT / "images") as engine:
            release, laptop = await build_images(engine)
            await look_at_image(engine, release)
            async with running_roles(engine, release, laptop) as (roles, temporal):
                await show_shop(roles, temporal)
    except (Failed, ProgramUnavailable, pytest.fail.Exception) as error:
        print(f"image-test: {error}", file=sys.stderr)  # noqa: T201
        return 1
    say("all of it is so")
    return 0


async def build_images(engine: Engine) -> tuple[str, str]:
    say(f"the base {base_name()}: {await provide_base(engine)}")
    wheels = await fetch_wheels(KEPT)
    say("wheels are there")
    revision = await engine("git", "-C", str(ROOT), "rev-parse", "HEAD")
    began = time.monotonic()
    release = await build(engine, wheels, "release", revision)
    say(f"built release in {time.monotonic() - began:.1f} s (with what earlier builds kept)")
    laptop = await build(engine, wheels, "laptop", revision)
    say("built laptop")
    base, size = [int(await inspect(engine, name, "{{.Size}}")) for name in (base_name(), release)]
    say(f"release is {size / 1e6:.0f} MB, of which {base / 1e6:.0f} MB are this base")
    must(await inspect(engine, release, label("revision")) == revision, "the image tells its revision")
    must(await inspect(engine, release, label("version")) == api.VERSION, "the image tells its version")
    return release, laptop


async def look_at_image(engine: Engine, release: str) -> None:
    must(await inspect(engine, release, "{{.Config.User}}") == f"{USER}:{USER}", "the image's user is a number")
    must(await inspect(engine, release, "{{.Config.StopSignal}}") in ("SIGTERM", "15"), "it is stopped by SIGTERM")
    status, said = await Container.finish(engine, release, "wrker")
    must(status == 2 and "there is no role 'wrker'" in said, f"a wrong role is told: {status} {said}")
    status, said = await Container.finish(engine, release, "local-api")
    must(status == 2 and "there is no role 'local-api'" in said, f"a release has no issuer: {status} {said}")
    say("labels, user, wrong roles: as they should be")


@asynccontextmanager
async def running_roles(engine: Engine, release: str, laptop: str) -> AsyncGenerator[tuple[Roles, WorkflowEnvironment]]:
    with tempfile.TemporaryDirectory() as work:
        data_dir = Path(work, "data")
        TEST_ISSUER.keep_in(data_dir)
        for path in (data_dir, data_dir / "run", data_dir / "run" / "issuer.pem"):
            os.chown(path, USER, USER)
        os.chmod(work, 0o711)
        async with running_mariadb(Path(work, "mysql")) as mariadb, real_engine(attributes={}) as temporal:
            await mariadb.execute(*statements())
            say("MariaDB and Temporal run")
            yield (
                Roles(
                    engine,
                    release,
                    laptop,
                    temporal=temporal.client.service_client.config.target_host,
                    mysql_port=mariadb.port,
                    codec_keys=f"image:{base64.b64encode(secrets.token_bytes(32)).decode()}",
                    data_dir=data_dir,
                    suffix=str(os.getpid()),
                ),
                temporal,
            )


def statements() -> list[str]:
    text = "\n".join(line for line in DATABASES.read_text().splitlines() if not line.startswith("--"))
    return [one.strip() for one in text.split(";") if one.strip()]


async def show_shop(roles: Roles, temporal: WorkflowEnvironment) -> None:
    for status, said in [await roles.migrate(team) for team in TEAMS] + [await roles.namespace()]:
        must(status == 0, f"it succeeds: {status} {said}")
    say("migrated, as each database's owner; the namespace has its search attributes")

    await show_early_end(roles)
    running = {
        "payments": await roles.payments(),
        "local-api": await roles.local_api(),
        **{f"worker-{team}": await roles.worker(team) for team in TEAMS},
        "api": await roles.api(),
        "codec-server": await roles.codec_server(),
    }
    async with httpx2.AsyncClient(trust_env=False, timeout=15.0) as http:
        for name, container in running.items():
            await until(
                lambda name=name, container=container: is_ready(http, roles, name, container), f"{name} to be ready"
            )
    say("all roles are ready")

    async with (
        httpx2.AsyncClient(base_url=roles.url("api"), trust_env=False, timeout=15.0) as http,
        httpx2.AsyncClient(base_url=roles.url("payments"), trust_env=False, timeout=15.0) as payments,
    ):
        await show_order(Shop(0, Path(), http, payments), roles, temporal)
    for name, container in running.items():
        await show_confined(container, given=["/data"] if name == "local-api" else [])
    say("nothing can be written but in /tmp; no root, no capabilities, nothing that builds")
    await show_health(running["worker-marketing"])

    for name in ("api", "local-api", "worker-order", "worker-delivery", "worker-marketing", "codec-server", "payments"):
        began = time.monotonic()
        status = await running[name].stop(GRACE_SECONDS)
        must(status == 0, f"{name} ends gracefully, not with {status}: {await running[name].said()}")
        say(f"{name} was stopped in {time.monotonic() - began:.1f} s, exit status 0")


async def show_early_end(roles: Roles) -> None:
    early = await roles.api("early-api")
    await until(early.handles_sigterm, "the process to handle SIGTERM")
    await early.signal("TERM")
    status = await early.ended(within=10.0)
    must(status == 143, f"SIGTERM ends the first process of a container while it loads, not {status}")
    say("SIGTERM ends it while it is being loaded, too")


async def show_order(shop: Shop, roles: Roles, temporal: WorkflowEnvironment) -> None:
    async with httpx2.AsyncClient(base_url=roles.url("local-api"), trust_env=False, timeout=15.0) as issuer:
        token = (await issuer.post("/dev/tokens", json={"sub": "goodman"})).raise_for_status().json()["accessToken"]
    mine = await shop.http.get("/orders", headers={"Authorization": f"Bearer {token}"})
    must(mine.status_code == 200, "the release's API takes the laptop's tokens")
    order = await shop.place(Wish(await shop.product()))
    await shop.until(order.orderId, "DeliveryStarted")
    must(await shop.money(order.orderId) == (order.amount, 0), "it was charged once")
    must((await shop.deliver(order.orderId)).is_success, "the carrier's word is taken")
    await shop.until(order.orderId, "Delivered")
    say("an order was placed, charged, and delivered")

    history = await temporal.client.get_workflow_handle(order.orderId).fetch_history()
    sealed = history.events[0].workflow_execution_started_event_attributes.input.payloads
    must(sealed[0].metadata["encoding"] != b"json/plain", "its history is encrypted")
    asked = {"payloads": [MessageToDict(payload) for payload in sealed]}
    url = f"{roles.url('codec-server')}/decode"
    async with httpx2.AsyncClient(trust_env=False, timeout=15.0) as http:
        must((await http.post(url, json=asked)).status_code == 401, "nobody else has it decrypted")
        shown = (await http.post(url, json=asked, headers=OPERATOR)).raise_for_status().json()
    must(order.orderId.encode() in base64.b64decode(shown["payloads"][0]["data"]), "an operator has it decrypted")
    say("its history is encrypted, and decrypted for an operator")
    said = [await Container(roles.engine, f"{name}-{roles.suffix}").said() for name in ("api", "worker-order")]
    must(not [one for one in PRIVATE if one in "".join(said)], "the logs tell nobody who ordered")


async def show_confined(container: Container, *, given: list[str]) -> None:
    who = (await container.inside("id -u; id -g")).split()
    must(who == [str(USER)] * 2, f"{container.name} runs as {USER}, not as {who}")
    may = await container.inside("grep -E '^(CapEff|CapBnd|NoNewPrivs):' /proc/1/status")
    must([line.split()[1] for line in may.splitlines()] == ["0" * 16, "0" * 16, "1"], f"no capabilities: {may}")
    writable = (await container.inside("find / -xdev -writable ! -type l ! -path /tmp 2>/dev/null")).split()
    must(writable == given, f"nothing of the image can be written: {writable[:5]}")
    must(await container.inside("touch /tmp/x && echo yes") == "yes", "/tmp can be written")
    found = await container.inside(f"command -v {' '.join(_BUILDERS)}")
    must(not found, f"there is nothing that builds or fetches: {found}")


async def show_health(container: Container) -> None:
    must(await container.is_healthy(), f"{container.name} is healthy")
    await container.signal("STOP")

    async def is_unhealthy() -> bool:
        return not await container.is_healthy()

    await until(is_unhealthy, "a process that stands still to be unhealthy")
    await container.signal("CONT")
    await until(container.is_healthy, "it to be healthy again")
    say("the health check tells a process that stands still from one that goes on")


async def is_ready(http: httpx2.AsyncClient, roles: Roles, name: str, container: Container) -> bool:
    running, status, _ = await container.state()
    if not running:
        raise Failed(f"{name} has ended with {status}: {await container.said()}")
    try:
        return (await http.get(roles.ready_url(name))).status_code == 200
    except httpx2.TransportError:
        return False


async def inspect(engine: Engine, image: str, what: str) -> str:
    return await engine("podman", "image", "inspect", "--format", what, image)


def label(name: str) -> str:
    return f'{{{{index .Config.Labels "org.opencontainers.image.{name}"}}}}'


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
