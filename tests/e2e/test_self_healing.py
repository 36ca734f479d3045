"""A process that hangs while it lives: its probes find it out, it is started again, and its orders go on, once each."""

import asyncio
import re
import signal
from pathlib import Path

import httpx2
import pytest

from deploy.probes import LIVENESS, STARTUP
from deploy.stack import Stack
from tests.e2e.conftest import ROOM
from tests.e2e.shop import Shop, Wish, eventually, open_shop, process_state
from tests.e2e.test_kills import assert_gone_through_once

BLOCKABLE = """
import os, signal, time

def block(*_):
    os.write(1, b"blocked %d\\n" % os.getpid())
    time.sleep(3600)

signal.signal(signal.SIGUSR1, block)
"""
"""Python imports it as it starts, where it finds it. Handlers of signals run in the main thread, as event loops do."""
BLOCKED, STOPPED = ("worker-order", "api"), "worker-delivery"


async def test_processes_that_hang_are_restarted_within_their_budget_and_their_orders_go_on(tmp_path: Path) -> None:
    hook = tmp_path / "hook" / "sitecustomize.py"
    hook.parent.mkdir()
    hook.write_text(BLOCKABLE)
    async with open_shop(tmp_path / "shop", ROOM | {"PYTHONPATH": str(hook.parent)}) as shop:
        product = await shop.product(on_hand=10)
        before = Stack.read(shop.data_dir)
        shop.signal(STOPPED, signal.SIGSTOP)
        delivered_late = await shop.place(Wish(product, 1, "patient"))
        await shop.until(delivered_late.orderId, "CouponIssued")
        paid_late = await shop.place(Wish(product, 2, "patient", pay="pm_sim_slow"))
        await asyncio.gather(*(block(shop, process) for process in BLOCKED))

        assert process_state(before.processes[STOPPED]) == "T"
        await asyncio.gather(*(assert_silent(before, process) for process in (*BLOCKED, STOPPED)))
        await asyncio.gather(*(shop.replaced(process, before.processes[process]) for process in (*BLOCKED, STOPPED)))

        ordered_after = await shop.place(Wish(product, 3, "patient"))
        orders = (delivered_late, paid_late, ordered_after)
        await asyncio.gather(*(assert_gone_through_once(shop, order) for order in orders))
        assert {order.orderId for order in await shop.orders_of("patient")} == {order.orderId for order in orders}
        assert await shop.stock(product) == 10 - (1 + 2 + 3)
        told, after = shop.log, Stack.read(shop.data_dir)

    for process in (*BLOCKED, STOPPED):
        assert_restarted_once_within_its_budget(told, process)
    others = before.processes.keys() - {*BLOCKED, STOPPED}
    assert {name: after.processes[name] for name in others} == {name: before.processes[name] for name in others}


async def block(shop: Shop, process: str) -> None:
    """Have a process' event loop stand still for good while the process lives; returns once it does: it sleeps."""
    pid = shop.pid(process)
    shop.signal(process, signal.SIGUSR1)

    async def is_blocked() -> bool:
        return f"blocked {pid}\n" in shop.log and process_state(pid) == "S"

    await eventually(is_blocked, f"{process} to be blocked")


async def assert_silent(stack: Stack, process: str) -> None:
    """It does not answer whether it lives: not "no", but nothing."""
    url = stack.urls.metrics[process].removesuffix("/metrics") + STARTUP.path
    async with httpx2.AsyncClient(trust_env=False, timeout=STARTUP.timeout_seconds) as http:
        with pytest.raises(httpx2.ReadTimeout):
            await http.get(url)


def assert_restarted_once_within_its_budget(log: str, process: str) -> None:
    """The budget is counted in looks at its file, each of which comes a period after the one before, or later."""
    lines = [line for line in log.splitlines() if re.search(rf"\b{process} (has|ended)", line)]
    assert len(lines) == 2, lines
    lost = re.search(r"has not shown life for [\d.]+ s \((\d+) probes\) and is restarted$", lines[0])
    assert lost is not None, lines[0]
    assert LIVENESS.failure_threshold <= int(lost[1]) < LIVENESS.budget_seconds / LIVENESS.period_seconds
    # Neither was in a state to end when it was told to.
    assert "ended (exit code -9, SIGKILL); it is started again in 0.25 s" in lines[1]
