"""How each fault is brought about, and how it is healed: by whoever caused it, whatever happens meanwhile."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import httpx2

from deploy.supervisor import Program
from tests.e2e.shop import process_state
from tests.faults.premises import Premises
from tests.faults.schedule import Fault, Kind
from tests.faults.wires import Action

BACK_WITHIN_SECONDS = 90.0
_POLL_SECONDS = 0.05


class NotBack(Exception):
    """What was hit did not come back by itself; the message says what."""


async def strike(premises: Premises, fault: Fault) -> str:
    """Bring a fault about and heal it; returns once it is over, with what is known of what it hit.

    Raises `NotBack` where a process that was killed is not ready again in good time.
    """
    return await _STRIKES[fault.kind](premises, fault)


async def _kill(premises: Premises, fault: Fault) -> str:
    killed = await _hit(premises, fault.target, signal.SIGKILL)
    await until_ready(premises, fault.target, after=killed)
    return f"process {killed}"


async def _suspend(premises: Premises, fault: Fault) -> str:
    suspended = await _hit(premises, fault.target, signal.SIGSTOP)
    try:
        await asyncio.sleep(fault.seconds)
        stood_still = process_state(suspended) == "T"
    finally:
        if premises.supervisor.pids[fault.target] == suspended:
            with suppress(ProcessLookupError):
                premises.signal(fault.target, signal.SIGCONT)
    return f"process {suspended}" if stood_still else f"process {suspended}, which did not stand still"


async def _hit(premises: Premises, process: str, number: signal.Signals) -> int:
    """Send a signal, and where the process has just ended by itself, to the next one; says to which pid."""
    while True:
        try:
            return premises.signal(process, number)
        except ProcessLookupError:
            await asyncio.sleep(_POLL_SECONDS)


async def _silence(premises: Premises, fault: Fault) -> str:
    return f"{await _disturb(premises, fault, 'silence')} connections or messages"


async def _reset(premises: Premises, fault: Fault) -> str:
    return f"{await _disturb(premises, fault, 'reset')} connections"


async def _lose_replies(premises: Premises, fault: Fault) -> str:
    return f"{await _disturb(premises, fault, 'lose_replies')} replies"


async def _disturb(premises: Premises, fault: Fault, action: Action) -> int:
    """Disturb a wire as long as the fault lasts, and heal it; says how much was struck."""
    wires = premises.wires
    before = await wires.tell(fault.target, "heal")
    try:
        await wires.tell(fault.target, action)
        await asyncio.sleep(fault.seconds)
    finally:
        after = await wires.tell(fault.target, "heal")
    return after - before


async def _fill_disk(premises: Premises, fault: Fault) -> str:
    assert premises.disk is not None
    try:
        taken = premises.disk.fill()
        await asyncio.sleep(fault.seconds)
    finally:
        premises.disk.free()
    return f"{taken >> 20} MiB taken"


_STRIKES: Mapping[Kind, Callable[[Premises, Fault], Awaitable[str]]] = {
    Kind.KILLED: _kill,
    Kind.SUSPENDED: _suspend,
    Kind.SILENT: _silence,
    Kind.RESET: _reset,
    Kind.REPLY_LOST: _lose_replies,
    Kind.DISK_FULL: _fill_disk,
}


async def until_ready(premises: Premises, process: str, *, after: int = 0) -> None:
    """Wait until a process is ready, and another one than `after`. Raises `NotBack`."""
    program = premises.programs[process]
    try:
        async with asyncio.timeout(BACK_WITHIN_SECONDS), httpx2.AsyncClient(trust_env=False, timeout=2.0) as http:
            # Another process, which tells nobody: there is no event to wait for.
            while premises.supervisor.pids[process] == after or not await _is_ready(http, program):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise NotBack(f"{process} was not ready again within {BACK_WITHIN_SECONDS:g} s") from None


async def _is_ready(http: httpx2.AsyncClient, program: Program) -> bool:
    if program.answers is not None:
        return await program.answers()
    with suppress(httpx2.HTTPError):
        return (await http.get(program.ready_url)).status_code == 200
    return False
