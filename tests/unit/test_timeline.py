"""A followed timeline tells each event once, whatever happens to the stream, and ends when no more can come."""

from collections.abc import Generator

import pytest

from deploy.client import ClientError, Refused, ShopClient, Who
from deploy.timeline import RECONNECTS, follow
from tests.fakeshop import LOST, FakeShop, Reply, events, problem, running_fake_shop

MINJI = Who("minji")
CALL = "GET /orders/order_1/events"
END = Reply(204)


@pytest.fixture
def fake() -> Generator[FakeShop]:
    with running_fake_shop() as fake:
        yield fake


@pytest.fixture
def slept() -> list[float]:
    return []


def followed(fake: FakeShop, slept: list[float], said: list[str] | None = None, token: str | None = None) -> list[int]:
    shop = ShopClient(fake.url, token=token, sleep=slept.append)
    said = [] if said is None else said
    return [event["version"] for event in follow(shop, "order_1", MINJI, said.append)]


def resumed_after(fake: FakeShop) -> list[str | None]:
    return [one.headers.get("Last-Event-ID") for one in fake.asked_for(CALL)]


def test_a_stream_that_breaks_is_taken_up_after_the_last_event(fake: FakeShop, slept: list[float]) -> None:
    broken = events((1, "OrderReceived"), (2, "OrderPlaced"), lost=True)
    fake.will(CALL, broken, events((3, "CouponIssued")), events((4, "Delivered")), END)
    said: list[str] = []
    assert followed(fake, slept, said) == [1, 2, 3, 4]
    assert resumed_after(fake) == [None, "2", "3", "4"]
    assert len(said) == 1
    assert {one.headers["Accept"] for one in fake.asked_for(CALL)} == {"text/event-stream"}


def test_an_event_that_comes_again_is_told_once(fake: FakeShop, slept: list[float]) -> None:
    fake.will(CALL, events((1, "OrderReceived")), events((1, "OrderReceived"), (2, "Delivered")), END)
    assert followed(fake, slept) == [1, 2]


def test_the_shop_says_how_long_to_wait_before_the_next_stream(fake: FakeShop, slept: list[float]) -> None:
    fake.will(CALL, events((1, "OrderReceived"), retry=2500), END)
    assert followed(fake, slept) == [1]
    assert slept == [2.5]


def test_after_the_end_nobody_waits(fake: FakeShop, slept: list[float]) -> None:
    fake.will(CALL, events((1, "PaymentDeclined"), retry=2500), END)
    assert followed(fake, slept) == [1]
    assert slept == [0]


@pytest.mark.parametrize("trouble", [LOST, problem(503, "overloaded"), problem(429, "too-many-requests")])
def test_a_shop_that_is_away_for_a_while_is_waited_for(trouble: Reply, fake: FakeShop, slept: list[float]) -> None:
    away = [trouble] * RECONNECTS
    fake.will(
        CALL, events((1, "OrderReceived")), *away, events((2, "OrderPlaced")), *away, events((3, "Delivered")), END
    )
    assert followed(fake, slept) == [1, 2, 3]


@pytest.mark.parametrize("trouble", [LOST, problem(503, "overloaded")])
def test_a_shop_that_stays_away_is_given_up(trouble: Reply, fake: FakeShop, slept: list[float]) -> None:
    fake.will(CALL, events((1, "OrderReceived")), trouble)
    with pytest.raises(ClientError):
        followed(fake, slept)
    assert len(fake.asked_for(CALL)) == 1 + RECONNECTS + 1


@pytest.mark.parametrize(
    "no", [problem(404, "not-found"), problem(503, "overloaded"), LOST, Reply(200, "<html>"), Reply(200, {})]
)
def test_a_stream_that_never_began_is_given_up_at_once(no: Reply, fake: FakeShop, slept: list[float]) -> None:
    fake.will(CALL, no)
    with pytest.raises(ClientError):
        followed(fake, slept)
    assert slept == []


def test_a_stream_of_something_else_is_not_taken_for_a_timeline(fake: FakeShop, slept: list[float]) -> None:
    fake.will(CALL, Reply(200, "data: hello\n\n", {"Content-Type": "text/event-stream"}))
    with pytest.raises(ClientError, match="not answered as the API of this shop"):
        followed(fake, slept)


def test_a_token_that_has_expired_meanwhile_is_replaced(fake: FakeShop, slept: list[float]) -> None:
    fake.will(CALL, events((1, "OrderReceived")), problem(401, "invalid-token"), events((2, "Delivered")), END)
    assert followed(fake, slept) == [1, 2]
    assert len(fake.asked_for("POST /dev/tokens")) == 2


def test_a_token_of_ones_own_that_has_expired_ends_it(fake: FakeShop, slept: list[float]) -> None:
    fake.will(CALL, events((1, "OrderReceived")), problem(401, "invalid-token"))
    with pytest.raises(Refused):
        followed(fake, slept, token="own")
    assert len(fake.asked_for(CALL)) == 2
