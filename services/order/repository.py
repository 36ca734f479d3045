"""All SQL of the order team."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy import bindparam, insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, and_, col, delete, func, or_, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import Select, SelectOfScalar

from services.order.statuses import OrderState, OrderStatus
from services.order.tables import AdmissionState, IdempotencyKey, Order, OrderEvent, OrderView, Payment, Product
from services.shared.database import UtcDateTime, change, insert_if_new
from services.shared.ids import first_order_id

CallersKey = tuple[str, str]
"""Who calls, and the Idempotency-Key that they gave."""
_ID_SLACK = timedelta(seconds=10)
"""How far the time in an order's id may be from its date. The two are taken one right after the other."""


# Made once: a statement takes longer to make than to run.
_MOVE_VIEW = (
    update(OrderView)
    .where(col(OrderView.order_id) == bindparam("moved"), col(OrderView.version) < bindparam("version"))
    .values(
        {name: bindparam(name) for name in (*(field.name for field in fields(OrderState)), "version", "updated_at")}
    )
)
# Of these, what is set are the columns among the parameters.
_MOVE_PAYMENT = update(Payment).where(
    col(Payment.order_id) == bindparam("moved"), col(Payment.state).in_(bindparam("sources", expanding=True))
)
_SET_INTENT = update(Payment).where(col(Payment.order_id) == bindparam("noted"), col(Payment.intent_id).is_(None))
_SET_INTENT_IN_STATE = _SET_INTENT.where(col(Payment.state) == bindparam("source"))
_SET_ADMISSION = update(AdmissionState).where(col(AdmissionState.name) == bindparam("of"))
_ORDERS_OF_IDS = (
    select(Order, OrderView)
    .join(OrderView, col(OrderView.order_id) == col(Order.order_id))
    .where(col(Order.order_id).in_(bindparam("wanted", expanding=True)))
)
_MARK_STARTED = (
    update(Order)
    .where(col(Order.order_id).in_(bindparam("started", expanding=True)))
    # A condition on `started_at` would be a second index to go by, and so to lock others' orders on the way.
    .values(started_at=func.coalesce(col(Order.started_at), bindparam("at", type_=UtcDateTime)))
)


async def products(session: AsyncSession) -> Sequence[Product]:
    return (await session.exec(select(Product).order_by(col(Product.product_id)))).all()


async def product(session: AsyncSession, product_id: str) -> Product | None:
    return await session.get(Product, product_id)


async def change_product(session: AsyncSession, changed: Product) -> bool:
    """Give a product new values; says whether it is there."""
    count = await change(
        session,
        update(Product)
        .where(col(Product.product_id) == changed.product_id)
        .values(**changed.model_dump(exclude={"product_id"})),
    )
    return count == 1


async def products_of(session: AsyncSession, product_ids: Collection[str]) -> Sequence[Product]:
    return (await session.exec(select(Product).where(col(Product.product_id).in_(product_ids)))).all()


async def orders_of_keys(
    session: AsyncSession, keys: Collection[CallersKey]
) -> Sequence[tuple[IdempotencyKey, Order, OrderView]]:
    """The orders that callers' keys stand for, of those keys that stand for one."""
    asked = [*keys]
    asked += asked[-1:] * ((1 << (len(asked) - 1).bit_length()) - len(asked))  # up to the next power of two
    given: dict[str, str] = {}
    for number, (user_id, key) in enumerate(asked):
        given |= {f"user_{number}": user_id, f"key_{number}": key}
    return (await session.exec(_of_keys(len(asked)), params=given)).all()


@cache
def _of_keys(count: int) -> Select[IdempotencyKey, Order, OrderView]:
    """The statement for so many keys; made once for each power of two, because it takes longer to make than to run."""
    pairs = (
        and_(
            IdempotencyKey.user_id == bindparam(f"user_{number}"),
            IdempotencyKey.idempotency_key == bindparam(f"key_{number}"),
        )
        for number in range(count)
    )
    return (
        select(IdempotencyKey, Order, OrderView)
        .join(Order, col(Order.order_id) == col(IdempotencyKey.order_id))
        .join(OrderView, col(OrderView.order_id) == col(IdempotencyKey.order_id))
        .where(or_(*pairs))  # not as pairs in a list: SQLite would read the whole table
    )


async def add_rows(session: AsyncSession, table: type[SQLModel], rows: Sequence[Mapping[str, object]]) -> None:
    """Put new rows in, in one statement."""
    await change(session, insert(table), rows)


async def admission(session: AsyncSession, name: str, *, lock: bool = False) -> AdmissionState | None:
    """What a circuit breaker knows; locked, until the end of the transaction nobody else can lock it."""
    statement = select(AdmissionState).where(AdmissionState.name == name)
    return (await session.exec(statement.with_for_update() if lock else statement)).one_or_none()


