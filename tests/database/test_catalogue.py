"""The catalogue on a real database: products are created, changed, and found by their exact ids."""

import asyncio

import pytest

from services.order.catalogue import Catalogue
from services.order.errors import UnknownProduct
from services.shared.database import Database


async def test_the_catalogue_creates_and_changes_products(order_database: Database) -> None:
    catalogue = Catalogue(order_database)
    await catalogue.put(product_id="tea", product_name="녹차", product_price=1000)
    await catalogue.put(product_id="cup", product_name="잔", product_price=5000)
    await catalogue.put(product_id="tea", product_name="홍차", product_price=1200)
    await catalogue.put_if_new(product_id="cup", product_name="컵", product_price=1)
    assert [(p.product_id, p.product_name, p.product_price) for p in await catalogue.list()] == [
        ("cup", "잔", 5000),
        ("tea", "홍차", 1200),
    ]
    assert (await catalogue.get("tea")).currency == "KRW"
    with pytest.raises(UnknownProduct):
        await catalogue.get("Tea")


async def test_many_may_change_a_product_at_once(order_database: Database) -> None:
    catalogue = Catalogue(order_database)
    await asyncio.gather(
        *(catalogue.put(product_id="tea", product_name="녹차", product_price=price) for price in range(1, 21))
    )
    assert len(await catalogue.list()) == 1
