"""One shop for all tests here, started as its user starts it: once on SQLite, once as in production, where order and
delivery are on MySQL and marketing is on what it chose."""

from collections.abc import AsyncGenerator

import pytest

from tests.e2e.shop import Shop, open_shop
from tests.mariadb import need_mariadb

# The limits on orders have tests of their own. As in production, what stands in clear is refused.
ROOM = {
    "STREET12_MAX_PENDING_PAYMENTS": "1000",
    "STREET12_SLOW_PAYMENT_MS": "600000",
    "STREET12_CODEC_ACCEPT_PLAIN": "false",
}


@pytest.fixture(scope="session", params=["sqlite", "mysql"])
async def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Shop]:
    """Runs until the last test is over; must then end when asked to, with exit status 0 and nothing left behind."""
    if request.param == "mysql":
        await need_mariadb(request.config)
    data_dir = tmp_path_factory.mktemp("shop")
    marketing = tmp_path_factory.mktemp("marketing") / "coupons.db"
    mixed = {"STREET12_DATABASE": "mysql", "STREET12_MARKETING_DATABASE_URL": f"sqlite+aiosqlite:///{marketing}"}
    async with open_shop(data_dir, ROOM | (mixed if request.param == "mysql" else {})) as shop:
        yield shop
        if request.param == "mysql":
            assert marketing.exists()
            assert [file.name for file in data_dir.glob("*.db")] == ["payments.db", "temporal.db"]
