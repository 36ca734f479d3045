"""An order's timeline as server-sent events: complete, in sequence, and cheap, however many follow one."""

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Generator, Sequence
from dataclasses import replace

import httpx2
import pytest
import structlog
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.pool import QueuePool
from starlette.types import ASGIApp, Message, Scope

import api
from services.gateway import stream
from services.gateway.caller import Caller, Role
from services.order.book import OrderBook, Progress
from services.order.statuses import EventType
from services.order.tables import OrderEvent
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from tests.api.world import CANCELED, CANCELING, DECLINED, DELIVERED, MINJI, OPERATOR, ORDER, PLACED, Shop
from tests.issuer import bearer

EVENT_STREAM = {"Accept": "text/event-stream"}
STILL_HERE = ": still here\n\n"
FOREVER = Caller("minji", Role.CUSTOMER, math.inf)
Seen = tuple[int, str]


class Following:
    """Somebody who reads a stream, at their own pace."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.reads = asyncio.Event()
        self.reads.set()
        self.held_up = asyncio.Event()
        self._parts = asyncio.Queue[str]()
        self._left = asyncio.Event()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        if not self.reads.is_set():
            self.held_up.set()
            await self.reads.wait()
        self._parts.put_nowait(message["body"].decode())

    async def receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def part(self) -> str:
        """What is sent next; nothing where that is the end."""
        async with asyncio.timeout(30):
            return await self._parts.get()

    async def event(self) -> Seen:
        """The next event's version and type."""
        return _seen(await self.part())

    async def rest(self) -> list[Seen]:
        """The events until the stream ends."""
        found: list[Seen] = []
        while part := await self.part():
            found.append(_seen(part))
        return found

    def leave(self) -> None:
        self._left.set()


def _seen(part: str) -> Seen:
    id, type, data, *end = part.split("\n")
    told = json.loads(data.removeprefix("data: "))
    assert (id, type, end) == (f"id: {told['version']}", f"event: {told['type']}", ["", ""])
    return told["version"], told["type"]


def as_sent(order_id: str, headers: dict[str, str]) -> Scope:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": "GET", "path": f"/orders/{order_id}/events", "query_string": b"", "headers": raw}


@contextlib.asynccontextmanager
async def following(
    app: ASGIApp, order_id: str, who: dict[str, str] = MINJI, *, last: str = ""
) -> AsyncGenerator[Following]:
    """A reader of an order's timeline who has come, and who is gone after the block."""
    reader = Following()

    async def answer() -> None:
        await app(as_sent(order_id, {**EVENT_STREAM, **who, "Last-Event-ID": last}), reader.receive, reader.send)

    answering = asyncio.create_task(answer())
    try:
        assert await reader.part() == "retry: 2000\n\n"
        yield reader
    finally:
        reader.leave()
        await answering


class Rounds(OrderBook):
    """An order book behind an app of its own. All who follow are looked for when a test says so."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(shop.parts.order_database)
        self.app: FastAPI = api.create_app(replace(shop.parts, book=self))
        self.error: Exception | None = None
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.begun = 0
        self._begins, self._may_begin, self._over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def next(self) -> None:
        """Let a round happen, up to the beginning of the one after it."""
        await self.last()
        async with asyncio.timeout(30):
            await self._begins.wait()

    async def last(self) -> None:
        """Let a round happen after which there may be nobody left to begin another for."""
        async with asyncio.timeout(30):
            await self._begins.wait()
            self._begins.clear()
            self._over.clear()
            self._may_begin.set()
            await self._over.wait()

    async def progress(self, order_ids: Collection[str]) -> Sequence[Progress]:
        self.begun += 1
        self._begins.set()
        await self._may_begin.wait()
        self._may_begin.clear()
        try:
            if self.error is not None:
                raise self.error
            return await super().progress(order_ids)
        finally:
            self._over.set()

    async def timelines(self, order_ids: Collection[str], *, after: int = 0) -> Sequence[OrderEvent]:
        """Lets something happen between the query and what its outcome is used for."""
        found = await super().timelines(order_ids, after=after)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return found


@pytest.fixture
async def rounds(shop: Shop) -> AsyncIterator[Rounds]:
    book = Rounds(shop)
    async with book.app.router.lifespan_context(book.app):
        yield book


@contextlib.contextmanager
def queries(database: Database) -> Generator[list[str]]:
    """The SELECTs that the database is sent."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            sent.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def all_others() -> None:
    """Let everybody else do what they can do now."""
    for _ in range(20):
        await asyncio.sleep(0)


# What is sent


