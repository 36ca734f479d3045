"""Stock on a real database: each order's pieces leave once, come back once, and never more than there are."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy.exc import DBAPIError
from sqlmodel import select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from services.delivery.errors import OutOfStock, SaleCanceled, StockLimit, UnknownProduct
from services.delivery.stock import MOST_ON_HAND, Warehouse
from services.delivery.tables import Stock, StockMovement
from services.shared.database import Database

TEA = "tea"


@pytest.fixture
async def warehouse(delivery_database: Database) -> Warehouse:
    warehouse = Warehouse(delivery_database)
    await warehouse.open_if_new(TEA, 10)
    return warehouse


async def movements(database: Database) -> Sequence[StockMovement]:
    async def work(session: AsyncSession) -> Sequence[StockMovement]:
        return (await session.exec(select(StockMovement))).all()

    return await database.read(work)


async def assert_stock(database: Database, on_hand: int) -> None:
    assert await Warehouse(database).on_hand(TEA) == on_hand
    assert sum(movement.qty for movement in await movements(database) if movement.product_id == TEA) == on_hand


async def test_opening_twice_keeps_the_first(warehouse: Warehouse, delivery_database: Database) -> None:
    await asyncio.gather(*(warehouse.open_if_new(TEA, 99) for _ in range(20)))
    await assert_stock(delivery_database, 10)


async def test_a_sale_that_comes_after_its_undo_is_refused(warehouse: Warehouse, delivery_database: Database) -> None:
    assert not await warehouse.restore(order_id="o1", product_id=TEA)
    assert not await warehouse.restore(order_id="o1", product_id=TEA)
    with pytest.raises(SaleCanceled):
        await warehouse.sell(order_id="o1", product_id=TEA, qty=3)
    await warehouse.sell(order_id="o2", product_id=TEA, qty=3)
    await warehouse.restore(order_id="o2", product_id=TEA)
    with pytest.raises(SaleCanceled):
        await warehouse.sell(order_id="o2", product_id=TEA, qty=3)
    assert not await warehouse.restore(order_id="o1", product_id=TEA)
    await assert_stock(delivery_database, 10)


async def test_a_hundred_buyers_for_the_last_five(delivery_database: Database) -> None:
    warehouse = Warehouse(delivery_database)
    await warehouse.open_if_new(TEA, 5)
    outcomes = await asyncio.gather(
        *(warehouse.sell(order_id=f"o{number}", product_id=TEA, qty=1) for number in range(100)),
        return_exceptions=True,
    )
    assert [outcome for outcome in outcomes if not isinstance(outcome, OutOfStock)] == [None] * 5
    assert len([movement for movement in await movements(delivery_database) if movement.kind == "sale"]) == 5
    await assert_stock(delivery_database, 0)


async def test_what_cannot_be_sold_leaves_nothing_behind(warehouse: Warehouse, delivery_database: Database) -> None:
    before = await movements(delivery_database)
    with pytest.raises(OutOfStock):
        await warehouse.sell(order_id="o1", product_id=TEA, qty=11)
    with pytest.raises(UnknownProduct):
        await warehouse.sell(order_id="o2", product_id="coffee", qty=1)
    with pytest.raises(UnknownProduct):
        await warehouse.on_hand("coffee")
    with pytest.raises(OutOfStock):
        await warehouse.move(product_id=TEA, qty=-11, reason="loss", reference="m1")
    with pytest.raises(OutOfStock):
        await warehouse.move(product_id="coffee", qty=-1, reason="loss", reference="m2")
    assert await movements(delivery_database) == before
    with pytest.raises(UnknownProduct):
        await warehouse.on_hand("coffee")
    await assert_stock(delivery_database, 10)
    await warehouse.move(product_id=TEA, qty=1, reason="restock", reference="m3")
    await warehouse.sell(order_id="o1", product_id=TEA, qty=11)
    await assert_stock(delivery_database, 0)


async def test_a_movement_by_hand_happens_once(warehouse: Warehouse, delivery_database: Database) -> None:
    assert await warehouse.move(product_id=TEA, qty=5, reason="restock", reference="m1") == 15
    assert await warehouse.move(product_id=TEA, qty=5, reason="restock", reference="m1") == 15
    assert await warehouse.move(product_id=TEA, qty=-4, reason="loss", reference="m2") == 11
    same = (warehouse.move(product_id=TEA, qty=1, reason="restock", reference="m3") for _ in range(20))
    others = (warehouse.move(product_id=TEA, qty=1, reason="restock", reference=f"n{number}") for number in range(20))
    await asyncio.gather(*same, *others)
    await assert_stock(delivery_database, 32)


async def test_a_new_product_is_stocked_once(delivery_database: Database) -> None:
    warehouse = Warehouse(delivery_database)
    await asyncio.gather(
        *(warehouse.move(product_id=TEA, qty=2, reason="first", reference=f"m{number}") for number in range(20))
    )
    await assert_stock(delivery_database, 40)


async def test_the_database_itself_refuses_a_negative_stock(warehouse: Warehouse, delivery_database: Database) -> None:
    async def work(session: AsyncSession) -> None:
        await session.exec(update(Stock).values(on_hand=-1))

    with pytest.raises(DBAPIError, match="ck_stock_on_hand_not_negative"):
        await delivery_database.write(work)
    await assert_stock(delivery_database, 10)


async def test_text_case_and_time_survive(delivery_database: Database) -> None:
    at = datetime(2026, 11, 23, 8, 59, 59, 123457, tzinfo=timezone(timedelta(hours=9)))
    warehouse = Warehouse(delivery_database, clock=lambda: at)
    reason = "봄맞이 입고 🍵👩‍👩‍👧 ſß"
    for product_id, on_hand in (("차🍵", 1), ("Tea", 2), ("tea", 3)):
        await warehouse.move(product_id=product_id, qty=on_hand, reason=reason, reference=f"r-{product_id}")
    assert [await warehouse.on_hand(product_id) for product_id in ("차🍵", "Tea", "tea")] == [1, 2, 3]
    for movement in await movements(delivery_database):
        assert movement.reason == reason
        assert movement.at == at
        assert movement.at.tzinfo == UTC


async def test_what_can_be_put_in_by_hand_has_a_limit_and_what_was_sold_always_comes_back(
    warehouse: Warehouse, delivery_database: Database
) -> None:
    await warehouse.sell(order_id="o1", product_id=TEA, qty=3)
    await warehouse.move(product_id=TEA, qty=MOST_ON_HAND - 7, reason="restock", reference="r1")
    for product_id, qty in ((TEA, 1), ("rice", MOST_ON_HAND + 1)):
        with pytest.raises(StockLimit):
            await warehouse.move(product_id=product_id, qty=qty, reason="restock", reference="r2")
    with pytest.raises(UnknownProduct):
        await warehouse.on_hand("rice")
    assert await warehouse.restore(order_id="o1", product_id=TEA)
    await assert_stock(delivery_database, MOST_ON_HAND + 3)
