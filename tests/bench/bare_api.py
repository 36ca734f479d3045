"""The measure that the API is held against: `python -m tests.bench.bare_api`, shaped like `api.py`.

One handler reads the same body as the shop's and puts one row into one table, in a transaction of its own. The other
reads an order and where it stands, as one query, and answers the same JSON. Nothing else: no token, no limits, no tags.
"""

import asyncio
from datetime import UTC, datetime

import uvicorn
from fastapi import FastAPI, HTTPException
from sqlmodel import col, select

from services.gateway.schemas import OrderAnswer, OrderRequest
from services.gateway.server import Server, listen
from services.order.book import OrderReading
from services.order.repository import add_rows
from services.order.tables import Order, OrderView
from services.shared.database import AsyncSession, Database
from services.shared.ids import new_order_id
from services.shared.settings import ApiSettings, DatabaseSettings, PoolSettings


def create_app(database: Database) -> FastAPI:
    """The app with its two handlers."""
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> None:  # pyright: ignore[reportUnusedFunction]
        await database.ping()

    @app.post("/orders", status_code=202)
    async def place_order(body: OrderRequest) -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        row = _row(body)
        await database.write(lambda session: add_rows(session, Order, [row.model_dump()]))
        return {"orderId": row.order_id}

    @app.get("/orders/{order_id}")
    async def get_order(order_id: str) -> OrderAnswer:  # pyright: ignore[reportUnusedFunction]
        found = await database.read(lambda session: _order_with_view(session, order_id))
        if found is None:
            raise HTTPException(404)
        return OrderAnswer.of(OrderReading(*found))

    return app


async def _order_with_view(session: AsyncSession, order_id: str) -> tuple[Order, OrderView] | None:
    statement = (
        select(Order, OrderView)
        .join(OrderView, col(OrderView.order_id) == col(Order.order_id))
        .where(Order.order_id == order_id)
    )
    return (await session.exec(statement)).one_or_none()


def _row(body: OrderRequest) -> Order:
    now = datetime.now(UTC)
    return Order(
        **body.model_dump(exclude={"product_price", "product_name", "user_id", "pay_status"}),
        order_id=new_order_id(),
        user_id="bench",
        product_name="Mac",
        product_price=3_000_000,
        amount=3_000_000 * body.qty,
        currency="KRW",
        order_date=now,
        claimed_until=now,
    )


async def _serve() -> None:
    settings = ApiSettings()
    database = Database(DatabaseSettings().url("order"), PoolSettings())
    listener = listen(settings.host, settings.port)
    config = uvicorn.Config(create_app(database), http="h11", log_config=None, access_log=False)
    await Server(config, asyncio.Event(), asyncio.Event()).serve(sockets=[listener])
    await database.close()


if __name__ == "__main__":
    asyncio.run(_serve())