async def test_a_timeline_is_sent_as_it_grows_until_the_order_is_at_its_end(shop: Shop) -> None:
    order_id = await shop.ordered()
    async with following(shop.app, order_id) as reader:
        assert reader.status == 200
        assert reader.headers["content-type"].startswith("text/event-stream")
        assert (reader.headers["cache-control"], reader.headers["x-accel-buffering"]) == ("no-store", "no")
        assert await reader.event() == (1, "OrderReceived")
        await shop.record(order_id, PLACED, EventType.ORDER_PLACED)
        assert await reader.event() == (2, "OrderPlaced")
        await shop.record(order_id, DELIVERED, EventType.DELIVERY_STARTED, EventType.DELIVERED)
        assert await reader.rest() == [(3, "DeliveryStarted"), (4, "Delivered")]


async def test_a_silent_stream_gives_signs_of_life(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.01)
    order_id = await shop.ordered()
    async with following(shop.app, order_id) as reader:
        assert await reader.event() == (1, "OrderReceived")
        assert [await reader.part() for _ in range(2)] == [STILL_HERE, STILL_HERE]


# Coming back


@pytest.mark.parametrize(("last", "first"), [("1", 2), ("0", 1), ("-1", 1), ("x", 1), ("4", 1), ("9" * 30, 1), ("", 1)])
async def test_a_stream_is_resumed_after_the_last_event_seen(shop: Shop, last: str, first: int) -> None:
    order_id = await shop.ordered()
    await shop.record(order_id, CANCELED, EventType.ORDER_CANCELING, EventType.ORDER_CANCELED)
    async with following(shop.app, order_id, last=last) as reader:
        seen = await reader.rest()
    assert seen == [(1, "OrderReceived"), (2, "OrderCanceling"), (3, "OrderCanceled")][first - 1 :]


async def test_a_reader_that_has_seen_the_end_need_not_come_back(shop: Shop) -> None:
    order_id = await shop.ordered()
    await shop.record(order_id, DECLINED, EventType.PAYMENT_DECLINED)
    headers = {**MINJI, **EVENT_STREAM, "Last-Event-ID": "2"}
    answer = await shop.client.get(f"/orders/{order_id}/events", headers=headers)
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (204, b"", "no-store")


async def test_readers_of_one_order_share_a_look_and_get_what_each_lacks(shop: Shop, rounds: Rounds) -> None:
    order_id = await shop.ordered()
    await shop.record(order_id, PLACED, EventType.ORDER_PLACED)
    async with following(rounds.app, order_id) as new, following(rounds.app, order_id, last="2") as back:
        assert [await new.event(), await new.event()] == [(1, "OrderReceived"), (2, "OrderPlaced")]
        await shop.record(order_id, DELIVERED, EventType.DELIVERED)
        with queries(shop.parts.order_database) as sent:
            await rounds.last()
            assert [await new.rest(), await back.rest()] == [[(3, "Delivered")]] * 2
        assert len(sent) == 2


async def test_nothing_is_missed_between_the_first_look_and_the_first_round(shop: Shop, rounds: Rounds) -> None:
    order_id = await shop.ordered()

    async def happens() -> None:
        await shop.record(order_id, PLACED, EventType.ORDER_PLACED)

    rounds.meanwhile = happens
    async with following(rounds.app, order_id) as reader:
        await rounds.next()
        assert [await reader.event(), await reader.event()] == [(1, "OrderReceived"), (2, "OrderPlaced")]


async def test_what_ends_an_order_before_the_first_round_ends_the_stream(shop: Shop, rounds: Rounds) -> None:
    order_id = await shop.ordered()
    reading = await rounds.get(order_id)
    await shop.record(order_id, DECLINED, EventType.PAYMENT_DECLINED)
    answer = await rounds.app.state.timelines.answer(reading, "", FOREVER)
    async with following(answer, order_id) as reader:
        assert [await reader.event(), await reader.event()] == [(1, "OrderReceived"), (2, "PaymentDeclined")]
        await rounds.last()
        assert await reader.rest() == []


async def test_who_comes_during_a_round_misses_nothing(shop: Shop, rounds: Rounds) -> None:
    """What that round fetches begins after what the others have seen already."""
    order_id = await shop.ordered()
    answer = await rounds.app.state.timelines.answer(await rounds.get(order_id), "", FOREVER)
    await shop.record(order_id, PLACED, EventType.ORDER_PLACED)
    async with following(rounds.app, order_id, last="2") as other, contextlib.AsyncExitStack() as stack:
        come = list[Following]()

        async def comes() -> None:
            come.append(await stack.enter_async_context(following(answer, order_id)))

        await shop.record(order_id, CANCELING, EventType.ORDER_CANCELING)
        rounds.meanwhile = comes
        await rounds.next()
        assert await other.event() == (3, "OrderCanceling")
        await shop.record(order_id, CANCELED, EventType.ORDER_CANCELED)
        await rounds.last()
        assert [version for version, _ in await come[0].rest()] == [1, 2, 3, 4]
        assert [version for version, _ in await other.rest()] == [4]


