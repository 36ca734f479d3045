"""The API takes no more upon itself than it can do, in number, size and time, and refuses the rest at once."""

import asyncio
import contextlib
import gc
import json
import signal
import socket
import struct
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Literal

import httpx2
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

import api
from services.gateway import guard, server
from services.gateway.guard import Guard, stay
from services.gateway.operations import PROBES, Metrics, install_operations
from services.gateway.problems import install_problems
from services.gateway.server import LARGEST_HEAD, Server, configured, listen
from services.order.tables import Order
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import ApiSettings, read_settings
from tests.api.world import MINJI, ORDER, FakeEngine, Shop, is_problem

LARGEST_BODY = 1000
SOON = 0.05
EVENTS = {"Accept": "text/event-stream"}


@dataclass
class Counter:
    """An app behind the guard. Who goes to `/wait` enters, and waits until the doors are opened."""

    app: FastAPI = field(default_factory=FastAPI)
    metrics: Metrics = field(default_factory=Metrics)
    entered: asyncio.Queue[None] = field(default_factory=asyncio.Queue[None])
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    draining: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url="http://counter")

    async def get(self, path: str, headers: dict[str, str] | None = None) -> httpx2.Response:
        async with self.client as client:
            return await client.get(path, headers=headers)

    async def wait(self) -> None:
        self.entered.put_nowait(None)
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @contextlib.asynccontextmanager
    async def somebody_inside(
        self, path: str = "/wait", headers: dict[str, str] | None = None
    ) -> AsyncGenerator[asyncio.Task[httpx2.Response]]:
        """A request that has entered, and that is answered after the block."""
        request = asyncio.create_task(self.get(path, headers))
        await self.entered.get()
        yield request
        self.opened.set()
        await asyncio.wait([request])

    async def asgi(
        self,
        path: str,
        receive: Callable[[], Coroutine[Any, Any, Message]],
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
    ) -> list[Message]:
        """Everything that the app sends to a client that is told by `receive` alone."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": raw}
        await self.app(scope, receive, send)
        return sent


def counter(*, max_requests: int = 1, request_seconds: float = 30) -> Counter:
    it = Counter()
    app = it.app

    async def ping() -> None: ...

    async def report(_: object) -> None:
        raise DatabaseUnavailable("there is none")

    app.state.parts = SimpleNamespace(
        order_database=SimpleNamespace(ping=ping, read=report),
        admission=SimpleNamespace(report=report),
        tokens=SimpleNamespace(keys=SimpleNamespace(must_be_known=lambda: None)),
    )
    install_problems(app)
    install_operations(app, it.metrics, it.leaving)
    app.add_middleware(
        Guard,
        metrics=it.metrics,
        largest_body=LARGEST_BODY,
        max_requests=max_requests,
        request_seconds=request_seconds,
    )

    async def hello() -> dict[str, str]:
        return {"hello": "you"}

    async def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    async def wait_with_a_body(body: dict[str, Any]) -> None:
        await it.wait()

    async def stream(request: Request) -> StreamingResponse:
        stay(request, request.headers.get("x-caller", "minji"))

        async def events() -> AsyncGenerator[str]:
            yield "data: first\n\n"
            await it.wait()
            yield "data: last\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def slow_stream(request: Request) -> StreamingResponse:
        stay(request, "minji")

        async def events() -> AsyncGenerator[str]:
            yield "data: first\n\n"
            await asyncio.sleep(3 * SOON)
            yield "data: last\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def broken() -> None:
        raise RuntimeError("hunter2")

    async def broken_stream(request: Request) -> StreamingResponse:
        stay(request, "minji")

        async def events() -> AsyncGenerator[str]:
            yield "data: first\n\n"
            raise RuntimeError("hunter2")

        return StreamingResponse(events(), media_type="text/event-stream")

    async def own_timeout() -> None:
        async with asyncio.timeout(0):
            await it.opened.wait()

    async def stubborn() -> str:
        try:
            await it.wait()
        except asyncio.CancelledError:
            return "yet done"
        raise AssertionError

    async def patient(request: Request) -> str:
        stay(request, "minji", seconds=30)
        await asyncio.sleep(3 * SOON)
        return "well waited"

    app.post("/echo")(echo)
    app.post("/wait")(wait_with_a_body)
    for path, route in {
        "/hello": hello,
        "/wait": it.wait,
        "/events": stream,
        "/slow/events": slow_stream,
        "/broken": broken,
        "/broken/events": broken_stream,
        "/own-timeout": own_timeout,
        "/patient": patient,
        "/stubborn": stubborn,
    }.items():
        app.get(path, response_model=None)(route)
    return it


@pytest.fixture(autouse=True)
async def _no_task_is_left() -> AsyncIterator[None]:  # pyright: ignore[reportUnusedFunction]
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)  # what has ended is taken from the list in the next round
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}


# Places


async def test_who_comes_on_top_is_told_to_come_back_in_a_second() -> None:
    it = counter(max_requests=2)
    async with it.somebody_inside() as first, it.somebody_inside() as second:
        shed = await it.get("/hello", {"Accept-Language": "en"})
        found = is_problem(shed, 503, "overloaded")
        assert found["detail"] == "There are too many requests right now. Please try again shortly."
        assert shed.headers["retry-after"] == "1"
    assert (first.result().status_code, second.result().status_code) == (200, 200)
    assert (await it.get("/hello")).status_code == 200


async def unread() -> Message:
    raise AssertionError("the body was read")


async def test_shedding_reads_nothing() -> None:
    it = counter()
    async with it.somebody_inside():
        begin, _ = await it.asgi("/echo", unread, method="POST")
    assert begin["status"] == 503


@pytest.mark.parametrize("probe", sorted(PROBES))
async def test_a_probe_is_answered_by_a_full_process_and_takes_no_place(probe: str) -> None:
    it = counter()
    async with it.somebody_inside():
        for _ in range(3):
            assert (await it.get(probe)).status_code == 200


async def test_streams_have_places_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_STAYING", 1)
    it = counter()
    async with it.somebody_inside("/events", EVENTS) as reader:
        assert (await it.get("/hello")).status_code == 200
        is_problem(await it.get("/events", EVENTS), 503, "overloaded")
        async with it.somebody_inside():
            is_problem(await it.get("/hello"), 503, "overloaded")
    assert reader.result().text.endswith("data: last\n\n")
    async with it.somebody_inside():
        assert (await it.get("/slow/events", EVENTS)).status_code == 200


async def test_no_caller_takes_all_the_places_of_those_who_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_STAYING_OF_ONE", 1)
    it = counter()
    async with it.somebody_inside("/events", EVENTS):
        is_problem(await it.get("/events", EVENTS), 503, "overloaded")
        async with it.somebody_inside("/events", {**EVENTS, "X-Caller": "haneul"}):
            assert (await it.get("/hello")).status_code == 200
    assert (await it.get("/slow/events", EVENTS)).status_code == 200


async def test_what_is_asked_for_is_no_reason_to_stay() -> None:
    it = counter()
    async with it.somebody_inside(), it.client as client:
        wishes = {**EVENTS, "Prefer": "wait=30"}
        is_problem(await client.post("/deliveries/events", json={}, headers=wishes), 503, "overloaded")
        is_problem(await client.post("/orders", json={}, headers=wishes), 503, "overloaded")
        is_problem(await client.get("/events", headers=EVENTS), 503, "overloaded")


@pytest.mark.parametrize("path", ["/broken", "/own-timeout"])
async def test_an_error_frees_its_place(path: str) -> None:
    it = counter()
    is_problem(await it.get(path), 500, "internal-error")
    assert (await it.get("/hello")).status_code == 200


async def test_an_error_in_the_middle_of_an_answer_cuts_it_and_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_STAYING", 1)
    it = counter()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="hunter2"):
            await it.get("/broken/events", EVENTS)


async def test_a_request_that_is_cancelled_frees_its_place() -> None:
    it = counter()
    async with it.somebody_inside() as request:
        request.cancel()
        await it.cancelled.wait()
        await asyncio.wait([request])
        assert request.cancelled()
        assert (await it.get("/hello")).status_code == 200


async def test_a_reader_that_goes_away_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_STAYING", 1)
    it = counter()
    gone = asyncio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    reading = asyncio.create_task(it.asgi("/events", receive, headers=EVENTS))
    await it.entered.get()
    gone.set()
    await reading
    assert it.cancelled.is_set()
    assert (await it.get("/slow/events", EVENTS)).status_code == 200


async def test_a_caller_who_goes_away_waits_for_no_payment_any_more(shop: Shop) -> None:
    given_up = asyncio.Event()
    asked = asyncio.Event()
    messages: list[Message] = [{"type": "http.request", "body": json.dumps(ORDER).encode()}]

    async def on_payment(_: str) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asked.wait()
        return {"type": "http.disconnect"}

    shop.engine.on_payment = on_payment
    headers = {**MINJI, "Idempotency-Key": "left", "Prefer": "wait=30", "Content-Type": "application/json"}
    async with asyncio.timeout(10):
        await Counter(app=shop.app).asgi("/orders", receive, method="POST", headers=headers)
    assert given_up.is_set()
    assert await shop.count() == 1


@pytest.mark.parametrize("waits", [False, True], ids=["cancelling", "waiting for a payment"])
async def test_the_shop_takes_as_many_requests_as_it_is_told_to(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """Who waits for a payment takes no place of those who want to be served."""
    monkeypatch.setattr(guard, "MAX_STAYING", 1)
    engine = Busy(shop.parts.book)
    order_id = await shop.ordered()
    app = api.create_app(replace(shop.parts, engine=engine), max_requests=1)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop") as client:
        headers = {**MINJI, "Idempotency-Key": "full", "Prefer": "wait=30"}
        waiting = client.post("/orders", json=ORDER, headers=headers)
        cancelling = client.post(f"/orders/{order_id}/cancel", headers=MINJI)
        inside = asyncio.create_task(waiting if waits else cancelling)
        (cancelling if waits else waiting).close()
        await engine.entered.wait()
        if waits:
            assert (await client.get("/products")).status_code == 200
            more = await client.post("/orders", json=ORDER, headers=headers)  # accepted, but not waited for
            assert (more.status_code, "preference-applied" in more.headers) == (202, False)
        else:
            is_problem(await client.get("/products"), 503, "overloaded")
        assert (await client.get("/readyz")).status_code == 200
        engine.done.set()
        assert (await inside).status_code == 202
        assert (await client.get("/products")).status_code == 200


@dataclass
class Busy(FakeEngine):
    """An engine that is busy until it is done."""

    entered: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def payment_known(self, order: Order, timeout: float) -> None:
        self.entered.set()
        await self.done.wait()

    async def cancel(
        self,
        order_id: str,
        *,
        by: Literal["customer", "operator"],
        actor: str,
        if_version: int | None = None,
        note: str = "",
    ) -> None:
        self.entered.set()
        await self.done.wait()


# Time


async def test_a_request_that_takes_too_long_is_cancelled_and_frees_its_place() -> None:
    it = counter(request_seconds=SOON)
    is_problem(await it.get("/wait"), 503, "request-timeout")
    assert it.cancelled.is_set()
    assert (await it.get("/hello")).status_code == 200


async def test_it_is_not_the_clients_fault_once_its_body_is_there() -> None:
    it = counter(request_seconds=SOON)
    async with it.client as client:
        answer = await client.post("/wait", json={})
    is_problem(answer, 503, "request-timeout")
    assert answer.headers["retry-after"] == "2"


async def test_a_body_that_does_not_come_costs_the_client_its_connection() -> None:
    it = counter(request_seconds=SOON)
    parts = iter([b'{"a":', b" "])

    async def receive() -> Message:
        for part in parts:
            return {"type": "http.request", "body": part, "more_body": True}
        await it.opened.wait()
        raise AssertionError

    begin, body = await it.asgi("/echo", receive, method="POST", headers={"Content-Type": "application/json"})
    assert (begin["status"], json.loads(body["body"])["code"]) == (408, "request-timeout")
    assert (b"connection", b"close") in begin["headers"]


async def test_a_body_has_less_time_than_a_request_and_what_comes_after_it_has_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", SOON)
    it = counter(request_seconds=30)
    parts = [b'{"a":']

    async def receive() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError

    headers = {"Content-Type": "application/json"}
    begin, _ = await it.asgi("/echo", receive, method="POST", headers=headers)
    assert begin["status"] == 408
    async with it.client as client:
        waiting = asyncio.create_task(client.post("/wait", json={}))
        await it.entered.get()
        await asyncio.sleep(3 * SOON)  # longer than a body may take, which was here at once
        it.opened.set()
        assert (await waiting).status_code == 200


async def test_an_answer_that_has_begun_has_all_the_time_it_needs() -> None:
    it = counter(request_seconds=SOON)
    answer = await it.get("/slow/events")
    assert answer.text == "data: first\n\ndata: last\n\n"


class Stuck(FakeEngine):
    """An engine that does not answer."""

    async def cancel(
        self,
        order_id: str,
        *,
        by: Literal["customer", "operator"],
        actor: str,
        if_version: int | None = None,
        note: str = "",
    ) -> None:
        await asyncio.Event().wait()


async def test_the_shop_takes_as_long_as_it_is_told_to(shop: Shop) -> None:
    order_id = await shop.ordered()
    app = api.create_app(replace(shop.parts, engine=Stuck(shop.parts.book)), request_seconds=SOON)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop") as client:
        async with asyncio.timeout(10):
            answer = await client.post(f"/orders/{order_id}/cancel", headers=MINJI)
    is_problem(answer, 503, "request-timeout")


async def test_who_waits_for_a_payment_is_given_that_time_on_top(shop: Shop) -> None:
    scopes, deadlines = list[Scope](), list[float | None]()

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await shop.app(scope, receive, send)

    async def note(_: str) -> None:
        deadlines.append(scopes[0]["state"]["deadline"].when())

    shop.engine.on_payment = note
    began = asyncio.get_running_loop().time()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(noting), base_url="http://shop") as client:
        headers = {**MINJI, "Idempotency-Key": "patient", "Prefer": "wait=30"}
        assert (await client.post("/orders", json=ORDER, headers=headers)).status_code == 202
    (deadline,) = deadlines
    assert deadline is not None
    assert deadline - began >= 15 + 30


async def test_a_route_that_answers_in_spite_of_its_cancellation_is_heard() -> None:
    assert (await counter(request_seconds=SOON).get("/stubborn")).json() == "yet done"


async def test_a_timeout_within_the_app_is_an_error_of_its_own() -> None:
    is_problem(await counter().get("/own-timeout"), 500, "internal-error")


async def test_a_route_can_take_more_time() -> None:
    assert (await counter(request_seconds=SOON).get("/patient")).json() == "well waited"


def test_more_time_means_nothing_where_there_is_no_deadline() -> None:
    stay(Request({"type": "http"}), "minji", seconds=30)


async def test_time_is_added_to_what_was_left() -> None:
    now = asyncio.get_running_loop().time()
    async with asyncio.timeout_at(now + 100) as deadline:
        await asyncio.sleep(0)
        stay(Request({"type": "http", "state": {"deadline": deadline}}), "minji", seconds=30)
        assert deadline.when() == now + 130


# Size


async def test_the_largest_body_is_taken_and_the_next_larger_one_is_not() -> None:
    it = counter()
    filled = json.dumps({"a": "a" * (LARGEST_BODY - len(json.dumps({"a": ""})))}).encode()

    async def chunks(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    headers = {"Content-Type": "application/json"}
    async with it.client as client:
        for content in (filled, chunks(filled)):
            assert (await client.post("/echo", content=content, headers=headers)).status_code == 200
        for content in (filled + b" ", chunks(filled + b" ")):
            is_problem(await client.post("/echo", content=content, headers=headers), 413, "payload-too-large")


async def test_a_body_that_is_said_to_be_too_large_is_not_read() -> None:
    headers = {"Content-Length": str(LARGEST_BODY + 1)}
    begin, _ = await counter().asgi("/echo", unread, method="POST", headers=headers)
    assert begin["status"] == 413


# Figures


async def test_what_was_shed_and_what_took_too_long_is_counted() -> None:
    it = counter()
    async with it.somebody_inside():
        await it.get("/hello")
    slow = counter(request_seconds=SOON)
    await slow.get("/wait")
    metrics = [(await one.get("/metrics")).text for one in (it, slow)]
    for text, labels in zip(metrics, ('route="unknown",status="503"', 'route="/wait",status="503"'), strict=True):
        assert f'street12_http_request_seconds_count{{method="GET",{labels}}} 1.0' in text
    assert 'route="/wait",status="200"' in metrics[0]


# Over the wire


class Quiet(Server):
    """Leaves the signals to the tests."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@dataclass