async def set_admission(session: AsyncSession, state: AdmissionState) -> None:
    await change(session, _SET_ADMISSION, {"of": state.name, **state.model_dump(exclude={"name"})})


async def waiting_in(session: AsyncSession, status: str) -> tuple[int, datetime | None]:
    """How many orders stand at a status, and since when the one does that came first."""
    counted = (await session.exec(select(func.count()).where(OrderView.order_status == status))).one()
    first = select(OrderView.updated_at).where(OrderView.order_status == status).order_by(col(OrderView.order_id))
    return counted, (await session.exec(first.limit(1))).first()


async def needing_attention(session: AsyncSession, status: str | None = None) -> int:
    """How many orders need attention; with a status, of those that stand there."""
    # Not `.is_(…)`: MySQL uses no index for `IS true`.
    statement = select(func.count()).where(OrderView.needs_attention == True)  # noqa: E712
    if status is not None:
        statement = statement.where(OrderView.order_status == status)
    return (await session.exec(statement)).one()


async def unstarted(session: AsyncSession) -> tuple[int, datetime | None]:
    """How many accepted orders have no workflow yet, and since when one of them has been waiting for it at most."""
    none = col(Order.started_at).is_(None)
    counted = (await session.exec(select(func.count()).where(none))).one()
    return counted, (await session.exec(select(func.min(Order.order_date)).where(none))).one()


async def has_claimable(session: AsyncSession, now: datetime) -> bool:
    """Whether there is an order that has no workflow and belongs to nobody."""
    return (await session.exec(_claimable(now).limit(1))).first() is not None


async def claim(session: AsyncSession, *, now: datetime, until: datetime, limit: int) -> Sequence[Order]:
    """Take orders that have no workflow and belong to nobody, those that waited longest first.

    Those that another transaction is just changing are neither taken nor waited for (on SQLite there is no other).
    """
    orders = (await session.exec(_claimable(now).limit(limit).with_for_update(skip_locked=True))).all()
    if orders:
        order_ids = [order.order_id for order in orders]
        # Through the session, so that these very objects say it, too.
        await session.exec(update(Order).where(col(Order.order_id).in_(order_ids)).values(claimed_until=until))
    return orders


def _claimable(now: datetime) -> SelectOfScalar[Order]:
    return (
        select(Order)
        .where(col(Order.started_at).is_(None), col(Order.claimed_until) <= now)
        .order_by(col(Order.claimed_until), col(Order.order_id))
    )


async def mark_started(session: AsyncSession, order_ids: Sequence[str], at: datetime) -> None:
    """Note that orders have their workflows; one that was noted before keeps its time."""
    await change(session, _MARK_STARTED, {"started": order_ids, "at": at})


async def forget_keys(session: AsyncSession, *, before: datetime, limit: int) -> bool:
    """Delete keys that came before a moment, the oldest so many; says whether there may be more of them.

    Those of the same microsecond go together.
    """
    created = col(IdempotencyKey.created_at)
    oldest = select(IdempotencyKey.created_at).where(created < before).order_by(created)
    last = (await session.exec(oldest.offset(limit - 1).limit(1))).first()
    await change(session, delete(IdempotencyKey).where(created < before if last is None else created <= last))
    return last is not None


async def payment_of_order(session: AsyncSession, order_id: str) -> Payment | None:
    return await session.get(Payment, order_id, populate_existing=True)


async def set_intent(session: AsyncSession, order_id: str, *, intent_id: str, state: str | None = None) -> bool:
    """Note a payment's intent unless one was noted before; says whether it did. With `state`, only in that one."""
    noted = {"noted": order_id, "intent_id": intent_id}
    if state is None:
        return await change(session, _SET_INTENT, noted) == 1
    return await change(session, _SET_INTENT_IN_STATE, {**noted, "source": state}) == 1


async def move_payment(
    session: AsyncSession,
    order_id: str,
    *,
    sources: Sequence[str],
    target: str,
    at: datetime,
    decline_code: str | None = None,
) -> bool:
    """Bring a payment from one of some states to another; says whether it was in one of the first."""
    moved = {"moved": order_id, "sources": sources, "state": target, "decline_code": decline_code, "updated_at": at}
    return await change(session, _MOVE_PAYMENT, moved) == 1


async def add_events(session: AsyncSession, events: Sequence[OrderEvent]) -> None:
    """Put on the timelines those of the events that are not there yet."""
    try:
        await add_rows(session, OrderEvent, [event.model_dump() for event in events])
    except IntegrityError:  # MySQL takes all of them back, SQLite only the one that was refused
        for event in events:
            await insert_if_new(session, event)


