"""The running shop as a customer, an operator and a saboteur meet it: over HTTP, and by the pids in `stack.json`."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from pydantic import BaseModel, ConfigDict

from deploy.stack import Stack, stack_file
from services.gateway.caller import Role
from tests.issuer import TEST_ISSUER, bearer
from tests.programs import started

T = TypeVar("T")
PORTS = tuple(f"STREET12_{name}_PORT" for name in ("API", "TEMPORAL", "TEMPORAL_UI", "PAYMENT", "CODEC"))
NO_RATE_LIMIT = dict.fromkeys(("STREET12_RATE_CALLER", "STREET12_RATE_ADDRESS"), "1000000/second")
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.05
LIMITS = httpx2.Limits(max_connections=100, keepalive_expiry=2.0)
"""A connection that rests is let go before the API lets it go (5 s), which would meet the next request."""
OPERATOR = bearer("op", Role.OPERATOR)
CARRIER = bearer("carrier", Role.CARRIER)
PRIVATE = ("굿맨", "서울시 12번가 12", "010-1234-5678")
"""What customers say of themselves."""
FINAL = ("Delivered", "PaymentDeclined", "OrderCanceled")
_numbers = itertools.count(1)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Order(_Answer):
    orderId: str
    userId: str
    productId: str
    orderStatus: str
    payStatus: str
    deliveryStatus: str
    cancelReason: str | None
    needsAttention: bool
    qty: int
    amount: int
    couponId: str | None


class Event(_Answer):
    version: int
    type: str
    detail: dict[str, str]


class Pending(_Answer):
    orderId: str
    since: str


class Admission(_Answer):
    """Whether orders are taken, as an operator reads it."""

    state: str
    since: str | None
    pendingPayments: int
    maxPendingPayments: int
    oldestPendingPayment: Pending | None
    medianPaymentMs: int | None
    trialOrderId: str | None
    retryAfterSeconds: int | None

    @property
    def has_room(self) -> bool:
        """Whether an order would be taken now, as a trial perhaps."""
        return self.retryAfterSeconds is None


class Coupon(_Answer):
    couponId: str
    orderId: str
    status: str


class LedgerRow(_Answer):
    orderId: str
    charged: int
    refunded: int
    currency: str


@dataclass(frozen=True)
class Wish:
    """What a customer asks for, under the key that it is asked for with."""

    product_id: str
    qty: int = 1
    user: str = "goodman"
    pay: str = "pm_card_visa"
    key: str = field(default_factory=lambda: f"wish-{next(_numbers)}")

    @property
    def headers(self) -> dict[str, str]:
        return {**bearer(self.user), "Idempotency-Key": self.key}

    @property
    def body(self) -> dict[str, Any]:
        return {
            "productId": self.product_id,
            "qty": self.qty,
            **dict(zip(("username", "address", "phoneNo"), PRIVATE, strict=True)),
            "paymentMethod": self.pay,
        }


@dataclass(frozen=True)
class Shop:
    """A shop that runs, and how to talk to it, wait for it and break it."""

    supervisor: int
    data_dir: Path
    http: httpx2.AsyncClient
    payments: httpx2.AsyncClient

    async def product(self, *, on_hand: int = 50, price: int = 900_000) -> str:
        """A product of the test's own, so that its stock is nobody else's business."""
        product_id = f"e2e-{next(_numbers)}"
        body = {"productName": "시험 상품", "productPrice": price}
        (await self.http.put(f"/products/{product_id}", json=body, headers=OPERATOR)).raise_for_status()
        assert await self.move_stock(product_id, on_hand) == on_hand
        return product_id

    async def move_stock(self, product_id: str, qty: int) -> int:
        body = {"qty": qty, "reason": "e2e"}
        answer = await self.http.post(f"/stocks/{product_id}/movements", json=body, headers=OPERATOR)
        assert answer.status_code == 201, answer.text
        return answer.json()["onHand"]

    async def stock(self, product_id: str) -> int:
        return (await self._get(self.http, f"/stocks/{product_id}", OPERATOR)).json()["onHand"]

    async def post(self, wish: Wish, **headers: str) -> httpx2.Response:
        """Order once, whatever is answered."""
        return await self.http.post("/orders", json=wish.body, headers=wish.headers | headers)

    async def insist(self, wish: Wish) -> httpx2.Response:
        """Order as a patient customer does: with the same key again until the shop has said yes."""

        async def answered() -> httpx2.Response | None:
            answer = await self.post(wish)
            if answer.status_code == 503:
                return None
            assert answer.status_code == 202, answer.text
            return answer

        return await eventually(answered, f"an answer to {wish}")

    async def place(self, wish: Wish) -> Order:
        """The order that a patient customer has in the end."""
        return Order.model_validate((await self.insist(wish)).json())

    async def serve(self, wishes: Iterable[Wish], *, customers: int) -> list[tuple[Wish, httpx2.Response]]:
        """Each wish once, whatever is answered; each of so many customers comes with the next one when answered."""
        coming = iter(wishes)

        async def customer() -> list[tuple[Wish, httpx2.Response]]:
            return [(wish, await self.post(wish)) for wish in coming]

        served = await asyncio.gather(*(customer() for _ in range(customers)))
        return list(itertools.chain.from_iterable(served))

    async def admission(self) -> Admission:
        return Admission.model_validate((await self._get(self.http, "/admission", OPERATOR)).json())

    async def until_admission(self, reads: Callable[[Admission], bool], what: str) -> Admission:
        async def read() -> Admission | None:
            admission = await self.admission()
            return admission if reads(admission) else None

        async def story() -> str:
            return str(await self.admission())

        return await eventually(read, f"the admission to {what}", story)

    async def metric(self, name: str) -> float:
        """A figure of the API's metrics, its labels being a part of its name; 0 while there is none."""
        lines = (await self._get(self.http, "/metrics", {})).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name)

    async def order(self, order_id: str) -> Order:
        return Order.model_validate((await self._get(self.http, f"/orders/{order_id}", OPERATOR)).json())

    async def orders_of(self, user: str) -> list[Order]:
        return await self._orders(bearer(user))

    async def orders_for(self, product_id: str) -> list[Order]:
        """Everybody's orders for a product."""
        return [order for order in await self._orders(OPERATOR) if order.productId == product_id]

    async def _orders(self, headers: dict[str, str]) -> list[Order]:
        path, found = "/orders?limit=100", list[Order]()
        while True:
            page = (await self._get(self.http, path, headers)).json()
            found += [Order.model_validate(item) for item in page["items"]]
            if page["nextCursor"] is None:
                return found
            path = f"/orders?limit=100&cursor={page['nextCursor']}"

    async def events(self, order_id: str) -> list[Event]:
        answer = await self._get(self.http, f"/orders/{order_id}/events", OPERATOR)
        return [Event.model_validate(item) for item in answer.json()["items"]]

    async def timeline(self, order_id: str) -> list[str]:
        """The types of an order's events; their versions count from 1 without a gap."""
        events = await self.events(order_id)
        assert [event.version for event in events] == list(range(1, len(events) + 1))
        return [event.type for event in events]

    async def until(self, order_id: str, status: str) -> Order:
        """Wait for an order's status. Fails at once when the order has ended in another way."""

        async def reached() -> Order | None:
            order = await self.order(order_id)
            if order.orderStatus == status:
                return order
            if order.orderStatus in FINAL:
                pytest.fail(f"not {status}: {order} {await self.events(order_id)}")
            return None

        return await eventually(reached, f"{order_id} to be {status}", lambda: self._story(order_id))

    async def until_all(self, orders: Collection[Order], status: str) -> None:
        """Wait for the status of many orders for one product, as long as they get there one after the other."""
        [product_id] = {order.productId for order in orders}
        missing = {order.orderId for order in orders}

        async def got_there() -> set[str]:
            return missing & {one.orderId for one in await self.orders_for(product_id) if one.orderStatus == status}

        async def story() -> str:
            return f"{len(missing)} of {len(orders)} are missing: {await self._story(min(missing))}"

        while missing:
            missing -= await eventually(got_there, f"orders to be {status}", story)

    async def until_event(self, order_id: str, event: str) -> None:
        async def happened() -> bool:
            return event in await self.timeline(order_id)

        await eventually(happened, f"{event} of {order_id}", lambda: self._story(order_id))

    async def try_cancel(self, order: Order, by: dict[str, str] | None = None) -> httpx2.Response:
        """Cancel as the customer does, or whoever else: again while the shop says that it cannot tell yet."""
        who = by or bearer(order.userId)

        async def answered() -> httpx2.Response | None:
            answer = await self.http.post(f"/orders/{order.orderId}/cancel", headers=who)
            return None if answer.status_code == 503 else answer

        return await eventually(answered, f"an answer to cancelling {order.orderId}")

    async def cancel(self, order: Order) -> None:
        answer = await self.try_cancel(order)
        assert answer.status_code == 202, answer.text

    async def deliver(self, order_id: str) -> httpx2.Response:
        return await self.http.post(f"/deliveries/{order_id}/events", json={"event": "Delivered"}, headers=CARRIER)

    async def delivery(self, order_id: str) -> str | None:
        """Where the delivery team sees the goods; nothing where no delivery was ever started."""
        answer = await self.http.get(f"/deliveries/{order_id}", headers=OPERATOR)
        if answer.status_code == 404:
            return None
        return answer.raise_for_status().json()["deliveryStatus"]

    async def coupons(self, user: str) -> dict[str, Coupon]:
        """A customer's coupons by order."""
        answer = await self._get(self.http, "/coupons?limit=100", bearer(user))
        coupons = [Coupon.model_validate(item) for item in answer.json()["items"]]
        assert len({coupon.orderId for coupon in coupons}) == len(coupons)
        return {coupon.orderId: coupon for coupon in coupons}

    async def ledger(self) -> dict[str, LedgerRow]:
        """The payment provider's books, by order."""
        rows = [
            LedgerRow.model_validate(row) for row in (await self._get(self.payments, "/ledger", {})).json()["items"]
        ]
        assert len({row.orderId for row in rows}) == len(rows)
        return {row.orderId: row for row in rows}

    async def money(self, order_id: str) -> tuple[int, int]:
        """What was charged for an order, and what was given back."""
        row = (await self.ledger()).get(order_id)
        return (row.charged, row.refunded) if row else (0, 0)

    @property
    def log(self) -> str:
        """All that was said until now, by the shop's processes and of them."""
        return _log_of(self.data_dir).read_text()

    def pid(self, process: str) -> int:
        return Stack.read(self.data_dir).processes[process]

    def signal(self, process: str, number: signal.Signals) -> None:
        os.kill(self.pid(process), number)

    async def kill(self, *processes: str) -> None:
        """`kill -9`; returns once the supervisor has started each again (which does not make it ready)."""
        killed = {process: self.pid(process) for process in processes}
        for pid in killed.values():
            os.kill(pid, signal.SIGKILL)
        for process, pid in killed.items():
            await self.replaced(process, pid)

    @asynccontextmanager
    async def suspended(self, process: str) -> AsyncGenerator[None]:
        """While inside, a process stands still, and whoever asks it something hears nothing."""
        pid = self.pid(process)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @asynccontextmanager
    async def away(self, process: str) -> AsyncGenerator[None]:
        """While inside, a process is stopped and nobody starts it again.

        Its supervisor is made to hold still, and the process is asked to end: unlike one that is merely suspended, it
        then holds no task that it had polled.
        """
        pid = self.pid(process)
        os.kill(self.supervisor, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGTERM)

            async def ended() -> bool:
                return process_state(pid) in ("Z", "")

            await eventually(ended, f"{process} to end")
            yield
        finally:
            os.kill(self.supervisor, signal.SIGCONT)
        await self.replaced(process, pid)

    async def replaced(self, process: str, pid: int) -> None:
        """Wait until a process is another one than `pid`; that does not make it ready."""

        async def another() -> bool:
            return self.pid(process) != pid

        await eventually(another, f"{process} to be started again")

    async def _get(self, http: httpx2.AsyncClient, path: str, headers: dict[str, str]) -> httpx2.Response:
        """Read, as often as it takes: whoever answers may just have been killed."""

        async def answered() -> httpx2.Response | None:
            answer = await http.get(path, headers=headers)
            return None if answer.status_code == 503 else answer.raise_for_status()

        return await eventually(answered, f"an answer to GET {path}")

    async def _story(self, order_id: str) -> str:
        return f"{await self.order(order_id)} {await self.timeline(order_id)}"


