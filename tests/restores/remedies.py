"""What a person does after a restore, as docs/data.md and docs/operations.md say."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlmodel import SQLModel, col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.client import Client, WorkflowExecution

from deploy.history_key import codec_settings
from deploy.stack import Stack
from services.delivery.deliveries import DeliveryState
from services.delivery.stock import MovementKind
from services.delivery.tables import Delivery, Stock, StockMovement
from services.marketing.tables import Coupon as CouponRow
from services.order.comparison import Code
from services.order.payments import PaymentState
from services.order.provider import Charge, StripeProvider
from services.order.statuses import DeliveryStatus, EventType, OrderStatus, PayStatus
from services.order.tables import Order as OrderRow
from services.order.tables import OrderEvent, OrderView, Payment
from services.shared.clock import utc_now
from services.shared.database import Database, insert_if_new
from services.shared.settings import TEAMS, DatabaseSettings, PaymentSettings, Team
from tests.e2e.shop import OPERATOR, Order, Shop, eventually
from tests.payments import running_simulator
from tests.restores.cast import ON_HAND, QTY, RESTOCKED, Cast, Part
from tests.restores.runs import Found
from workflows.client import data_converter
from workflows.codec import history_codec
from workflows.messages import PlaceOrder


@dataclass(frozen=True)
class Hands:
    """A person with access to everything."""

    shop: Shop
    cast: Cast
    databases: dict[Team, Database]
    engine: Client
    provider: StripeProvider

    async def put(self, team: Team, *rows: SQLModel) -> None:
        """Enter rows that are not there."""

        async def work(session: AsyncSession) -> None:
            for row in rows:
                await insert_if_new(session, row.model_copy())

        await self.databases[team].write(work)

    async def clear(self, order_id: str) -> None:
        """Note that what the order was flagged for is seen to."""

        async def cleared() -> bool:
            body = {"reason": "seen to after the restore"}
            answer = await self.shop.http.post(f"/orders/{order_id}/clearances", json=body, headers=OPERATOR)
            return answer.status_code == 202 or answer.json().get("code") == "not-flagged"

        async def read() -> bool:
            return not (await self.shop.order(order_id)).needsAttention

        await eventually(cleared, f"the flag of {order_id} to be cleared")
        await eventually(read, f"{order_id} to read so")

    async def cancel(self, order_id: str) -> None:
        order = await self.shop.order(order_id)
        answer = await self.shop.try_cancel(order, OPERATOR)
        assert answer.status_code == 202, answer.text
        await self.shop.until(order_id, "OrderCanceled")


@asynccontextmanager
async def hands(shop: Shop, cast: Cast) -> AsyncGenerator[Hands]:
    urls = Stack.read(shop.data_dir).urls
    settings = DatabaseSettings(data_dir=shop.data_dir)
    converter = data_converter(history_codec(codec_settings(shop.data_dir)))
    async with AsyncExitStack() as stack:
        databases: dict[Team, Database] = {team: Database(settings.url(team)) for team in TEAMS}
        for database in databases.values():
            stack.push_async_callback(database.close)
        provider = await stack.enter_async_context(_provider(urls.payments))
        engine = await Client.connect(urls.temporal, data_converter=converter)
        yield Hands(shop, cast, databases, engine, provider)


@asynccontextmanager
async def _provider(url: str) -> AsyncGenerator[StripeProvider]:
    provider = StripeProvider(PaymentSettings(url=url, key=SecretStr("sk_test_local")))
    try:
        yield provider
    finally:
        await provider.close()


async def _charges(provider: StripeProvider) -> list[Charge]:
    """The provider's list of what was charged."""
    now, found, after, more = utc_now(), list[Charge](), None, True
    while more:
        since, until = now - timedelta(days=1), now + timedelta(minutes=1)
        page = await provider.list_charges(since=since, until=until, after=after)
        found += page.charges
        more, after = page.more, found[-1].intent_id if found else None
    return [charge for charge in found if charge.amount_received]


def _with(found: Sequence[Found], code: Code) -> list[str]:
    return sorted({one.subject for one in found if one.code == code})


