"""The catalogue: what the shop sells, and for how much."""

from collections.abc import Sequence

from services.order import repository
from services.order.errors import UnknownProduct
from services.order.tables import Product
from services.shared.clock import Clock, utc_now
from services.shared.database import Database, insert_if_new
from services.shared.money import KRW


class Catalogue:
    """Keeps the products."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def list(self) -> Sequence[Product]:
        """All products, by their ids."""
        return await self._database.read(repository.products)

    async def get(self, product_id: str) -> Product:
        """One product. Raises `UnknownProduct`."""
        product = await self._database.read(lambda session: repository.product(session, product_id))
        if product is None:
            raise UnknownProduct(product_id)
        return product

    async def put(self, *, product_id: str, product_name: str, product_price: int, currency: str = KRW) -> Product:
        """Create a product, or change it for the orders to come."""
        product = self._product(product_id, product_name, product_price, currency)

        async def work(session: repository.AsyncSession) -> None:
            # The change first: a refused INSERT shares a lock on the row, and of many that then all want to change it,
            # MySQL lets one go on.
            if not await repository.change_product(session, product) and not await insert_if_new(session, product):
                await repository.change_product(session, product)

        await self._database.write(work)
        return product

    async def put_if_new(self, *, product_id: str, product_name: str, product_price: int, currency: str = KRW) -> None:
        """Create a product; one that is there stays as it is."""
        product = self._product(product_id, product_name, product_price, currency)
        await self._database.write(lambda session: insert_if_new(session, product))

    def _product(self, product_id: str, product_name: str, product_price: int, currency: str) -> Product:
        return Product(
            product_id=product_id,
            product_name=product_name,
            product_price=product_price,
            currency=currency,
            updated_at=self._clock(),
        )