def assert_paused(*answers: httpx2.Response) -> None:
    """Each was refused in the shop's own words, and told when to come back."""
    for answer in answers:
        assert (answer.status_code, answer.json().get("code")) == (503, "order-intake-paused"), answer.text
        assert int(answer.headers["Retry-After"]) >= 1


@asynccontextmanager
async def open_shop(data_dir: Path, settings: Mapping[str, str]) -> AsyncGenerator[Shop]:
    """A shop with these settings; ended as its user ends it, which must leave nothing behind."""
    log = _log_of(data_dir)
    TEST_ISSUER.keep_in(data_dir)
    own = {**dict.fromkeys(PORTS, "0"), **NO_RATE_LIMIT, "STREET12_DATA_DIR": str(data_dir)}
    with log.open("w") as output:
        opening = started("-m", "deploy.local", settings=own | {**settings}, stdout=output, stderr=output)
        async with opening as supervisor:
            process = supervisor.process

            async def opened() -> bool:
                if process.returncode is not None:
                    pytest.fail(f"the shop did not open: {log.read_text()}")
                return stack_file(data_dir).exists()

            await eventually(opened, "the shop to open")
            urls = Stack.read(data_dir).urls
            async with (
                httpx2.AsyncClient(base_url=urls.api, trust_env=False, timeout=15.0, limits=LIMITS) as http,
                httpx2.AsyncClient(base_url=urls.payments, trust_env=False, timeout=15.0) as payments,
            ):
                assert (await http.get("/readyz")).status_code == 200
                yield Shop(process.pid, data_dir, http, payments)
            status = await supervisor.end()
            said = log.read_text()
            assert status == 0, said
            assert "is killed" not in said, said
            assert not [private for private in PRIVATE if private in said], "the log tells who ordered"
            assert not stack_file(data_dir).exists()
            assert not processes_with(f"STREET12_DATA_DIR={data_dir}")


def _log_of(data_dir: Path) -> Path:
    return data_dir.with_name(f"{data_dir.name}.log")


async def eventually(
    look: Callable[[], Awaitable[T | None]], what: str, story: Callable[[], Awaitable[str]] | None = None
) -> T:
    """What `look` finds, once it finds something true. A connection that breaks meanwhile means: not yet."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    trouble = ""
    while asyncio.get_running_loop().time() < deadline:
        try:
            if found := await look():
                return found
        except httpx2.TransportError as error:
            trouble = f" ({error!r})"
        await asyncio.sleep(POLL_SECONDS)
    pytest.fail(f"waited in vain for {what}{trouble}: {await story() if story else ''}")


def process_state(pid: int) -> str:
    """The kernel's letter for a process: `Z` for one that ended and was not fetched, nothing for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def processes_with(setting: str) -> Sequence[int]:
    """The processes that run with a setting in their environment."""
    found: list[int] = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            try:
                if setting.encode() in (directory / "environ").read_bytes().split(b"\0"):
                    found.append(int(directory.name))
            except OSError:
                continue
    return found
