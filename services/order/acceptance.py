"""How an order is accepted: one transaction, after which it is promised to the customer.

First a look, which takes no lock and turns away whoever must be turned away; then, for the others, the transaction
that puts the order in. Orders that come at the same time share both (`Together`).
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy.exc import DBAPIError, IntegrityError

from services.order import repository
from services.order.admission import Admission
from services.order.book import OrderReading
from services.order.circuit import Intake, Standing
from services.order.errors import IdempotencyKeyReused, OrderIntakePaused, OutOfStock, PriceChanged, UnknownProduct
from services.order.repository import CallersKey
from services.order.statuses import DeliveryStatus, EventType, OrderStatus, PayStatus
from services.order.tables import IdempotencyKey, Order, OrderEvent, OrderView, Product
from services.shared.clock import Clock, utc_now
from services.shared.database import Database, is_duplicate
from services.shared.errors import DatabaseUnavailable, ShopError
from services.shared.ids import NewId, new_order_id
from services.shared.together import Together

_LOOKS = 5
"""How often an order may be overtaken between look and transaction until it is told to come back."""


@dataclass(frozen=True, kw_only=True)
class NewOrder:
    """What a customer asks for. `product_price` is the price that they saw, if they say so."""

    product_id: str
    qty: int
    username: str
    address: str
    phone_no: str
    payment_method: str
    product_price: int | None = None


@dataclass(frozen=True, kw_only=True)
class Accepted(OrderReading):
    """An accepted order as it stands; `replayed` when an earlier request had brought it."""

    replayed: bool


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """A request, the caller's key and the trace that it came with, and the id that its order will have."""

    key: CallersKey
    request: NewOrder
    traceparent: str | None
    order_id: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class _NewRows:
    """What a new order is put in as. Only what is answered is made an object: that is what costs most."""

    wish: _Wish
    order: Order
    view: OrderView
    key: dict[str, object]
    event: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a look found: where the intake stands, orders of the keys that came, products that are wished for."""

    standing: Standing
    known: dict[CallersKey, tuple[IdempotencyKey, Order, OrderView]]
    products: dict[str, Product]

    def answer(self, wish: _Wish, on_hand: Mapping[str, int]) -> Accepted | ShopError | None:
        """The order that the wish's key stands for, or why there can be none; nothing if there can be a new one."""
        if found := self.known.get(wish.key):
            key, order, view = found
            if key.fingerprint != _fingerprint(wish.request):
                return IdempotencyKeyReused(key.idempotency_key)
            return Accepted(order, view, replayed=order.order_id != wish.order_id)
        product_id, price, qty = wish.request.product_id, wish.request.product_price, wish.request.qty
        if (product := self.products.get(product_id)) is None:
            return UnknownProduct(product_id)
        if price not in (None, product.product_price):
            return PriceChanged(product_id)
        return OutOfStock(product_id) if on_hand.get(product_id, qty) < qty else None

    def paused(self) -> OrderIntakePaused:
        """Why nobody gets in, or nobody else. The last place may be on its way to be taken in this very process."""
        intake = self.standing.intake
        reason = Intake.PAYMENTS_PENDING if intake is Intake.OPEN else intake
        return OrderIntakePaused(reason, self.standing.retry_after_seconds)


class _Overtaken(Exception):
    """Somebody else took the key, or the last place, between look and transaction. Nothing was put in."""


OnHand = Callable[[Collection[str]], Awaitable[Mapping[str, int]]]
"""How many pieces there are of some products, of those of which it is known. Answers in a moment, and never raises."""


async def _nothing_known(_: Collection[str]) -> Mapping[str, int]:
    return {}


