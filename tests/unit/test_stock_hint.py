"""The hint about stock: what is known, what is not, and that a delivery team that is away costs nobody's time."""

import asyncio
from collections.abc import Collection, Mapping

import pytest
from structlog.testing import capture_logs

from services.delivery.stock import Warehouse
from services.gateway.stock_hint import StockHint
from services.shared.errors import DatabaseUnavailable

ALL = {"tea": 10}


class Shelves(Warehouse):
    """10 pieces of tea; or away, or silent."""

    def __init__(self) -> None:
        self.away: Exception | None = None
        self.silent = False
        self.asked = 0
        self.given_up = 0

    async def on_hand_of(self, product_ids: Collection[str]) -> dict[str, int]:
        self.asked += 1
        if self.silent:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up += 1
        if self.away is not None:
            raise self.away
        return {product: number for product, number in ALL.items() if product in product_ids}


class Shop:
    """A hint with a clock of its own, patient unless told otherwise."""

    def __init__(self, seconds: float = 30) -> None:
        self.now = 1000.0
        self.shelves = Shelves()
        self.hint = StockHint(self.shelves, seconds=seconds, failures=3, cooldown_seconds=5, clock=lambda: self.now)

    async def known(self, times: int = 1) -> list[Mapping[str, int]]:
        return [await self.hint.on_hand({"tea", "cup"}) for _ in range(times)]


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def test_what_the_delivery_team_has_is_known_and_nothing_else(shop: Shop) -> None:
    assert await shop.known() == [ALL]
    assert await shop.hint.on_hand({"coffee"}) == {}


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), OSError("gone"), RuntimeError("nobody expects this")])
async def test_a_delivery_team_that_is_away_is_asked_three_times_and_then_once_a_cooldown(
    shop: Shop, error: Exception
) -> None:
    shop.shelves.away = error
    with capture_logs() as logs:
        assert await shop.known(times=10) == [{}] * 10
        assert shop.shelves.asked == 3
        for _ in range(3):
            shop.now += 5
            assert await shop.known(times=10) == [{}] * 10
        assert shop.shelves.asked == 6
        shop.shelves.away = None
        shop.now += 4.9
        assert await shop.known() == [{}]
        shop.now += 0.1
        assert await shop.known(times=3) == [ALL] * 3
    assert [log["log_level"] for log in logs if "stock" in log["event"]] == ["warning", "info"]


async def test_single_failures_change_nothing(shop: Shop) -> None:
    for _ in range(5):
        shop.shelves.away = DatabaseUnavailable("away")
        assert await shop.known(times=2) == [{}] * 2
        shop.shelves.away = None
        assert await shop.known() == [ALL]


async def test_a_silent_delivery_team_is_given_up_each_time_and_then_not_asked() -> None:
    shop = Shop(seconds=0.01)
    shop.shelves.silent = True
    with capture_logs():
        assert await shop.known(times=10) == [{}] * 10
    assert (shop.shelves.asked, shop.shelves.given_up) == (3, 3)


async def test_who_goes_away_while_asking_tells_nothing_about_the_delivery_team(shop: Shop) -> None:
    shop.shelves.silent = True
    for _ in range(5):
        asking = asyncio.create_task(shop.hint.on_hand({"tea"}))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    shop.shelves.silent = False
    assert await shop.known() == [ALL]
