"""The rules of stock: it never falls below zero, and it is always the sum of its movements."""

from collections.abc import Collection, Sequence
from enum import StrEnum
from functools import partial

from services.delivery import repository
from services.delivery.errors import MovementKeyReused, OutOfStock, SaleCanceled, StockLimit, UnknownProduct
from services.delivery.tables import Stock, StockMovement
from services.shared.clock import Clock, utc_now
from services.shared.database import Database, insert_if_new
from services.shared.summaries import StockSummary

MOST_ON_HAND = 2_000_000_000
"""As many pieces can be put in by hand. The column holds a little more (2**31 - 1): what was sold can be put back."""


class MovementKind(StrEnum):
    """Why stock changed. With its reference, each kind happens once."""

    OPENING = "opening"
    RESTOCK = "restock"
    SALE = "sale"
    RESTORE = "restore"


class Warehouse:
    """Keeps the stock."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def on_hand(self, product_id: str) -> int:
        """How many pieces there are. Raises `UnknownProduct`."""
        on_hand = (await self.on_hand_of({product_id})).get(product_id)
        if on_hand is None:
            raise UnknownProduct(product_id)
        return on_hand

    async def on_hand_of(self, product_ids: Collection[str]) -> dict[str, int]:
        """How many pieces there are of each of these products, of those that are stocked."""
        stocks = await self._database.read(lambda session: repository.stocks_of(session, product_ids))
        return {stock.product_id: stock.on_hand for stock in stocks}

    async def open_if_new(self, product_id: str, on_hand: int) -> None:
        """Begin to stock a product with so many pieces; one that is stocked stays as it is."""

        async def work(session: repository.AsyncSession) -> None:
            if await insert_if_new(session, Stock(product_id=product_id, on_hand=on_hand, updated_at=self._clock())):
                opening = self._movement(product_id, MovementKind.OPENING, product_id, on_hand, "opening")
                await insert_if_new(session, opening)

        await self._database.write(work)

    async def move(self, *, product_id: str, qty: int, reason: str, reference: str) -> int:
        """Change a product's stock by hand (`qty` may be negative) and answer what is there then.

        Once for each reference. A product that was not stocked is from now on. Raises `OutOfStock`,
        `StockLimit`, `MovementKeyReused`.
        """

        async def work(session: repository.AsyncSession) -> int:
            movement = self._movement(reference, MovementKind.RESTOCK, product_id, qty, reason)
            if not await insert_if_new(session, movement):
                known = await repository.movement(session, reference, MovementKind.RESTOCK)
                if known is None or (known.product_id, known.qty, known.reason) != (product_id, qty, reason):
                    raise MovementKeyReused(reference)
            elif qty < 0:
                if not await repository.take_out(session, product_id, -qty, self._clock()):
                    raise OutOfStock(product_id)
            elif not await put_in(session):
                # Not the other way round: a refused INSERT shares a lock on the row, and of many that then all want to
                # change it, MySQL lets one go on.
                await insert_if_new(session, Stock(product_id=product_id, on_hand=0, updated_at=self._clock()))
                if not await put_in(session):
                    raise StockLimit(product_id)
            stock = await repository.stock_of(session, product_id)
            return stock.on_hand if stock else 0

        async def put_in(session: repository.AsyncSession) -> bool:
            return await repository.put_in(session, product_id, qty, self._clock(), at_most=MOST_ON_HAND)

        return await self._database.write(work)

    async def sell(self, *, order_id: str, product_id: str, qty: int) -> None:
        """Take an order's pieces out of stock, once. Raises `OutOfStock`, `UnknownProduct`, `SaleCanceled`."""

        async def work(session: repository.AsyncSession) -> None:
            sale = self._movement(order_id, MovementKind.SALE, product_id, -qty, "order")
            if not await insert_if_new(session, sale):
                known = await repository.movement(session, order_id, MovementKind.SALE)
                restored = await repository.movement(session, order_id, MovementKind.RESTORE)
                if known is None or known.qty == 0 or restored is not None:
                    raise SaleCanceled(order_id)
                return
            if not await repository.take_out(session, product_id, qty, self._clock()):
                if await repository.stock_of(session, product_id) is None:
                    raise UnknownProduct(product_id)
                raise OutOfStock(product_id)

        await self._database.write(work)

    async def restore(self, *, order_id: str, product_id: str) -> bool:
        """Put an order's pieces back if they were taken, and see to it that they are not taken later.

        Says whether they had been taken.
        """

        async def work(session: repository.AsyncSession) -> bool:
            tombstone = self._movement(order_id, MovementKind.SALE, product_id, 0, "canceled before it was sold")
            if await insert_if_new(session, tombstone):
                return False
            sale = await repository.movement(session, order_id, MovementKind.SALE)
            if sale is None or sale.qty == 0:
                return False
            back = self._movement(order_id, MovementKind.RESTORE, sale.product_id, -sale.qty, "order canceled")
            if await insert_if_new(session, back):
                await repository.put_in(session, sale.product_id, -sale.qty, self._clock())
            return True

        return await self._database.write(work)

    async def products(self, *, after: str, limit: int) -> Sequence[str]:
        """The ids of the products that are stocked, so many behind one."""
        return await self._database.read(lambda session: repository.product_ids(session, after=after, limit=limit))

    async def summaries_of(self, product_ids: Collection[str]) -> list[StockSummary]:
        """What is on hand of products, and what their movements come to; each in a transaction of its own."""
        found: list[StockSummary] = []
        for product_id in product_ids:
            sums = await self._database.read(partial(repository.stock_and_moved, product_id=product_id))
            if sums is not None:
                found.append(StockSummary(product_id, sums[0], int(sums[1])))
        return found

    def _movement(self, reference: str, kind: MovementKind, product_id: str, qty: int, reason: str) -> StockMovement:
        return StockMovement(
            reference=reference, kind=kind, product_id=product_id, qty=qty, reason=reason, at=self._clock()
        )
