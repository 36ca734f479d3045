"""A crowd of customers, each asking again as soon as they are answered: `python -m tests.bench.load URL`.

A process of its own, so that its work is neither the server's nor the measurement's. `crowd` runs it from elsewhere.
"""

import argparse
import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from os import environ

import aiohttp
from pydantic import TypeAdapter

from deploy.issuer import Issuer
from deploy.local import ROOT
from deploy.stack import StackSettings
from deploy.supervisor import Program, Supervisor
from tests.bench.rounds import Cpu, Round, percentile
from tests.bench.stage import PRODUCT_ID

Answers = dict[int, list[float]]
"""How many milliseconds each answer took, by its status."""

_MARK = "mark"
_ANSWERS = TypeAdapter(Answers)
_WARM_UP_SECONDS = 1.0
WHO = "bench"
"""Whose the orders are that are not a crowd's."""
ORDER = json.dumps(
    {
        "productId": PRODUCT_ID,
        "qty": 1,
        "username": "굿맨",
        "address": "서울",
        "phoneNo": "010-1234-5678",
        "paymentMethod": "pm_card_visa",
    }
).encode()


@dataclass(frozen=True)
class Served(Round):
    """How a crowd was served. `took` is what the answers took that were hoped for."""

    answers: Answers

    def within(self, status: int, share: float) -> float:
        """The milliseconds within which this share of the answers with a status came."""
        return percentile(self.answers.get(status, []), share)


async def crowd(
    cpu: Cpu, url: str, hoped_for: int, *, customers: int, seconds: float, read: Sequence[str] = ()
) -> Served:
    """Let so many customers order for so long, or read these orders, and learn how they were answered."""
    said: list[str] = []
    marks: list[tuple[float, dict[str, float]]] = []

    def listen(_: str, line: str) -> None:
        if line.startswith(_MARK):  # they begin, warmed up, or they end
            marks.append((time.monotonic(), {**cpu(), "customers": float(line.removeprefix(_MARK))}))
        else:
            said.append(line)

    asked = (url, "--customers", str(customers), "--seconds", str(seconds), "--read", ",".join(read))
    program = Program(
        name="load", command=[sys.executable, "-m", __name__, *asked], environment=environ, directory=ROOT
    )
    supervisor = Supervisor(listen)
    try:
        await supervisor.finish(program)
    finally:
        await supervisor.stop(asyncio.Event())
    answers = merged([_ANSWERS.validate_json(line) for line in said])
    (began, before), (ended, after) = marks
    return Served(
        count=sum(map(len, answers.values())),
        seconds=ended - began,
        cpu={name: after[name] - before[name] for name in after},
        took=answers.get(hoped_for, []),
        answers=answers,
    )


def merged(answers: Sequence[Answers]) -> Answers:
    """What several were answered, as if they were one."""
    together: Answers = {}
    for some in answers:
        for status, took in some.items():
            together.setdefault(status, []).extend(took)
    return together


def main() -> None:
    """Ask for a while, then print a line of JSON for each customer."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__)
    parser.add_argument("url", help="what to post orders to")
    parser.add_argument("--customers", type=int, default=32, help="at once (32)")
    parser.add_argument("--seconds", type=float, default=5, help="for how long (5)")
    parser.add_argument("--read", default="", help="read these orders instead, separated by commas")
    asked = parser.parse_args()
    read = [one for one in asked.read.split(",") if one]
    for answers in asyncio.run(_ask(asked.url, asked.customers, asked.seconds, read)):
        print(_ANSWERS.dump_json(answers).decode())


async def _ask(url: str, customers: int, seconds: float, read: Sequence[str]) -> Sequence[Answers]:
    issuer = Issuer.of(StackSettings().data_dir)
    # No more connections than customers, kept alive: each has one.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=customers)) as http:
        asking = [_reader(http, url, issuer, read) if read else _buyer(http, url, issuer) for _ in range(customers)]

        async def for_(seconds: float) -> Sequence[Answers]:
            until = time.perf_counter() + seconds
            return await asyncio.gather(*(_ask_until(until, ask) for ask in asking))

        await for_(_WARM_UP_SECONDS)
        _mark()
        answers = await for_(seconds)
        _mark()
        return answers


Ask = Callable[[], Awaitable[int]]
"""Asks once, and says with which status it was answered."""


def _buyer(http: aiohttp.ClientSession, url: str, issuer: Issuer) -> Ask:
    name, numbers = uuid.uuid4().hex, count()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {issuer.token(name)}"}

    async def ask() -> int:
        own = {**headers, "Idempotency-Key": f"{name}-{next(numbers)}"}
        async with http.post(url, data=ORDER, headers=own) as answer:
            await answer.read()
            return answer.status

    return ask


def _reader(http: aiohttp.ClientSession, url: str, issuer: Issuer, orders: Sequence[str]) -> Ask:
    headers, order = {"Authorization": f"Bearer {issuer.token(WHO)}"}, cycle(orders)

    async def ask() -> int:
        async with http.get(f"{url}/{next(order)}", headers=headers) as answer:
            await answer.read()
            return answer.status

    return ask


async def _ask_until(until: float, ask: Ask) -> Answers:
    answers = Answers()
    while (began := time.perf_counter()) < until:
        status = await ask()
        answers.setdefault(status, []).append(round(1000 * (time.perf_counter() - began), 2))
    return answers


def _mark() -> None:
    print(_MARK, time.process_time(), flush=True)


if __name__ == "__main__":
    main()