class Wire:
    """A connection to a real server."""

    server: Server
    serving: asyncio.Task[None]
    address: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer's status, headers and body."""
        line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(header.lower().split(": ", 1) for header in lines if header)
        return int(line.split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def status(self) -> int:
        return (await self.answer())[0]


@contextlib.asynccontextmanager
async def connected(it: Counter, *, keep_alive: int = 5, unready_seconds: float = 0) -> AsyncGenerator[Wire]:
    listener = listen("127.0.0.1", 0)
    config = configured(it.app, read_settings(ApiSettings, keep_alive_seconds=keep_alive))
    config.timeout_graceful_shutdown = None
    server = Quiet(config, it.leaving, it.draining, unready_seconds=unready_seconds)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        async with asyncio.timeout(30):
            yield Wire(server, serving, "http://{}:{}".format(*listener.getsockname()), reader, writer)
    finally:
        writer.close()
        server.should_exit = True
        await serving


def post(body: bytes, *headers: bytes, path: bytes = b"/echo") -> tuple[bytes, bytes]:
    lines = [b"Host: x", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *headers]
    return b"POST %b HTTP/1.1\r\n" % path + b"\r\n".join(lines) + b"\r\n\r\n", body


HELLO = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"


async def test_a_connection_outlives_that_its_requests_are_shed() -> None:
    it = counter()
    head, body = post(b'{"a": 1}')
    async with it.somebody_inside(), connected(it) as wire:
        await wire.send(head + body)
        assert await wire.status() == 503
        await wire.send(head)
        assert await wire.status() == 503
        await wire.send(body)  # after the answer
        await wire.send(CHUNKED + b"\r\n8\r\n" + body)
        assert await wire.status() == 503
        await wire.send(b"\r\n0\r\n\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await wire.status() == 200
    async with connected(it) as wire:
        await wire.send(head + body)
        assert await wire.status() == 200


async def test_a_body_that_does_not_come_is_waited_for_no_longer() -> None:
    async with connected(counter(request_seconds=SOON)) as wire:
        head, body = post(b'{"a": 1}')
        await wire.send(head, body[:3])
        status, headers, _ = await wire.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert await wire.reader.read() == b""


async def test_a_body_in_chunks_is_refused_once_it_is_too_long() -> None:
    async with connected(counter()) as wire:
        await wire.send(CHUNKED + b"\r\n", *[b"64\r\n" + b"a" * 100 + b"\r\n"] * 11)
        assert await wire.status() == 413
        await wire.send(b"0\r\n\r\n", HELLO)
        assert await wire.status() == 200


async def test_a_connection_outlives_a_body_that_is_too_long() -> None:
    head, body = post(b"a" * 3 * LARGEST_HEAD)
    async with connected(counter()) as wire:
        await wire.send(head)
        assert await wire.status() == 413
        await wire.send(*[body[:1024]] * (len(body) // 1024), HELLO)
        assert await wire.status() == 200


async def test_requests_that_come_together_are_answered_one_after_the_other() -> None:
    async with connected(counter()) as wire:
        await wire.send(HELLO + b"".join(post(b'{"a": 1}')) + HELLO)
        assert [(await wire.answer())[2] for _ in range(3)] == [b'{"hello":"you"}', b'{"a":1}', b'{"hello":"you"}']


@pytest.mark.parametrize(
    "begin",
    [b"GET /", HELLO[:-2] + b"A: ", HELLO[:-2] + b"A: a\r\n", CHUNKED + b"\r\n0\r\nA: "],
    ids=["path", "header", "headers", "trailer"],
)
async def test_a_head_without_an_end_is_refused(begin: bytes) -> None:
    more = b"A: a\r\n" * 700 if begin.endswith(b"\r\n") else b"a" * 4096
    async with connected(counter()) as wire:
        with contextlib.suppress(ConnectionError):
            await wire.send(begin, *[more] * (LARGEST_HEAD // 4096 * 1000))
            pytest.fail("it was all taken")
        wire.writer.transport.abort()


async def test_a_trailer_is_no_header() -> None:
    it = counter()

    async def trailer(request: Request) -> str:
        await request.body()
        return request.headers.get("x-trailer", "none")

    it.app.post("/trailer")(trailer)
    async with connected(it) as wire:
        await wire.send(CHUNKED.replace(b"/echo", b"/trailer") + b"\r\n1\r\n{\r\n0\r\nX-Trailer: some\r\n\r\n")
        assert (await wire.answer())[2] == b'"none"'


async def test_a_wish_for_another_protocol_is_not_heard() -> None:
    wish = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    head, body = post(b'{"a": 1}', *wish)
    async with connected(counter()) as wire:
        await wire.send(head + body + head, body + HELLO)
        assert [(await wire.answer())[2] for _ in range(3)] == [b'{"a":1}', b'{"a":1}', b'{"hello":"you"}']


async def test_the_last_request_of_a_connection_is_answered_whatever_follows_it() -> None:
    last = HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n")
    async with connected(counter()) as wire:
        await wire.send(last + HELLO)
        assert await wire.status() == 200
        assert await wire.reader.read() == b""


async def test_what_is_being_worked_on_is_finished_before_the_server_ends() -> None:
    it = counter()
    async with connected(it) as wire:
        await wire.send(HELLO.replace(b"/hello", b"/wait"))
        await it.entered.get()
        wire.server.should_exit = True
        while wire.server.servers[0].is_serving():  # noqa: ASYNC110  (it looks ten times a second itself)
            await asyncio.sleep(0.01)
        it.opened.set()
        assert await wire.status() == 200
        assert await wire.reader.read() == b""


async def test_from_the_signal_on_each_answer_is_the_last_of_its_connection_and_all_are_answered() -> None:
    it = counter(max_requests=2)
    async with (
        connected(it, unready_seconds=3600) as wire,
        httpx2.AsyncClient(base_url=wire.address) as at_rest,
        httpx2.AsyncClient(base_url=wire.address) as new,
    ):
        assert "connection" not in (await at_rest.get("/hello")).headers
        await wire.send(HELLO.replace(b"/hello", b"/wait"))
        await it.entered.get()
        await wire.server.on_tick(0)  # once a second uvicorn makes new headers for what comes then
        wire.server.handle_exit(signal.SIGTERM, None)
        assert (await new.get("/readyz")).status_code == 503
        for client in (at_rest, new):
            for _ in range(2):
                answer = await client.get("/hello")
                assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        await wire.server.on_tick(0)
        assert (await new.get("/hello")).headers["connection"] == "close"
        it.opened.set()
        status, headers, _ = await wire.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await wire.reader.read() == b""
        assert not it.draining.is_set()
        wire.server.handle_exit(signal.SIGTERM, None)  # who does not want to wait
        assert it.draining.is_set()
        await wire.serving


async def test_the_wait_after_the_signal_ends_by_itself_and_without_one_there_is_none() -> None:
    for unready_seconds in (SOON, 0):
        it = counter()
        async with connected(it, unready_seconds=unready_seconds) as wire:
            wire.server.handle_exit(signal.SIGINT, None)
            assert it.leaving.is_set()
            assert it.draining.is_set() == (not unready_seconds)
            await it.draining.wait()
            await wire.serving
            assert not wire.server.force_exit


async def test_who_ends_the_wait_with_a_second_signal_does_not_hurry_the_server() -> None:
    it = counter()
    async with connected(it, unready_seconds=SOON) as wire:
        await wire.send(HELLO.replace(b"/hello", b"/wait"))
        await it.entered.get()
        wire.server.handle_exit(signal.SIGINT, None)
        wire.server.handle_exit(signal.SIGTERM, None)
        assert it.draining.is_set()
        await asyncio.sleep(2 * SOON)  # the wait would be over by now
        assert not wire.server.force_exit
        it.opened.set()
        assert await wire.status() == 200
        await wire.serving


async def test_who_would_stay_leaves_when_the_server_is_told_to_end(shop: Shop) -> None:
    """It would wait for them for ever: no time is set here."""
    asked = asyncio.Event()

    async def on_payment(_: str) -> None:
        asked.set()
        await asyncio.Event().wait()

    shop.engine.on_payment = on_payment
    order_id = await shop.ordered()
    it = Counter(app=shop.app, draining=shop.app.state.draining)
    async with connected(it) as wire, httpx2.AsyncClient(base_url=wire.address) as client:
        headers = {**MINJI, "Idempotency-Key": "late", "Prefer": "wait=30"}
        waiting = asyncio.create_task(client.post("/orders", json=ORDER, headers=headers))
        async with client.stream("GET", f"/orders/{order_id}/events", headers={**MINJI, **EVENTS}) as answer:
            lines = answer.aiter_lines()
            while await anext(lines) != "event: OrderReceived":
                pass
            await asked.wait()
            wire.server.handle_exit(signal.SIGTERM, None)
            data, _ = [line async for line in lines]  # and a proper end
            assert json.loads(data.removeprefix("data: "))["version"] == 1
        assert (await waiting).status_code == 202
        await wire.serving


async def test_no_packet_waits_until_the_one_before_is_acknowledged() -> None:
    async with connected(counter()) as wire:
        await wire.send(HELLO)
        await wire.answer()
        (taken,) = [protocol.transport.get_extra_info("socket") for protocol in wire.server.server_state.connections]
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# The time that a head may take


async def trickle(wire: Wire) -> None:
    """Sends a byte now and then until the server closes the connection."""
    with contextlib.suppress(ConnectionError):
        while not wire.reader.at_eof():
            await wire.send(b"a")
            await asyncio.sleep(SOON / 10)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", SOON)


@pytest.mark.usefixtures("soon")
async def test_a_connection_on_which_nothing_comes_is_closed() -> None:
    async with connected(counter()) as wire:
        assert await wire.reader.read() == b""


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_a_head_that_does_not_end_in_time_costs_the_client_its_connection(before: int) -> None:
    async with connected(counter(), keep_alive=60) as wire:
        for _ in range(before):
            await wire.send(HELLO)
            assert await wire.status() == 200
        await wire.send(HELLO[:-2] + b"A: ")
        await trickle(wire)


@pytest.mark.usefixtures("soon")
async def test_a_head_that_began_during_an_answer_must_end_after_it() -> None:
    it = counter()
    async with connected(it, keep_alive=60) as wire:
        await wire.send(HELLO.replace(b"/hello", b"/wait") + HELLO[:-2])
        await it.entered.get()
        await asyncio.sleep(3 * SOON)
        it.opened.set()
        assert await wire.status() == 200
        assert await wire.reader.read() == b""


async def test_a_head_that_began_during_an_answer_has_the_time_of_a_head() -> None:
    async with connected(counter(), keep_alive=0) as wire:
        await wire.send(HELLO + HELLO[:-2])
        assert await wire.status() == 200
        await asyncio.sleep(SOON)
        await wire.send(HELLO[-2:])
        assert await wire.status() == 200


@pytest.mark.usefixtures("soon")
async def test_a_request_under_way_has_all_the_time_it_needs() -> None:
    head, body = post(b'{"a": 1}')
    async with connected(counter(), keep_alive=0) as wire:
        await wire.send(head[:-2])
        await wire.send(head[-2:] + body[:3])
        await asyncio.sleep(3 * SOON)
        await wire.send(body[3:] + HELLO.replace(b"/hello", b"/slow/events"))
        assert await wire.status() == 200
        assert (await wire.reader.readuntil(b"0\r\n\r\n")).endswith(b"data: last\n\n\r\n0\r\n\r\n")


@pytest.mark.usefixtures("soon")
async def test_between_requests_a_connection_is_kept_for_longer_than_a_head_may_take() -> None:
    async with connected(counter(), keep_alive=60) as wire:
        for _ in range(2):
            await wire.send(HELLO)
            assert await wire.status() == 200
            await asyncio.sleep(3 * SOON)
        await wire.send(HELLO)
        assert await wire.status() == 200


@pytest.mark.parametrize("rest", [b"", b"a", b"a" * (LARGEST_BODY + 1)], ids=["none", "some", "all"])
async def test_a_connection_that_is_not_used_after_an_answer_is_closed(
    rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much came of a body that was refused."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 3600)
    head, _ = post(b"a" * (LARGEST_BODY + 1))
    async with connected(counter(), keep_alive=1) as wire:
        await wire.send(head)
        assert await wire.status() == 413
        await wire.send(rest)
        assert await wire.reader.read() == b""


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", [b"", HELLO[:-2], HELLO, HELLO + HELLO[:-2]], ids=["none", "head", "one", "more"])
async def test_nothing_is_kept_of_a_connection_that_is_gone(sent: bytes, reset: bool) -> None:
    async with connected(counter()) as wire:
        connections = wire.server.server_state.connections
        while not connections:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)
        await wire.send(sent)
        if sent.startswith(HELLO):
            assert await wire.status() == 200
        gone = weakref.ref(next(iter(connections)))
        if reset:
            linger = struct.pack("ii", 1, 0)
            wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wire.writer.close()
        while connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        gc.collect()
        assert gone() is None


async def test_a_head_may_be_as_long_as_it_is_said_and_no_longer() -> None:
    begin = HELLO[:-2] + b"A: "
    async with connected(counter()) as wire:
        await wire.send(begin.ljust(LARGEST_HEAD, b"a"))
        await asyncio.sleep(SOON)  # a head that comes as one is not measured
        await wire.send(b"\r\n\r\n")
        assert await wire.status() == 200
        await wire.send(begin.ljust(LARGEST_HEAD + 1, b"a"))
        assert (await wire.reader.read()).startswith(b"HTTP/1.1 400 ")