@dataclass(frozen=True, kw_only=True)
class Move:
    """Where an order stands at a version, and since when."""

    order_id: str
    state: OrderState
    version: int
    at: datetime


async def move_views(session: AsyncSession, moves: Sequence[Move]) -> None:
    """Bring orders' views to these versions, but those that are there or further already."""
    await change(
        session,
        _MOVE_VIEW,
        [
            {
                **asdict(move.state),
                "moved": move.order_id,
                "version": move.version,
                "updated_at": move.at,
            }
            for move in moves
        ],
    )


async def orders_of_ids(session: AsyncSession, order_ids: Collection[str]) -> Sequence[tuple[Order, OrderView]]:
    """These orders and where they stand, of those that there are."""
    return (await session.exec(_ORDERS_OF_IDS, params={"wanted": [*order_ids]})).all()


async def orders_with_views(
    session: AsyncSession,
    *,
    user_id: str | None,
    order_status: str | None,
    needs_attention: bool | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    before: str | None,
) -> Sequence[tuple[Order, OrderView]]:
    """Orders that came at `since` or later and before `until`, newest first, starting after the order `before`."""
    statement = select(Order, OrderView).select_from(OrderView).join(Order, col(Order.order_id) == OrderView.order_id)
    # The views first: by them it is sorted. Where the statistics are off, MySQL reads all orders and sorts those.
    statement = statement.prefix_with("STRAIGHT_JOIN", dialect="mysql")
    index = _index_of_list(user_id, order_status, needs_attention)
    if index is not None:
        # Unasked, MySQL sorts what two filters leave, and passes over all that is newer than `before`.
        statement = statement.with_hint(OrderView, f"FORCE INDEX ({index})")
    if user_id is not None:
        statement = statement.where(OrderView.user_id == user_id)
    if order_status is not None:
        statement = statement.where(OrderView.order_status == order_status)
    if needs_attention is not None:
        # Not `.is_(…)`: MySQL uses no index for `IS true`.
        statement = statement.where(OrderView.needs_attention == needs_attention)
    # Every index of the list goes on by order id, and ids go by time: so no filter needs an index with the date.
    if since is not None:
        statement = statement.where(
            col(OrderView.order_id) >= first_order_id(since - _ID_SLACK), col(Order.order_date) >= since
        )
    if until is not None:
        statement = statement.where(
            col(OrderView.order_id) < first_order_id(until + _ID_SLACK), col(Order.order_date) < until
        )
    if before is not None:
        statement = statement.where(col(OrderView.order_id) < before)
    return (await session.exec(statement.order_by(col(OrderView.order_id).desc()).limit(limit))).all()


async def pending_payments(session: AsyncSession) -> int:
    """How many orders are accepted while their payment is in flight."""
    statement = select(func.count()).where(OrderView.order_status == OrderStatus.ORDER_RECEIVED)
    return (await session.exec(statement)).one()


async def pending_order(session: AsyncSession, *, newest: bool) -> OrderView | None:
    """The order whose payment has been in flight for longest, or for the shortest time."""
    by_age = col(OrderView.order_id).desc() if newest else col(OrderView.order_id)
    statement = select(OrderView).where(OrderView.order_status == OrderStatus.ORDER_RECEIVED)
    return (await session.exec(statement.order_by(by_age).limit(1))).one_or_none()


async def view_of_order(session: AsyncSession, order_id: str) -> OrderView | None:
    return await session.get(OrderView, order_id)


async def progress_of_orders(session: AsyncSession, order_ids: Collection[str]) -> Sequence[tuple[str, int, str]]:
    """The id, the version and the status of each of these orders, in any sequence."""
    # Without the rest: this is asked twice a second for hundreds of orders.
    statement = select(OrderView.order_id, OrderView.version, OrderView.order_status)
    return (await session.exec(statement.where(col(OrderView.order_id).in_(order_ids)))).all()


async def events_of_orders(session: AsyncSession, order_ids: Collection[str], *, after: int) -> Sequence[OrderEvent]:
    """These orders' timelines, one after the other, each from the version after `after` on."""
    statement = select(OrderEvent).where(col(OrderEvent.order_id).in_(order_ids), OrderEvent.version > after)
    # Sorted here: MySQL, told to, would also sort a single timeline, which it reads in sequence.
    return sorted((await session.exec(statement)).all(), key=lambda event: (event.order_id, event.version))


def _index_of_list(user_id: str | None, order_status: str | None, needs_attention: bool | None) -> str | None:
    """The index of the filter that is likely to leave the fewest orders; without a filter it is the primary key."""
    if user_id is not None:
        return "ix_order_views_user"
    if order_status is not None and not needs_attention:
        return "ix_order_views_status"
    return None if needs_attention is None else "ix_order_views_attention"
