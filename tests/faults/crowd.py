"""Customers, operators and the carrier: they do what their errands say and note what they are told.

Who gets no answer, or is told to come back, asks the same again: nothing that is asked here does harm when repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpx2

from tests.audit.acknowledgements import Acknowledgements
from tests.e2e.shop import CARRIER, FINAL, OPERATOR, Wish
from tests.faults.mix import Errand, Goods
from tests.faults.tally import Tally
from tests.issuer import bearer

PATIENCE_SECONDS = 120.0
"""For one answer."""
_PAUSE_SECONDS = 0.3
_LONGEST_PAUSE = 1.0
_POLL_SECONDS = 1.0
_CARRIER_SECONDS = 60.0
"""So long the carrier waits for one order."""
Ask = Callable[[], Awaitable[httpx2.Response]]


class NotAnswered(Exception):
    """Somebody asked again and again, in vain."""


class Crowd:
    """All of them. Refusals and surprises are noted in the tally, promises in the log as well."""

    def __init__(self, http: httpx2.AsyncClient, log: Acknowledgements, tally: Tally) -> None:
        self._http = http
        self._log = log
        self._tally = tally
        self._prices: dict[str, int] = {}

    async def lay_in(self, goods: Iterable[Goods]) -> None:
        """Put the goods into the catalogue and the warehouse."""
        for one in goods:
            self._prices[one.product_id] = one.price
            product = {"productName": one.product_id, "productPrice": one.price}
            movement = {"qty": one.on_hand, "reason": "opening"}
            for answer in (
                await self._http.put(f"/products/{one.product_id}", json=product, headers=OPERATOR),
                await self._http.post(f"/stocks/{one.product_id}/movements", json=movement, headers=OPERATOR),
            ):
                answer.raise_for_status()

    async def run(self, errands: Iterable[Errand]) -> None:
        """Run all errands, each in its time."""
        async with asyncio.TaskGroup() as group:
            for errand in errands:
                group.create_task(self._run(errand))

    async def settle(self, order_id: str, undo: str) -> None:
        """Decide, as an operator, that an undo that is stuck is not to be done."""
        body = {"step": undo, "action": "skip", "reason": "The bank returns it by hand."}
        answer = await self._http.post(f"/orders/{order_id}/settlements", json=body, headers=OPERATOR)
        if answer.status_code == 202:
            self._tally.settled_by_hand += 1

    async def _run(self, errand: Errand) -> None:
        try:
            await asyncio.sleep(errand.at - self._tally.now)
            answers = await asyncio.gather(*(self._order(errand) for _ in range(errand.copies)))
            [order_id, *others] = {answer for answer in answers if answer} or {""}
            if others:
                self._surprise(f"{errand.wish.key} brought several orders: {order_id} {' '.join(others)}")
            if order_id:
                await asyncio.gather(
                    self._follow(errand, order_id),
                    self._cancel(errand, order_id),
                    self._order_again(errand, order_id),
                )
        except NotAnswered as error:
            self._surprise(f"nobody answered {error}")

    async def _order(self, errand: Errand) -> str | None:
        """The order's id; nothing when it is refused."""
        wish = errand.wish
        prefer = {"Prefer": f"wait={errand.wait}"} if errand.wait else {}
        headers = wish.headers | prefer
        answer = await self._answer(lambda: self._http.post("/orders", json=wish.body, headers=headers), wish.key)
        if answer.status_code == 409 and _code(answer) == "out-of-stock":
            return None
        if answer.status_code not in (201, 202, 402):
            return self._unexpected(answer, f"ordering {wish.key}")
        order_id = answer.headers["Location"].removeprefix("/orders/")
        replayed = answer.headers.get("Idempotent-Replayed") == "true"
        self._log.accepted(
            order_id,
            user=wish.user,
            product_id=wish.product_id,
            qty=wish.qty,
            amount=wish.qty * self._prices[wish.product_id],
            key=wish.key,
            status=answer.status_code,
            replayed=replayed,
        )
        self._tally.replayed += replayed
        self._tally.accept(order_id, wish.pay)
        if answer.status_code == 201:
            self._log.paid(order_id)
        if answer.status_code == 402:
            self._log.declined(order_id)
            self._tally.declined += 1
        return order_id

    async def _order_again(self, errand: Errand, order_id: str) -> None:
        if errand.again_after is not None:
            await asyncio.sleep(errand.again_after)
            again = await self._order(errand)
            if again != order_id:
                self._surprise(f"{errand.wish.key} was {order_id} and is {again or 'refused'}")

    async def _follow(self, errand: Errand, order_id: str) -> None:
        """Look at the order: one after the other, so that it must never be seen to go back."""
        before = 0.0
        for after in errand.looks:
            await asyncio.sleep(after - before)
            before = after
            await self._look(errand.wish, order_id)
        deadline = self._tally.now + _CARRIER_SECONDS
        while errand.delivers and self._tally.now < deadline:  # what never gets there is told of in the end
            status = await self._look(errand.wish, order_id)
            if status == "DeliveryStarted":
                await self._deliver(order_id)
            if status in ("DeliveryStarted", "OrderCanceling", *FINAL):
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _look(self, wish: Wish, order_id: str) -> str | None:
        answer = await self._answer(
            lambda: self._http.get(f"/orders/{order_id}", headers=bearer(wish.user)), f"a look at {order_id}"
        )
        if answer.status_code != 200:
            return self._unexpected(answer, f"a look at {order_id}")
        order: dict[str, Any] = answer.json()
        self._log.shown(order_id, order["version"], order["orderStatus"])
        self._tally.looks += 1
        return order["orderStatus"]

    async def _deliver(self, order_id: str) -> None:
        answer = await self._answer(
            lambda: self._http.post(f"/deliveries/{order_id}/events", json={"event": "Delivered"}, headers=CARRIER),
            f"the delivery of {order_id}",
        )
        if answer.status_code == 202:
            self._log.delivered(order_id)
            self._tally.delivered.add(order_id)
        elif _code(answer) != "not-deliverable":  # somebody cancelled it meanwhile
            self._unexpected(answer, f"delivering {order_id}")

    async def _cancel(self, errand: Errand, order_id: str) -> None:
        if errand.cancel_after is None:
            return
        await asyncio.sleep(errand.cancel_after)
        who = OPERATOR if errand.canceler == "operator" else bearer(errand.wish.user)
        answer = await self._answer(
            lambda: self._http.post(f"/orders/{order_id}/cancel", headers=who), f"the cancelling of {order_id}"
        )
        if answer.status_code == 202:
            self._log.cancel(order_id)
            self._tally.canceled.add(order_id)
        elif _code(answer) != "too-late-to-cancel":
            self._unexpected(answer, f"cancelling {order_id}")

    async def _answer(self, ask: Ask, what: str) -> httpx2.Response:
        """What is answered in the end. Raises `NotAnswered`."""
        deadline = self._tally.now + PATIENCE_SECONDS
        while self._tally.now < deadline:
            pause = _PAUSE_SECONDS
            try:
                answer = await ask()
            except httpx2.TransportError:
                self._tally.unanswered += 1
            else:
                if answer.status_code >= 400 and answer.status_code != 402:
                    self._tally.refused[_code(answer)] += 1
                if answer.status_code not in (408, 503):
                    return answer
                # 408: an API that stood still had no time for what was sent meanwhile; it is to be sent again.
                pause = min(float(answer.headers.get("Retry-After", pause)), _LONGEST_PAUSE)
            await asyncio.sleep(pause)
        raise NotAnswered(what)

    def _unexpected(self, answer: httpx2.Response, what: str) -> None:
        self._surprise(f"{what} was answered {answer.status_code} {answer.text}")

    def _surprise(self, what: str) -> None:
        self._tally.surprises.append(what)


def _code(answer: httpx2.Response) -> str:
    return answer.json().get("code", "") if answer.status_code >= 400 else ""
