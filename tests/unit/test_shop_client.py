"""The client sends what may be repeated again, under the same key, and says in whose name it calls."""

import socket
from collections.abc import Generator

import pytest

from deploy.client import ATTEMPTS, ClientError, NotTheShop, Refused, ShopClient, Unreachable, Who, path
from tests.fakeshop import LOST, FakeShop, Reply, problem, running_fake_shop

MINJI = Who("minji")
OPERATOR = Who("op", "operator")
BODY = {"productId": "1001", "qty": 1}
ORDER = {"orderId": "order_1"}
PAUSED = problem(503, "order-intake-paused", Retry_After=7)


class Clock:
    """Passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.said: list[str] = []


@pytest.fixture
def fake() -> Generator[FakeShop]:
    with running_fake_shop() as fake:
        yield fake


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shop(fake: FakeShop, clock: Clock) -> ShopClient:
    return ShopClient(fake.url, sleep=clock.slept.append)


def nobodys_url() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_an_order_whose_answer_is_lost_is_sent_again_under_the_same_key(
    fake: FakeShop, shop: ShopClient, clock: Clock
) -> None:
    fake.will("POST /orders", LOST, Reply(202, ORDER, {"Idempotent-Replayed": "true"}))
    placed = shop.place(BODY, MINJI, key="k1", say=clock.said.append)
    assert (placed.order, placed.replayed) == (ORDER, True)
    sent = fake.asked_for("POST /orders")
    assert [(one.headers["Idempotency-Key"], one.body) for one in sent] == [("k1", BODY)] * 2
    assert len(clock.said) == 1


def test_a_shop_that_says_when_is_asked_again_then(fake: FakeShop, shop: ShopClient, clock: Clock) -> None:
    fake.will("POST /orders", PAUSED, problem(429, "too-many-requests", Retry_After=3), Reply(202, ORDER))
    placed = shop.place(BODY, MINJI, key="k1", say=clock.said.append)
    assert (placed.order, placed.replayed) == (ORDER, False)
    assert {one.headers["Idempotency-Key"] for one in fake.asked_for("POST /orders")} == {"k1"}
    assert clock.slept == [7, 3]


@pytest.mark.parametrize("trouble", [PAUSED, LOST])
def test_who_has_insisted_in_vain_is_told_the_key(
    trouble: Reply, fake: FakeShop, shop: ShopClient, clock: Clock
) -> None:
    fake.will("POST /stocks/1001/movements", trouble)
    with pytest.raises(ClientError) as failed:
        shop.move_stock("1001", {"qty": 1, "reason": "x"}, OPERATOR, key="k1", say=clock.said.append)
    assert "k1" in failed.value.hint
    assert len(fake.asked_for("POST /stocks/1001/movements")) == ATTEMPTS
    assert len(clock.slept) == ATTEMPTS - 1


def test_a_pause_longer_than_anybody_waits_is_not_waited_for(fake: FakeShop, shop: ShopClient, clock: Clock) -> None:
    fake.will("POST /orders", problem(503, "order-intake-paused", Retry_After=3600))
    with pytest.raises(Refused):
        shop.place(BODY, MINJI, key="k1", say=clock.said.append)
    assert clock.slept == []


def test_a_no_is_not_argued_with(fake: FakeShop, shop: ShopClient, clock: Clock) -> None:
    fake.will("POST /orders", problem(409, "out-of-stock", "There is not enough in stock."))
    with pytest.raises(Refused, match="not enough") as refused:
        shop.place(BODY, MINJI, key="k1", say=clock.said.append)
    assert (refused.value.status, refused.value.problem["code"]) == (409, "out-of-stock")
    assert len(fake.asked_for("POST /orders")) == 1


def test_what_is_not_safe_to_repeat_is_sent_once(fake: FakeShop, shop: ShopClient, clock: Clock) -> None:
    fake.will("POST /orders/order_1/settlements", LOST)
    with pytest.raises(Unreachable):
        shop.post("/orders/order_1/settlements", OPERATOR, {})
    assert len(fake.asked_for("POST /orders/order_1/settlements")) == 1


def test_a_shop_that_is_not_there_is_not_insisted_upon(clock: Clock) -> None:
    shop = ShopClient(nobodys_url(), token="own", sleep=clock.slept.append)
    with pytest.raises(Unreachable):
        shop.place(BODY, MINJI, key="k1", say=clock.said.append)
    assert clock.slept == []


def test_what_cannot_be_sent_is_not_insisted_upon(fake: FakeShop, shop: ShopClient, clock: Clock) -> None:
    with pytest.raises(Unreachable):
        shop.place(BODY, MINJI, key=" ", say=clock.said.append)
    assert clock.slept == []


@pytest.mark.parametrize("url", ["localhost:8000", "http://[", "http://", "ftp://shop", "http://127.0.0.1:abc"])
def test_an_address_that_is_none_is_said_to_be_wrong(url: str) -> None:
    with pytest.raises(Unreachable):
        ShopClient(url).get("/products")


@pytest.mark.parametrize("answer", [Reply(200, "<html>"), Reply(200, "[]")])
def test_an_answer_of_another_server_is_not_taken_for_the_shops(
    answer: Reply, fake: FakeShop, shop: ShopClient
) -> None:
    fake.will("GET /products", answer)
    with pytest.raises(NotTheShop):
        shop.get("/products")


def test_an_error_without_a_problem_document_is_told_by_its_status(fake: FakeShop, shop: ShopClient) -> None:
    fake.will("GET /products", Reply(502, "<html>"))
    with pytest.raises(Refused, match="was answered 502"):
        shop.get("/products")


def test_whoever_calls_has_one_token_signed(fake: FakeShop, shop: ShopClient) -> None:
    fake.will("GET /orders", {"items": [], "nextCursor": None})
    for who in (MINJI, OPERATOR, MINJI):
        shop.get("/orders", who)
    assert [one.token for one in fake.asked_for("GET /orders")] == ["customer:minji", "operator:op", "customer:minji"]
    assert len(fake.asked_for("POST /dev/tokens")) == 2


def test_a_token_of_ones_own_is_used_for_everything(fake: FakeShop) -> None:
    fake.will("GET /orders", {"items": [], "nextCursor": None})
    for who in (MINJI, OPERATOR):
        ShopClient(fake.url, token="own").get("/orders", who)
    assert [one.token for one in fake.asked] == ["own", "own"]


def test_the_catalogue_needs_no_token(fake: FakeShop, shop: ShopClient) -> None:
    fake.will("GET /products", {"items": []})
    shop.get("/products")
    assert [one.token for one in fake.asked] == [None]


def test_where_no_tokens_are_signed_one_is_asked_for(fake: FakeShop, shop: ShopClient) -> None:
    fake.will("POST /dev/tokens", Reply(404, {}))
    with pytest.raises(ClientError, match="STREET12_TOKEN"):
        shop.get("/orders", MINJI)


def test_a_list_is_read_to_its_last_page_under_the_same_filter(fake: FakeShop, shop: ShopClient) -> None:
    first = "GET /orders?needsAttention=true&limit=100"
    fake.will(first, {"items": [1, 2], "nextCursor": "a/b="})
    fake.will(f"{first}&cursor=a%2Fb%3D", {"items": [3], "nextCursor": None})
    assert shop.all_items("/orders", OPERATOR, {"needsAttention": "true"}) == [1, 2, 3]


def test_an_id_stays_within_its_segment(fake: FakeShop, shop: ShopClient) -> None:
    assert path("orders", "../a b?c", "events") == "/orders/..%2Fa%20b%3Fc/events"
    with pytest.raises(Refused):
        shop.get(path("orders", "../products?x"))
    assert [one.call for one in fake.asked] == ["GET /orders/..%2Fproducts%3Fx"]
