"""How an order is accepted: one transaction, after which it is promised to the customer."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from services.order import repository
from services.order.errors import IdempotencyKeyReused, OutOfStock, PriceChanged, UnknownProduct
from services.order.statuses import DeliveryStatus, EventType, OrderStatus, PayStatus
from services.order.tables import IdempotencyKey, Order, OrderEvent, OrderView, Product
from services.shared.clock import Clock, utc_now
from services.shared.database import Database, insert_if_new
from services.shared.ids import NewId, new_order_id


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
class Accepted:
    """An accepted order; `replayed` when an earlier request had brought it."""

    order: Order
    replayed: bool


class Acceptance:
    """Accepts orders. `lease` is how long a new order is left to the process that accepted it."""

    def __init__(
        self, database: Database, *, lease: timedelta, clock: Clock = utc_now, new_id: NewId = new_order_id
    ) -> None:
        self._database = database
        self._lease = lease
        self._clock = clock
        self._new_id = new_id

    async def accept(
        self, *, user_id: str, idempotency_key: str, request: NewOrder, known_out_of_stock: bool = False
    ) -> Accepted:
        """Accept a request, once for each key of its caller: a repetition answers the order that is there.

        A refusal leaves nothing behind, the key included. Raises `IdempotencyKeyReused`, `OutOfStock`,
        `UnknownProduct`, `PriceChanged`.
        """
        now = self._clock()
        # One id for all attempts at the transaction: an order that a lost commit left behind is then known as ours.
        order_id = self._new_id()
        key = IdempotencyKey(
            user_id=user_id,
            idempotency_key=idempotency_key,
            fingerprint=_fingerprint(request),
            order_id=order_id,
            created_at=now,
        )

        async def work(session: repository.AsyncSession) -> Accepted:
            if not await insert_if_new(session, key):
                known = await repository.order_of_key(session, user_id, idempotency_key)
                if known is None or known[0] != key.fingerprint:
                    raise IdempotencyKeyReused(idempotency_key)
                return Accepted(order=known[1], replayed=known[1].order_id != order_id)
            if known_out_of_stock:
                raise OutOfStock(request.product_id)
            product = await repository.product(session, request.product_id)
            if product is None:
                raise UnknownProduct(request.product_id)
            if request.product_price not in (None, product.product_price):
                raise PriceChanged(request.product_id)
            order = self._order(order_id, user_id, request, product, now)
            await repository.add_order(session, order, _view(order), _received(order))
            return Accepted(order=order, replayed=False)

        return await self._database.write(work)

    def _order(self, order_id: str, user_id: str, request: NewOrder, product: Product, now: datetime) -> Order:
        return Order(
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
        )


def _view(order: Order) -> OrderView:
    return OrderView(
        order_id=order.order_id,
        user_id=order.user_id,
        order_status=OrderStatus.ORDER_RECEIVED,
        pay_status=PayStatus.NOT_PAID,
        delivery_status=DeliveryStatus.NONE,
        version=1,
        updated_at=order.order_date,
    )


def _received(order: Order) -> OrderEvent:
    return OrderEvent(order_id=order.order_id, version=1, type=EventType.ORDER_RECEIVED, at=order.order_date)


def _fingerprint(request: NewOrder) -> str:
    canonical = json.dumps(asdict(request), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
