"""The hint about stock: what is known, what is not, and that a delivery team that is away costs nobody's time."""

import asyncio
from collections.abc import Collection

import pytest
from structlog.testing import capture_logs

from services.delivery.stock import Warehouse
from services.gateway.stock_hint import StockHint
from services.shared.errors import DatabaseUnavailable


class Shelves(Warehouse):
    """10 pieces of tea; or away, or silent."""

    def __init__(self) -> None:
        self.away: Exception | None = None
        self.silent = False
        self.asked: list[set[str]] = []
        self.given_up = 0

    async def on_hand_of(self, product_ids: Collection[str]) -> dict[str, int]:
        self.asked.append(set(product_ids))
        if self.silent:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up += 1
        if self.away is not None:
            raise self.away
        return {"tea": 10}


class Shop:
    """A hint with a clock of its own, patient unless told otherwise."""

    def __init__(self, seconds: float = 30) -> None:
        self.now = 1000.0
        self.shelves = Shelves()
        self.hint = StockHint(self.shelves, seconds=seconds, failures=3, cooldown_seconds=5, clock=lambda: self.now)

    async def known_out(self, times: int = 1) -> list[bool]:
        return [await self.hint.known_out("tea", 11) for _ in range(times)]


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def test_fewer_pieces_than_asked_for_are_known_and_nothing_else(shop: Shop) -> None:
    assert await shop.hint.known_out("tea", 11)
    assert not await shop.hint.known_out("tea", 10)
    assert not await shop.hint.known_out("coffee", 1)


async def test_questions_at_the_same_time_are_one(shop: Shop) -> None:
    answers = await asyncio.gather(*(shop.hint.known_out(product, 11) for product in ("tea", "tea", "cup") * 5))
    assert answers == [True, True, False] * 5
    assert shop.shelves.asked == [{"tea", "cup"}]


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), OSError("gone"), RuntimeError("nobody expects this")])
async def test_a_delivery_team_that_is_away_is_asked_three_times_and_then_by_one_order_a_cooldown(
    shop: Shop, error: Exception
) -> None:
    shop.shelves.away = error
    with capture_logs() as logs:
        assert await shop.known_out(times=10) == [False] * 10
        assert len(shop.shelves.asked) == 3
        for _ in range(3):
            shop.now += 5
            answers = await asyncio.gather(*(shop.hint.known_out("tea", 11) for _ in range(10)))
            assert answers == [False] * 10
        assert len(shop.shelves.asked) == 6
        shop.shelves.away = None
        shop.now += 4.9
        assert await shop.known_out() == [False]
        shop.now += 0.1
        assert await shop.known_out(times=3) == [True] * 3
    assert [log["log_level"] for log in logs] == ["warning", "info"]


async def test_single_failures_change_nothing(shop: Shop) -> None:
    for _ in range(5):
        shop.shelves.away = DatabaseUnavailable("away")
        assert await shop.known_out(times=2) == [False] * 2
        shop.shelves.away = None
        assert await shop.known_out() == [True]


async def test_a_silent_delivery_team_is_given_up_and_leaves_nothing_behind() -> None:
    shop = Shop(seconds=0.01)
    shop.shelves.silent = True
    before = asyncio.all_tasks()
    with capture_logs():
        assert await shop.known_out(times=10) == [False] * 10
    assert (len(shop.shelves.asked), shop.shelves.given_up) == (3, 3)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_trial_whose_order_goes_away_is_followed_by_another(shop: Shop) -> None:
    shop.shelves.away = DatabaseUnavailable("away")
    with capture_logs():
        await shop.known_out(times=3)
        shop.now += 5
        shop.shelves.away, shop.shelves.silent = None, True
        trial = asyncio.create_task(shop.hint.known_out("tea", 11))
        await asyncio.sleep(0)
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        shop.shelves.silent = False
        shop.now += 5
        assert await shop.known_out() == [True]