# What it costs


async def test_two_hundred_who_wait_cost_one_query_a_round_and_hold_no_connection(shop: Shop, rounds: Rounds) -> None:
    pool = shop.parts.order_database.engine.pool
    assert isinstance(pool, QueuePool)
    order_ids = [await shop.ordered() for _ in range(20)]
    readings = [await rounds.get(order_id) for order_id in order_ids for _ in range(10)]
    async with contextlib.AsyncExitStack() as stack:
        readers: list[Following] = []
        for reading in readings:
            answer = await rounds.app.state.timelines.answer(reading, "1", FOREVER)
            readers.append(await stack.enter_async_context(following(answer, reading.view.order_id)))
        await rounds.next()  # which had begun before most of them came
        with queries(shop.parts.order_database) as sent:
            for _ in range(5):
                assert pool.checkedout() == 0
                await rounds.next()
            assert len(sent) == 5
            await shop.record(order_ids[0], PLACED, EventType.ORDER_PLACED)
            sent.clear()
            await rounds.next()
            assert [await reader.event() for reader in readers[:10]] == [(2, "OrderPlaced")] * 10
            assert len(sent) == 2
            await rounds.next()
            assert len(sent) == 3


async def test_nobody_is_looked_for_once_the_last_reader_is_gone(shop: Shop, rounds: Rounds) -> None:
    order_id = await shop.ordered()
    await all_others()
    assert rounds.begun == 0
    for visit in (1, 2):
        async with following(rounds.app, order_id), following(rounds.app, order_id) as other:
            other.leave()
            await all_others()
            await rounds.next()
        await rounds.last()
        await all_others()
        assert rounds.begun == 2 * visit


async def test_a_finished_timeline_is_looked_at_once(shop: Shop, rounds: Rounds) -> None:
    order_id = await shop.ordered()
    await shop.record(order_id, DECLINED, EventType.PAYMENT_DECLINED)
    async with following(rounds.app, order_id) as reader:
        assert len(await reader.rest()) == 2
    await all_others()
    assert rounds.begun == 0


async def test_a_slow_reader_holds_nobody_up_and_gets_everything_in_the_end(shop: Shop, rounds: Rounds) -> None:
    order_id = await shop.ordered()
    async with following(rounds.app, order_id, last="1") as slow, following(rounds.app, order_id, last="1") as other:
        slow.reads.clear()
        await shop.record(order_id, PLACED, EventType.ORDER_PLACED)
        await rounds.next()
        await slow.held_up.wait()
        await shop.record(order_id, CANCELING, EventType.ORDER_CANCELING)
        await rounds.next()
        await shop.record(order_id, CANCELED, EventType.ORDER_CANCELED)
        await rounds.last()
        every = [(2, "OrderPlaced"), (3, "OrderCanceling"), (4, "OrderCanceled")]
        assert await other.rest() == every
        slow.reads.set()
        assert await slow.rest() == every


async def test_a_reader_who_goes_while_something_is_sent_is_forgotten(shop: Shop, rounds: Rounds) -> None:
    order_id = await shop.ordered()
    async with following(rounds.app, order_id, last="1") as slow:
        slow.reads.clear()
        await shop.record(order_id, PLACED, EventType.ORDER_PLACED)
        await rounds.next()
        await slow.held_up.wait()
    await rounds.last()
    await all_others()
    assert rounds.begun == 2


# Trouble


async def test_a_database_that_is_away_ends_no_stream(
    shop: Shop, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.01)
    order_id = await shop.ordered()
    async with following(rounds.app, order_id, last="1") as reader:
        rounds.error = DatabaseUnavailable("away")
        await shop.record(order_id, CANCELED, EventType.ORDER_CANCELING, EventType.ORDER_CANCELED)
        for _ in range(3):
            await rounds.next()
            assert await reader.part() == STILL_HERE
        rounds.error = None
        await rounds.last()
        while (part := await reader.part()) == STILL_HERE:
            pass
        assert [_seen(part), *await reader.rest()] == [(2, "OrderCanceling"), (3, "OrderCanceled")]