async def _clear_flagged(person: Hands, found: Sequence[Found]) -> None:
    for order_id in sorted({one.subject for one in found if one.outcome == "flagged"}):
        await person.clear(order_id)


# The order database.


async def enter_orders(person: Hands, found: Sequence[Found]) -> None:
    """Orders from their workflows' inputs, then payments from the provider's list; the rest the workflows tell."""
    known = {*await _ids(person.databases["order"])}
    async for run in person.engine.list_workflows("WorkflowType = 'OrderWorkflow'"):
        if run.id not in known:
            history = await person.engine.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
            started = history.events[0].workflow_execution_started_event_attributes
            [placed] = await person.engine.data_converter.decode(started.input.payloads, [PlaceOrder])
            await person.put("order", *_rows(placed, run))
    await _note_payments(person.databases["order"], person.provider)
    await _clear_flagged(person, found)


async def _ids(database: Database) -> Sequence[str]:
    async def work(session: AsyncSession) -> Sequence[str]:
        return (await session.exec(select(OrderRow.order_id))).all()

    return await database.read(work)


def _rows(placed: PlaceOrder, run: WorkflowExecution) -> list[SQLModel]:
    at, unknown = run.start_time, "ask the customer"
    return [
        OrderRow(
            order_id=placed.order_id,
            user_id=placed.user_id,
            product_id=placed.product_id,
            product_name=placed.product_name,
            product_price=placed.amount // placed.qty,
            qty=placed.qty,
            amount=placed.amount,
            currency=placed.currency,
            username=unknown,
            address=unknown,
            phone_no=unknown,
            payment_method=placed.payment_method,
            order_date=at,
            started_at=at,
            claimed_until=at,
        ),
        OrderView(
            order_id=placed.order_id,
            user_id=placed.user_id,
            order_status=OrderStatus.ORDER_RECEIVED,
            pay_status=PayStatus.NOT_PAID,
            delivery_status=DeliveryStatus.NONE,
            updated_at=at,
        ),
        OrderEvent(order_id=placed.order_id, version=1, type=EventType.ORDER_RECEIVED, at=at),
    ]


async def note_payments_first(data_dir: Path) -> None:
    """Before the shop opens: what the provider's list says of the orders that there are."""
    database = Database(DatabaseSettings(data_dir=data_dir).url("order"))
    try:
        async with running_simulator(data_dir / "payments.db") as url, _provider(url) as provider:
            await _note_payments(database, provider)
    finally:
        await database.close()


async def _note_payments(database: Database, provider: StripeProvider) -> None:
    known, now = {*await _ids(database)}, utc_now()
    for charge in await _charges(provider):
        if charge.order_id not in known:
            continue
        payment = Payment(
            order_id=charge.order_id,
            state=PaymentState.PAID if charge.amount_received > charge.amount_refunded else PaymentState.REFUNDED,
            amount=charge.amount,
            currency=charge.currency,
            intent_id=charge.intent_id,
            updated_at=now,
        )
        await database.write(partial(_enter_payment, payment=payment))


async def _enter_payment(session: AsyncSession, payment: Payment) -> None:
    if not await insert_if_new(session, payment.model_copy()):
        other = update(Payment).where(col(Payment.order_id) == payment.order_id, col(Payment.state) != payment.state)
        await session.exec(other.values(**payment.model_dump(include={"state", "intent_id", "updated_at"})))


# The delivery database.


async def enter_deliveries(person: Hands, found: Sequence[Found]) -> None:
    """Deliveries and movements as the orders say they happened, one order cancelled instead; then the count."""
    now, product_id = utc_now(), person.cast.product_id
    missing = _with(found, Code.DELIVERY_MISSING)
    canceled = person.cast.ids[Part.NEW_UNDER_WAY]
    for order_id in missing:
        if order_id == canceled:
            await person.cancel(order_id)
            continue
        delivered = (await person.shop.order(order_id)).orderStatus == OrderStatus.DELIVERED
        state = DeliveryState.DELIVERED if delivered else DeliveryState.STARTED
        await person.put(
            "delivery",
            Delivery(order_id=order_id, product_id=product_id, qty=QTY, state=state, started_at=now, updated_at=now),
        )
    for order_id in _with(found, Code.STOCK_NOT_SOLD):
        if order_id != canceled:
            await _move(person, order_id, MovementKind.SALE, -QTY)
    for order_id in _with(found, Code.STOCK_NOT_RESTORED):
        await _move(person, order_id, MovementKind.RESTORE, QTY)

    async def call_off(session: AsyncSession) -> None:
        wrong = col(Delivery.order_id).in_(_with(found, Code.DELIVERY_THOUGH_CANCELED))
        await session.exec(update(Delivery).where(wrong).values(state=DeliveryState.CANCELED, updated_at=now))

    await person.databases["delivery"].write(call_off)
    await person.shop.move_stock(product_id, RESTOCKED)
    await person.shop.move_stock(person.cast.new_product_id, ON_HAND)
    await _clear_flagged(person, found)