class Acceptance:
    """Accepts orders. `lease` is how long a new order is left to the process that accepted it."""

    def __init__(
        self,
        database: Database,
        admission: Admission,
        *,
        lease: timedelta,
        on_hand: OnHand = _nothing_known,
        clock: Clock = utc_now,
        new_id: NewId = new_order_id,
    ) -> None:
        self._database = database
        self._admission = admission
        self._lease = lease
        self._on_hand = on_hand
        self._clock = clock
        self._new_id = new_id
        self._on_their_way = Counter[CallersKey]()  # between look and transaction, where no other look can see them
        self._look = Together(self._look_at)
        self._put_in = Together(self._put_in_all)

    async def accept(
        self, *, user_id: str, idempotency_key: str, request: NewOrder, traceparent: str | None = None
    ) -> Accepted:
        """Accept a request, once for each key of its caller: a repetition answers the order that is there.

        The order keeps the `traceparent` of the request that brought it. A repetition may well have another.
        A refusal leaves nothing behind, the key included. Raises `IdempotencyKeyReused`, `OutOfStock`,
        `UnknownProduct`, `PriceChanged`, `OrderIntakePaused`.
        """
        # One id for all attempts: an order that a lost commit left behind is then known as ours.
        key, order_id = (user_id, idempotency_key), self._new_id()
        wish = _Wish(key=key, request=request, traceparent=traceparent, order_id=order_id, at=self._clock())
        for _ in range(_LOOKS):
            seen = await self._look.ask(wish)
            if isinstance(seen, Accepted):
                return seen
            self._on_their_way[key] += 1
            try:
                return await self._put_in.ask(seen)
            except _Overtaken:
                continue
            finally:
                self._on_their_way -= Counter([key])
        raise OrderIntakePaused(Intake.PAYMENTS_PENDING, retry_after_seconds=1)

    async def _look_at(self, wishes: Sequence[_Wish]) -> list[Accepted | _NewRows | ShopError]:
        """What becomes of each wish, as far as can be said without a lock."""

        product_ids = {wish.request.product_id for wish in wishes}

        async def work(session: repository.AsyncSession) -> _Seen:
            # Before the keys: an order that takes a place here is known by its key there.
            standing = await self._admission.look(session)
            known = await repository.orders_of_keys(session, {wish.key for wish in wishes})
            products = await repository.products_of(session, product_ids)
            return _Seen(
                standing=standing,
                known={(found[0].user_id, found[0].idempotency_key): found for found in known},
                products={product.product_id: product for product in products},
            )

        # Before anybody gets a place: what is sold out must not keep the others out.
        on_hand, seen = await asyncio.gather(self._on_hand(product_ids), self._database.read(work))
        admitted = set(self._on_their_way)
        answers: list[Accepted | _NewRows | ShopError] = []
        for wish in wishes:
            answer = seen.answer(wish, on_hand)
            if answer is None and (wish.key in admitted or len(admitted) < seen.standing.room):
                admitted.add(wish.key)
                answer = self._new_rows(wish, seen.products[wish.request.product_id])
            answers.append(answer or seen.paused())
        return answers

    async def _put_in_all(self, orders: Sequence[_NewRows]) -> list[Accepted | Exception]:
        """Put orders in, of those with the same key the first."""
        firsts: dict[CallersKey, _NewRows] = {}
        for one in orders:
            firsts.setdefault(one.wish.key, one)
        # In the order of their keys: two processes that put in the same ones wait for each other one way round only.
        failures = await self._failures(sorted(firsts.values(), key=lambda one: one.wish.key))
        answers: list[Accepted | Exception] = []
        for one in orders:
            failure = failures.get(one.order.order_id) if firsts[one.wish.key] is one else _Overtaken()
            answers.append(failure or Accepted(one.order, one.view, replayed=False))
        return answers

    async def _failures(self, orders: Sequence[_NewRows]) -> dict[str, Exception]:
        """Put orders in, together if that can be, and say which could not be, and why. Raises `DatabaseUnavailable`."""
        try:
            await self._transaction(orders)
        except (_Overtaken, DBAPIError) as error:
            if len(orders) == 1:
                return {orders[0].order.order_id: error}
        else:
            return {}
        failures: dict[str, Exception] = {}
        for place, one in enumerate(orders):
            try:
                failures |= await self._failures([one])
            except DatabaseUnavailable as error:  # those before are in
                return failures | {left.order.order_id: error for left in orders[place:]}
        return failures

    async def _transaction(self, orders: Sequence[_NewRows]) -> None:
        async def work(session: repository.AsyncSession) -> None:
            try:
                await repository.add_rows(session, IdempotencyKey, [one.key for one in orders])
            except IntegrityError as error:
                if is_duplicate(error):
                    raise _Overtaken from error
                raise
            await repository.add_rows(session, Order, [one.order.model_dump() for one in orders])
            await repository.add_rows(session, OrderView, [one.view.model_dump() for one in orders])
            await repository.add_rows(session, OrderEvent, [one.event for one in orders])
            if not await self._admission.take(session, [one.order.order_id for one in orders]):
                raise _Overtaken

        await self._database.write(work)

    def _new_rows(self, wish: _Wish, product: Product) -> _NewRows:
        request, order_id, now = wish.request, wish.order_id, wish.at
        user_id, idempotency_key = wish.key
        return _NewRows(
            wish=wish,
            order=Order(
                order_id=order_id,
                user_id=user_id,
                product_id=product.product_id,
                product_name=product.product_name,
                product_price=product.product_price,
                qty=request.qty,
                amount=product.product_price * request.qty,
                currency=product.currency,
                username=request.username,
                address=request.address,
                phone_no=request.phone_no,
                payment_method=request.payment_method,
                order_date=now,
                claimed_until=now + self._lease,
                traceparent=wish.traceparent,
            ),
            view=OrderView(
                order_id=order_id,
                user_id=user_id,
                order_status=OrderStatus.ORDER_RECEIVED,
                pay_status=PayStatus.NOT_PAID,
                delivery_status=DeliveryStatus.NONE,
                version=1,
                updated_at=now,
            ),
            key={
                "user_id": user_id,
                "idempotency_key": idempotency_key,
                "fingerprint": _fingerprint(request),
                "order_id": order_id,
                "created_at": now,
            },
            event={"order_id": order_id, "version": 1, "type": EventType.ORDER_RECEIVED, "at": now, "detail": {}},
        )


def _fingerprint(request: NewOrder) -> str:
    canonical = json.dumps(asdict(request), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
