"""A crowd of customers, each ordering again as soon as they are answered: `python -m tests.bench.load URL`.

A process of its own, so that its work is neither the server's nor the measurement's. `crowd` runs it from elsewhere.
"""

import argparse
import asyncio
import json
import math
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from itertools import count
from os import environ

import aiohttp
from pydantic import TypeAdapter

from deploy.issuer import Issuer
from deploy.local import ROOT
from deploy.stack import StackSettings
from deploy.supervisor import Program, Supervisor
from tests.bench.stage import PRODUCT_ID

Answers = dict[int, list[float]]
"""How many milliseconds each answer took, by its status."""

_MARK = "mark"
_ANSWERS = TypeAdapter(Answers)
_WARM_UP_SECONDS = 1.0
_ORDER = json.dumps(
    {
        "productId": PRODUCT_ID,
        "qty": 1,
        "username": "굿맨",
        "address": "서울",
        "phoneNo": "010-1234-5678",
        "paymentMethod": "pm_card_visa",
    }
).encode()


async def crowd(url: str, *, customers: int, seconds: float, mark: Callable[[float], None]) -> Answers:
    """Let so many customers order for so long, and learn how they were answered.

    `mark` is called when they begin, warmed up, and when they end, with the CPU seconds that they have used themselves.
    """
    said: list[str] = []

    def listen(_: str, line: str) -> None:
        if line.startswith(_MARK):
            mark(float(line.removeprefix(_MARK)))
        else:
            said.append(line)

    asked = (url, "--customers", str(customers), "--seconds", str(seconds))
    program = Program(
        name="load", command=[sys.executable, "-m", __name__, *asked], environment=environ, directory=ROOT
    )
    supervisor = Supervisor(listen)
    try:
        await supervisor.finish(program)
    finally:
        await supervisor.stop(asyncio.Event())
    return merged([_ANSWERS.validate_json(line) for line in said])


def merged(answers: Sequence[Answers]) -> Answers:
    """What several were answered, as if they were one."""
    together: Answers = {}
    for some in answers:
        for status, took in some.items():
            together.setdefault(status, []).extend(took)
    return together


def percentile(took: Sequence[float], share: float) -> float:
    """What this share of them (0 to 1) took at most; not a number if there are none."""
    return sorted(took)[max(0, math.ceil(share * len(took)) - 1)] if took else math.nan


def main() -> None:
    """Order for a while, then print a line of JSON for each customer."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__)
    parser.add_argument("url", help="what to post orders to")
    parser.add_argument("--customers", type=int, default=32, help="at once (32)")
    parser.add_argument("--seconds", type=float, default=5, help="for how long (5)")
    asked = parser.parse_args()
    for answers in asyncio.run(_order(asked.url, asked.customers, asked.seconds)):
        print(_ANSWERS.dump_json(answers).decode())


async def _order(url: str, customers: int, seconds: float) -> Sequence[Answers]:
    issuer = Issuer.of(StackSettings().data_dir)
    # No more connections than customers, kept alive: each has one.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=customers)) as http:

        async def for_(seconds: float) -> Sequence[Answers]:
            until = time.perf_counter() + seconds
            return await asyncio.gather(*(_order_until(until, http, url, issuer) for _ in range(customers)))

        await for_(_WARM_UP_SECONDS)
        _mark()
        answers = await for_(seconds)
        _mark()
        return answers


async def _order_until(until: float, http: aiohttp.ClientSession, url: str, issuer: Issuer) -> Answers:
    name, answers = uuid.uuid4().hex, Answers()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {issuer.token(name)}"}
    for number in count():
        if (began := time.perf_counter()) > until:
            break
        async with http.post(url, data=_ORDER, headers={**headers, "Idempotency-Key": f"{name}-{number}"}) as answer:
            await answer.read()
        answers.setdefault(answer.status, []).append(round(1000 * (time.perf_counter() - began), 2))
    return answers


def _mark() -> None:
    print(_MARK, time.process_time(), flush=True)


if __name__ == "__main__":
    main()
