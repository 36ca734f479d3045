"""The shop's API with fresh databases."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

import api
from deploy.issuer import AUDIENCE, ISSUER
from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.gateway import stream
from services.gateway.parts import Parts
from services.gateway.stock_hint import StockHint
from services.gateway.tokens import SigningKeys, Tokens
from services.marketing.coupons import Coupons
from services.order import figures
from services.order.acceptance import Acceptance
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.catalogue import Catalogue
from services.order.circuit import AdmissionRules
from services.order.dispatch import Dispatcher, Inbox
from services.order.reconciliation_reports import ReconciliationReports
from services.shared.database import Database
from services.shared.migrations import upgrade
from services.shared.settings import TEAMS, PoolSettings
from tests.api.world import LEASE, FakeEngine, FakeSchedule, Shop
from tests.issuer import TEST_ISSUER


async def listed_keys() -> object:
    """What the issuer answers when it is asked for its keys."""
    return TEST_ISSUER.jwks()


@pytest.fixture(scope="session")
async def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with each team's migrated database, to be copied."""
    directory = tmp_path_factory.mktemp("migrated")
    for team in TEAMS:
        await asyncio.to_thread(upgrade, f"sqlite+aiosqlite:///{directory / team}.db", team)
    return directory


@pytest.fixture
async def shop(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """The API with its lifespan entered, 10 pieces of tea at 4500 won and 1 pot at 90000 won."""
    monkeypatch.setattr(figures, "READ_SECONDS", 30)
    monkeypatch.setattr(figures, "KEPT_SECONDS", 0)
    monkeypatch.setattr(stream, "STREAM_SECONDS", 0)
    for team in TEAMS:
        await asyncio.to_thread(shutil.copy, migrated / f"{team}.db", tmp_path)
    # One attempt: nothing else writes here.
    pool = PoolSettings(transaction_seconds=30, attempts=1)
    order, delivery, marketing = (Database(f"sqlite+aiosqlite:///{tmp_path / team}.db", pool) for team in TEAMS)
    book = OrderBook(order)
    engine = FakeEngine(book)
    admission, warehouse = Admission(AdmissionRules(max_pending=1000)), Warehouse(delivery)
    parts = Parts(
        order_database=order,
        catalogue=Catalogue(order),
        admission=admission,
        # Patient, because the machine that runs the tests may be busy with others.
        acceptance=Acceptance(order, admission, lease=LEASE, on_hand=StockHint(warehouse, seconds=30).on_hand),
        book=book,
        dispatcher=Dispatcher(Inbox(order, lease=LEASE), engine.start),
        deliveries=Deliveries(delivery),
        warehouse=warehouse,
        coupons=Coupons(marketing),
        engine=engine,
        reconciliations=FakeSchedule(),
        reports=ReconciliationReports(order),
        tokens=Tokens(SigningKeys(listed_keys), issuer=ISSUER, audience=AUDIENCE),
    )
    await parts.catalogue.put(product_id="tea", product_name="보성 녹차", product_price=4500)
    await parts.catalogue.put(product_id="pot", product_name="백자 주전자", product_price=90_000)
    await parts.warehouse.open_if_new("tea", 10)
    await parts.warehouse.open_if_new("pot", 1)
    app = api.create_app(parts)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop") as client,
    ):
        yield Shop(app, client, parts, engine)
    for database in (order, delivery, marketing):
        await database.close()
