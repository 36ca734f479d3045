"""Deliveries on a real database: one an order, none after it was called off, none called off after it arrived."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from services.delivery.deliveries import Deliveries
from services.delivery.errors import DeliveryCanceled, DeliveryCompleted, OutOfStock, UnknownProduct
from services.delivery.stock import Warehouse
from services.delivery.tables import Delivery
from services.shared.database import Database
from services.shared.errors import NotFound

TEA = "tea"


@pytest.fixture
async def deliveries(delivery_database: Database) -> Deliveries:
    await Warehouse(delivery_database).open_if_new(TEA, 10)
    return Deliveries(delivery_database)


async def rows(database: Database) -> Sequence[Delivery]:
    async def work(session: AsyncSession) -> Sequence[Delivery]:
        return (await session.exec(select(Delivery))).all()

    return await database.read(work)


async def state(database: Database, order_id: str) -> str:
    return next(row.state for row in await rows(database) if row.order_id == order_id)


async def start(deliveries: Deliveries, order_id: str = "o1") -> None:
    await deliveries.start(order_id=order_id, product_id=TEA, qty=1)


async def cancel(deliveries: Deliveries, order_id: str = "o1") -> bool:
    return await deliveries.cancel(order_id=order_id, product_id=TEA, qty=1)


async def test_a_delivery_starts_once(deliveries: Deliveries, delivery_database: Database) -> None:
    await start(deliveries)
    first = await deliveries.of_order("o1")
    await asyncio.gather(*(start(deliveries) for _ in range(20)))
    assert await rows(delivery_database) == [first]
    assert first.state == "Started"


async def test_a_delivery_that_starts_after_it_was_called_off_is_refused(
    deliveries: Deliveries, delivery_database: Database
) -> None:
    assert not any(await asyncio.gather(*(cancel(deliveries) for _ in range(20))))
    with pytest.raises(DeliveryCanceled):
        await start(deliveries)
    with pytest.raises(NotFound):
        await deliveries.of_order("o1")
    await start(deliveries, "o2")
    await cancel(deliveries, "o2")
    with pytest.raises(DeliveryCanceled):
        await start(deliveries, "o2")
    assert [row.state for row in await rows(delivery_database)] == ["Canceled", "Canceled"]


async def test_what_arrived_cannot_be_called_off(deliveries: Deliveries, delivery_database: Database) -> None:
    await start(deliveries)
    await asyncio.gather(*(deliveries.complete(order_id="o1") for _ in range(20)))
    with pytest.raises(DeliveryCompleted):
        await cancel(deliveries)
    await start(deliveries)  # a straggler of the first: nothing to do
    assert await state(delivery_database, "o1") == "Delivered"


async def test_what_was_called_off_cannot_arrive(deliveries: Deliveries, delivery_database: Database) -> None:
    with pytest.raises(DeliveryCanceled):
        await deliveries.complete(order_id="never started")
    assert await rows(delivery_database) == []
    await start(deliveries)
    await cancel(deliveries)
    with pytest.raises(DeliveryCanceled):
        await deliveries.complete(order_id="o1")
    assert await state(delivery_database, "o1") == "Canceled"


async def test_arriving_and_calling_off_at_once_has_one_winner(
    deliveries: Deliveries, delivery_database: Database
) -> None:
    for number in range(10):
        order = f"o{number}"
        await start(deliveries, order)
        arrived, called_off = await asyncio.gather(
            deliveries.complete(order_id=order), cancel(deliveries, order), return_exceptions=True
        )
        winner = await state(delivery_database, order)
        if winner == "Delivered":
            assert (arrived, type(called_off)) == (None, DeliveryCompleted)
        else:
            assert (type(arrived), called_off) == (DeliveryCanceled, True)


async def test_what_cannot_start_leaves_nothing_behind(deliveries: Deliveries, delivery_database: Database) -> None:
    with pytest.raises(OutOfStock):
        await deliveries.start(order_id="o1", product_id=TEA, qty=11)
    with pytest.raises(UnknownProduct):
        await deliveries.start(order_id="o1", product_id="coffee", qty=1)
    assert await rows(delivery_database) == []
    await start(deliveries)
    assert await state(delivery_database, "o1") == "Started"


async def test_text_case_and_time_survive(delivery_database: Database) -> None:
    at = datetime(2026, 11, 23, 8, 59, 59, 123457, tzinfo=timezone(timedelta(hours=9)))
    await Warehouse(delivery_database).open_if_new("녹차🍵", 5)
    deliveries = Deliveries(delivery_database, clock=lambda: at)
    for order_id in ("O1", "o1"):
        await deliveries.start(order_id=order_id, product_id="녹차🍵", qty=1)
    await deliveries.cancel(order_id="O1", product_id="녹차🍵", qty=1)
    kept = await deliveries.of_order("o1")
    assert (kept.state, kept.product_id, kept.started_at, kept.updated_at) == ("Started", "녹차🍵", at, at)
    assert kept.started_at is not None
    assert kept.started_at.tzinfo == UTC


async def test_the_deliveries_of_many_orders_are_those_that_began(deliveries: Deliveries) -> None:
    for order_id in ("o1", "o2", "o3"):
        await deliveries.start(order_id=order_id, product_id=TEA, qty=1)
    await deliveries.cancel(order_id="o2", product_id=TEA, qty=1)
    await deliveries.cancel(order_id="o4", product_id=TEA, qty=1)  # before it began
    found = await deliveries.of_orders(["o1", "o2", "o4", "o5"])
    assert {order_id: delivery.state for order_id, delivery in found.items()} == {"o1": "Started", "o2": "Canceled"}
    assert await deliveries.of_orders([]) == {}
