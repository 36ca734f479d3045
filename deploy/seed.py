"""A demo catalogue with stock, put in where it is missing and never changed where it is."""

from dataclasses import dataclass

from services.delivery.stock import Warehouse
from services.order.catalogue import Catalogue
from services.shared.database import Database
from services.shared.settings import DatabaseSettings


@dataclass(frozen=True)
class Article:
    """A product of the demo catalogue; its price is in won."""

    product_id: str
    name: str
    price: int
    on_hand: int = 100


DEMO = (
    Article("1001", "Mac", 3_000_000),
    Article("2001", "gram", 9_000_000),
    Article("3001", "Mac mini", 900_000),
    Article("4001", "기계식 키보드", 159_000),
    Article("5001", "무선 마우스", 39_000),
)


async def seed(settings: DatabaseSettings) -> None:
    """Put in whatever of the demo is missing. Raises `DatabaseUnavailable`."""
    order, delivery = Database(settings.url("order")), Database(settings.url("delivery"))
    try:
        for article in DEMO:
            await _sell(order, article)
            await _store(delivery, article)
    finally:
        await order.close()
        await delivery.close()


async def _sell(database: Database, article: Article) -> None:
    await Catalogue(database).put_if_new(
        product_id=article.product_id, product_name=article.name, product_price=article.price
    )


async def _store(database: Database, article: Article) -> None:
    await Warehouse(database).open_if_new(article.product_id, article.on_hand)
