"""Customers who order at a steady rate, whatever becomes of those before them; what they are told is kept outside the
shop. Who gets no answer, or a wrong one, asks again with the same key, as a careful client does.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import httpx2

from tests.audit.acknowledgements import Acknowledgements
from tests.bench.stage import PRODUCT_ID
from tests.e2e.shop import Wish

_SLOW_EVERY = 5
"""So many pay in a way that takes 2 s, and wait for it: something is always under way when a process is to end."""
_SLOW = {"Prefer": "wait=2"}
_PAUSE_SECONDS = 0.2
_PATIENCE_SECONDS = 60.0
_CUSTOMERS = 20


@dataclass(frozen=True, kw_only=True)
class Request:
    """One `POST /orders`."""

    at: float
    """When it was sent, on the event loop's clock."""
    seconds: float
    failure: str
    """What was wrong with the answer; empty where it was what it should be."""
    waits: bool
    """Whether it was to be answered only once the payment is known."""


@dataclass
class Customers:
    """All of them, and what became of their requests."""

    http: httpx2.AsyncClient
    log: Acknowledgements
    requests: list[Request] = field(default_factory=list[Request])
    orders: dict[str, str] = field(default_factory=dict[str, str])
    """The order of each key that was answered."""
    unanswered: set[str] = field(default_factory=set[str])
    """The keys of those who asked until their patience was over."""
    surprises: list[str] = field(default_factory=list[str])

    async def order(self, rate: float, enough: asyncio.Event) -> None:
        """So many orders a second until it is enough; returns when all are answered."""
        clock = asyncio.get_running_loop().time
        began = clock()
        async with asyncio.TaskGroup() as group:
            for number in count():
                await asyncio.sleep(began + number / rate - clock())
                if enough.is_set():
                    return
                group.create_task(self._order_one(number))

    async def _order_one(self, number: int) -> None:
        slow = number % _SLOW_EVERY == 0
        pay = "pm_sim_slow" if slow else "pm_card_visa"
        wish = Wish(PRODUCT_ID, user=f"customer-{number % _CUSTOMERS}", pay=pay, key=f"rollout-{number}")
        prefer = _SLOW if slow else {}
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not await self._ask(wish, prefer):  # noqa: ASYNC110  (whoever could say when is away)
                    await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError:
            self.unanswered.add(wish.key)

    async def _ask(self, wish: Wish, prefer: Mapping[str, str]) -> bool:
        """Ask once; whether that was answered as it should be."""
        clock = asyncio.get_running_loop().time
        at = clock()
        answer, failure = None, ""
        try:
            answer = await self.http.post("/orders", json=wish.body, headers={**wish.headers, **prefer})
        except httpx2.TransportError as error:
            failure = f"{type(error).__name__}: {error}"
        else:
            if answer.status_code not in (201, 202):
                failure = f"{answer.status_code} {answer.text[:200]}"
        self.requests.append(Request(at=at, seconds=clock() - at, failure=failure, waits=bool(prefer)))
        if answer is None or failure:
            return False
        self._note(wish, answer)
        return True

    def _note(self, wish: Wish, answer: httpx2.Response) -> None:
        order = answer.json()
        self.log.accepted(
            order["orderId"],
            user=wish.user,
            product_id=wish.product_id,
            qty=wish.qty,
            amount=order["amount"],
            key=wish.key,
            status=answer.status_code,
            replayed=answer.headers.get("Idempotent-Replayed") == "true",
        )
        if answer.status_code == 201:
            self.log.paid(order["orderId"])
        self.orders[wish.key] = order["orderId"]

    @property
    def failures(self) -> Sequence[Request]:
        """The requests that were not answered as they should be."""
        return [request for request in self.requests if request.failure]