async def _move(person: Hands, order_id: str, kind: MovementKind, qty: int) -> None:
    now, product_id = utc_now(), person.cast.product_id
    movement = StockMovement(
        reference=order_id, kind=kind, product_id=product_id, qty=qty, reason="entered after the restore", at=now
    )

    async def work(session: AsyncSession) -> None:
        if await insert_if_new(session, movement.model_copy()):
            stock = update(Stock).where(col(Stock.product_id) == product_id)
            await session.exec(stock.values(on_hand=col(Stock.on_hand) + qty, updated_at=now))

    await person.databases["delivery"].write(work)


# The marketing database.


async def enter_coupons(person: Hands, found: Sequence[Found]) -> None:
    """Coupons that orders read as having, under the id that they read; those of cancelled orders revoked."""
    now = utc_now()
    for order_id in _with(found, Code.COUPON_MISSING):
        reads = (await person.shop.http.get(f"/orders/{order_id}", headers=OPERATOR)).raise_for_status().json()
        coupon = CouponRow(
            order_id=order_id,
            coupon_id=reads["couponId"],
            user_id=reads["userId"],
            coupon_kind=reads["couponKind"],
            issued_at=now,
        )
        await person.put("marketing", coupon)

    async def revoke(session: AsyncSession) -> None:
        wrong = col(CouponRow.order_id).in_(_with(found, Code.COUPON_THOUGH_CANCELED))
        await session.exec(update(CouponRow).where(wrong).values(revoked_at=now))

    await person.databases["marketing"].write(revoke)
    await _clear_flagged(person, found)


# The engine.


async def tell_again(person: Hands, found: Sequence[Found]) -> None:
    """The workflows of orders that have ended, what they forgot. Those that ended differently call a person."""
    for order_id in _with(found, Code.VIEW_AHEAD):
        handle: Any = person.engine.get_workflow_handle(order_id)
        status = (await person.shop.order(order_id)).orderStatus
        if status == OrderStatus.DELIVERED:
            await handle.execute_update("delivered")
        elif status == OrderStatus.ORDER_CANCELED:
            await handle.cancel()
    for order in await _flagged(person.shop):
        await person.clear(order.orderId)


async def _flagged(shop: Shop) -> list[Order]:
    answer = await shop.http.get("/orders?needsAttention=true&limit=100", headers=OPERATOR)
    return [Order.model_validate(item) for item in answer.raise_for_status().json()["items"]]


# Everything at once.


async def give_back(person: Hands, found: Sequence[Found]) -> None:
    """Charges for orders that nobody knows are refunded at the provider, refunded orders cancelled, and the carrier
    tells again what it handed over."""
    unknown = _with(found, Code.CHARGE_WITHOUT_ORDER)
    for charge in await _charges(person.provider):
        if charge.order_id in unknown:
            await person.provider.refund(
                order_id=charge.order_id, intent_id=charge.intent_id, amount=charge.amount_received
            )
    for order_id in _with(found, Code.PAYMENT_MISSING):
        await person.cancel(order_id)
    await person.cast.deliver(person.shop, Part.ARRIVED)
    await _clear_flagged(person, found)


REMEDIES: dict[str, Callable[[Hands, Sequence[Found]], Awaitable[None]]] = {
    "order": enter_orders,
    "delivery": enter_deliveries,
    "marketing": enter_coupons,
    "engine": tell_again,
    "all four": give_back,
}
