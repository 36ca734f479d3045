"""The calls of the shop's first version: what its clients send is still understood, and answered under their names."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.api.world import CARRIER, HANEUL, MINJI, OPERATOR, ORDER, Shop, is_problem

NAMES = {"/orderStatus": "/orders", "/promotes": "/coupons", "/stockDeliveries": "/orders"}


# Orders as they were sent


async def test_an_order_of_the_first_version_is_taken(shop: Shop) -> None:
    answer = await shop.order(userId="minji", productName="녹차", qty="2", productPrice="4500", payStatus="Y")
    assert answer.status_code == 202
    order = answer.json()
    assert (order["qty"], order["productPrice"], order["amount"]) == (2, 4500, 9000)
    assert (order["userId"], order["productName"], order["payStatus"]) == ("minji", "보성 녹차", "NotPaid")


async def test_a_repetition_is_known_however_it_is_written(shop: Shop) -> None:
    headers = {**MINJI, "Idempotency-Key": "once"}
    first = await shop.client.post("/orders", json=ORDER, headers=headers)
    again: dict[str, Any] = {"userId": "minji", "payStatus": "Paid", "productName": "차", "qty": "2"}
    again |= {"phoneNo": "+82 10-1234-5678", "username": " 김민지 "}
    answer = await shop.client.post("/orders", json={**ORDER, **again}, headers=headers)
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (202, "true")
    assert answer.json() == first.json()
    other = {**ORDER, "qty": "3"}
    answer = await shop.client.post("/orders", json=other, headers=headers)
    is_problem(answer, 422, "idempotency-key-reused")


@pytest.mark.parametrize(("field", "value"), [("userId", "haneul"), ("userId", ""), ("payStatus", "N")])
async def test_what_does_not_agree_with_the_caller_is_refused(shop: Shop, field: str, value: str) -> None:
    changes: dict[str, Any] = {field: value}
    found = is_problem(await shop.order(**changes), 422, "invalid-request")
    assert [(error["in"], error["pointer"]) for error in found["errors"]] == [("body", f"/{field}")]
    assert await shop.count() == 0


async def test_a_price_that_was_sent_as_a_text_must_match_as_well(shop: Shop) -> None:
    is_problem(await shop.order(productPrice="4499"), 409, "price-changed")


async def test_a_phone_number_is_kept_in_its_national_form(shop: Shop) -> None:
    for sent in ("01012345678", "+82 10 1234 5678", "010.1234.5678"):
        assert (await shop.order(phoneNo=sent)).json()["phoneNo"] == "010-1234-5678"
    found = is_problem(await shop.order(phoneNo="12345"), 422, "invalid-request")
    assert [error["pointer"] for error in found["errors"]] == ["/phoneNo"]


@pytest.mark.parametrize("status", ["OrderCanceled", "orderCanceled", "Order Canceled"])
async def test_an_order_is_cancelled_by_any_of_the_words_for_it(shop: Shop, status: str) -> None:
    order_id = await shop.ordered()
    answer = await shop.client.patch(f"/orders/{order_id}", json={"orderStatus": status}, headers=MINJI)
    assert (answer.status_code, answer.json()["orderStatus"]) == (202, "OrderCanceling")


@pytest.mark.parametrize("status", ["ordercanceled", "Order canceled", " OrderCanceled", "OrderCancelled", "Canceled"])
async def test_no_other_word_cancels_an_order(shop: Shop, status: str) -> None:
    order_id = await shop.ordered()
    answer = await shop.client.patch(f"/orders/{order_id}", json={"orderStatus": status}, headers=MINJI)
    is_problem(answer, 422, "invalid-request")
    assert shop.engine.told == []


# Names that are read


async def with_an_order(shop: Shop) -> str:
    order_id = await shop.ordered()
    await shop.parts.coupons.issue(order_id=order_id, user_id="minji", amount=9000)
    await shop.parts.deliveries.start(order_id=order_id, product_id="tea", qty=2)
    return order_id


@pytest.mark.parametrize("name", NAMES)
async def test_a_classic_name_says_that_it_is_deprecated_and_for_what(shop: Shop, name: str) -> None:
    await with_an_order(shop)
    answer = await shop.client.get(name, headers=MINJI)
    assert len(answer.json()["items"]) == 1
    assert answer.headers["deprecation"] == f"@{int(datetime(2026, 11, 24, tzinfo=UTC).timestamp())}"
    assert answer.headers["link"] == f'<{NAMES[name]}>; rel="successor-version"'
    successor = await shop.client.get(NAMES[name], headers=MINJI)
    assert not {"deprecation", "link"} & successor.headers.keys()


@pytest.mark.parametrize("name", ["/orderStatus", "/promotes"])
async def test_a_classic_name_answers_what_its_successor_answers(shop: Shop, name: str) -> None:
    for _ in range(2):
        await with_an_order(shop)
    for who in (MINJI, HANEUL, OPERATOR):
        for query in ("", "?limit=1"):
            classic = await shop.client.get(f"{name}{query}", headers=who)
            assert classic.json() == (await shop.client.get(f"{NAMES[name]}{query}", headers=who)).json()
    cursor = (await shop.client.get(f"{name}?limit=1", headers=MINJI)).json()["nextCursor"]
    answers = [await shop.client.get(path, params={"cursor": cursor}, headers=MINJI) for path in (name, NAMES[name])]
    assert answers[0].json() == answers[1].json()
    assert len(answers[0].json()["items"]) == 1


async def test_a_caller_lists_the_deliveries_of_their_own_orders_and_an_operator_all(shop: Shop) -> None:
    first, _, third = await with_an_order(shop), await shop.ordered(), await with_an_order(shop)
    called_off = await shop.ordered()
    await shop.parts.deliveries.cancel(order_id=called_off, product_id="tea", qty=2)  # before it began
    other = await shop.ordered(HANEUL)
    await shop.parts.deliveries.start(order_id=other, product_id="tea", qty=2)

    async def listed(who: dict[str, str]) -> list[dict[str, Any]]:
        return (await shop.client.get("/stockDeliveries", headers=who)).json()["items"]

    single = await shop.client.get(f"/deliveries/{third}", headers=MINJI)
    assert (await listed(MINJI))[0] == single.json()
    assert [item["orderId"] for item in await listed(MINJI)] == [third, first]
    assert [item["orderId"] for item in await listed(HANEUL)] == [other]
    assert [item["orderId"] for item in await listed(OPERATOR)] == [other, third, first]


async def test_a_page_of_deliveries_goes_over_so_many_orders(shop: Shop) -> None:
    oldest = await with_an_order(shop)
    for _ in range(3):
        await shop.ordered()
    pages: list[list[str]] = []
    cursor: str | None = None
    while not pages or cursor:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        answer = (await shop.client.get("/stockDeliveries", params=query, headers=MINJI)).json()
        pages.append([item["orderId"] for item in answer["items"]])
        cursor = answer["nextCursor"]
    assert pages == [[], [oldest]]


@pytest.mark.parametrize("name", NAMES)
async def test_a_classic_name_is_for_those_that_its_successor_is_for(shop: Shop, name: str) -> None:
    is_problem(await shop.client.get(name), 401, "unauthorized")
    is_problem(await shop.client.get(name, headers=CARRIER), 403, "forbidden")
    for method in ("POST", "PUT", "DELETE"):
        is_problem(await shop.client.request(method, name, headers=MINJI), 405, "method-not-allowed")


async def test_the_description_marks_what_is_classic(shop: Shop) -> None:
    paths = (await shop.client.get("/openapi.json")).json()["paths"]
    deprecated = {path for path, calls in paths.items() for call in calls.values() if call.get("deprecated")}
    assert deprecated == NAMES.keys()