async def test_an_error_that_nobody_expected_is_logged_and_ends_no_stream(shop: Shop, rounds: Rounds) -> None:
    order_id = await shop.ordered()
    async with following(rounds.app, order_id, last="1") as reader:
        rounds.error = RuntimeError("a bug")
        with structlog.testing.capture_logs() as logs:
            await rounds.next()
        rounds.error = None
        await shop.record(order_id, DECLINED, EventType.PAYMENT_DECLINED)
        await rounds.last()
        assert await reader.rest() == [(2, "PaymentDeclined")]
    assert [(log["event"], log["log_level"]) for log in logs] == [("timelines could not be read", "error")]


@pytest.mark.parametrize("seconds_left", [-1, 1])
async def test_a_stream_ends_with_the_token_that_it_was_asked_for_with(shop: Shop, seconds_left: int) -> None:
    """Tokens are taken for a little longer, but nobody stays on one."""
    order_id = await shop.ordered()
    who = bearer("minji", exp=int(time.time()) + seconds_left)
    async with following(shop.app, order_id, who) as reader:
        assert await reader.event() == (1, "OrderReceived")
        while (part := await reader.part()) == STILL_HERE:
            pass
        assert part == ""


# Draining


async def test_streams_end_when_the_server_drains_even_while_the_database_is_silent(shop: Shop, rounds: Rounds) -> None:
    order_ids = [await shop.ordered() for _ in range(2)]
    async with (
        following(rounds.app, order_ids[0]) as one,
        following(rounds.app, order_ids[1]) as another,
        following(rounds.app, order_ids[1], last="1") as a_third,
    ):
        rounds.app.state.draining.set()  # the first round is not over, and will not be
        assert await one.rest() == await another.rest() == [(1, "OrderReceived")]
        assert await a_third.rest() == []


async def test_who_comes_while_the_server_drains_gets_what_there_is(shop: Shop) -> None:
    order_id = await shop.ordered()
    shop.app.state.draining.set()
    async with following(shop.app, order_id) as reader:
        assert await reader.rest() == [(1, "OrderReceived")]
    async with following(shop.app, order_id, last="1") as reader:
        assert await reader.rest() == []


async def test_nobody_waits_for_a_payment_once_the_server_drains(shop: Shop) -> None:
    async def on_payment(_: str) -> None:
        shop.app.state.draining.set()
        await asyncio.Event().wait()

    shop.engine.on_payment = on_payment
    headers = {**MINJI, "Idempotency-Key": "late", "Prefer": "wait=30"}
    async with asyncio.timeout(10):
        answer = await shop.client.post("/orders", json=ORDER, headers=headers)
    assert (answer.status_code, answer.json()["orderStatus"]) == (202, "OrderReceived")


@pytest.mark.parametrize("accept", ["text/*", "TEXT/Event-Stream", "application/json;q=0.1, text/event-stream"])
async def test_who_follows_takes_no_place_of_those_who_want_to_be_served(shop: Shop, accept: str) -> None:
    order_id = await shop.ordered()
    app = api.create_app(shop.parts, max_requests=1)
    async with (
        app.router.lifespan_context(app),
        following(app, order_id, {**MINJI, "Accept": accept}) as reader,
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop") as client,
    ):
        assert await reader.event() == (1, "OrderReceived")
        assert (await client.get("/products")).status_code == 200


async def test_a_customer_is_not_told_who_of_the_staff_did_something_or_what_they_noted(shop: Shop) -> None:
    order_id = await shop.ordered()
    by = {"reason": "operator", "actor": "boss@street12.example", "note": "she shouted at us"}
    waived = {"actor": "boss@street12.example", "reason": "she shouted at us"}
    settled = {"undo": "refund_payment", "actor": "boss@street12.example", "reason": "she shouted at us"}
    for decided in (EventType.COUPON_WAIVED, EventType.ATTENTION_CLEARED):
        await shop.record(order_id, PLACED, decided, detail=waived)
    await shop.record(order_id, CANCELING, EventType.ORDER_CANCELING, detail=by)
    await shop.record(order_id, CANCELED, EventType.COMPENSATION_SKIPPED, detail=settled)
    for accept in ("application/json", "text/event-stream"):
        path, headers = f"/orders/{order_id}/events", {"Accept": accept}
        theirs = (await shop.client.get(path, headers=headers | MINJI)).text
        assert '"reason":"operator"' in theirs
        assert '"undo":"refund_payment"' in theirs
        assert "boss" not in theirs
        assert "shouted" not in theirs
        staff = (await shop.client.get(path, headers=headers | OPERATOR)).text
        assert "boss" in staff
        assert "shouted" in staff
