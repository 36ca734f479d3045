"""All SQL of the reconciliation: what is said of orders, and what its runs have found."""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sql
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from services.order.statuses import EventType
from services.order.tables import Order, OrderEvent, OrderView, Payment, Reconciliation, ReconciliationDifference
from services.shared.database import change
from services.shared.summaries import OrderSummary

_EXCUSES = (EventType.COMPENSATION_SKIPPED, EventType.COUPON_WAIVED)
_SUMMARIES = (
    sql.select(
        col(Order.order_id),
        col(Order.product_id),
        col(Order.qty),
        col(Order.amount),
        col(Order.currency),
        col(OrderView.order_status),
        col(OrderView.needs_attention),
        col(OrderView.coupon_id),
        col(OrderView.version),
        col(OrderView.updated_at),
        col(Order.started_at).is_not(None),
        col(Payment.state),
        col(Payment.intent_id),
    )
    .select_from(Order)
    .join(OrderView, col(OrderView.order_id) == col(Order.order_id))
    .join(Payment, col(Payment.order_id) == col(Order.order_id), isouter=True)
)


async def order_summaries(session: AsyncSession, *, after: str, until: str, limit: int) -> list[OrderSummary]:
    """The orders behind one id and up to another, so many of them."""
    order_id = col(Order.order_id)
    statement = _SUMMARIES.where(order_id > after, order_id <= until).order_by(order_id).limit(limit)
    # The orders first: by them it is sorted.
    return await _summaries(session, statement.prefix_with("STRAIGHT_JOIN", dialect="mysql"))


async def order_summaries_of(session: AsyncSession, order_ids: Collection[str]) -> list[OrderSummary]:
    """These orders."""
    return await _summaries(session, _SUMMARIES.where(col(Order.order_id).in_(order_ids)))


async def _summaries(session: AsyncSession, statement: "sql.Select[*tuple[Any, ...]]") -> list[OrderSummary]:
    rows: list[Any] = [*await (await session.connection()).execute(statement)]
    return [OrderSummary(*row) for row in rows]


async def excuses(session: AsyncSession, order_ids: Collection[str]) -> list[tuple[str, str, dict[str, str]]]:
    """What these orders' timelines tell of steps that were done without and undos that were skipped."""
    statement = select(OrderEvent.order_id, OrderEvent.type, col(OrderEvent.detail))
    order_id, type = col(OrderEvent.order_id), col(OrderEvent.type)
    rows = (await session.exec(statement.where(order_id.in_(order_ids), type.in_(_EXCUSES)))).all()
    return [(order_id, type, dict(detail)) for order_id, type, detail in rows]


async def update_reconciliation(session: AsyncSession, reconciliation_id: str, **values: object) -> None:
    """Note how far a run has come."""
    statement = update(Reconciliation).where(col(Reconciliation.reconciliation_id) == reconciliation_id)
    await change(session, statement.values(**values))


async def reconciliation(session: AsyncSession, reconciliation_id: str) -> Reconciliation | None:
    return await session.get(Reconciliation, reconciliation_id, populate_existing=True)


async def reconciliations(session: AsyncSession, *, limit: int, before: str | None = None) -> Sequence[Reconciliation]:
    """Runs, newest first, starting after the run `before`."""
    name = col(Reconciliation.reconciliation_id)
    statement = select(Reconciliation).order_by(name.desc()).limit(limit)
    if before is not None:
        statement = statement.where(name < before)
    return (await session.exec(statement)).all()


async def differences_of_run(
    session: AsyncSession, reconciliation_id: str, *, limit: int, after: int = 0
) -> Sequence[ReconciliationDifference]:
    """What a run found, in sequence, behind the number `after`."""
    number = col(ReconciliationDifference.number)
    statement = select(ReconciliationDifference).where(
        ReconciliationDifference.reconciliation_id == reconciliation_id, number > after
    )
    return (await session.exec(statement.order_by(number).limit(limit))).all()


async def forget_reconciliations(session: AsyncSession, *, before: str, limit: int) -> bool:
    """Delete the oldest run before the run id `before`, or so many of its differences; says whether more is left."""
    name = col(Reconciliation.reconciliation_id)
    oldest = (
        await session.exec(select(Reconciliation.reconciliation_id).where(name < before).order_by(name).limit(1))
    ).first()
    if oldest is None:
        return False
    found = await differences_of_run(session, oldest, limit=limit)
    if found:
        difference = ReconciliationDifference
        await change(
            session,
            delete(difference).where(
                col(difference.reconciliation_id) == oldest, col(difference.number) <= found[-1].number
            ),
        )
    if len(found) < limit:
        await change(session, delete(Reconciliation).where(name == oldest))
    return True
