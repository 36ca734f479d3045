"""Requests that depend on where an order stands: `If-Match` on a cancel, `If-None-Match` on a reading."""

from collections.abc import Sequence
from typing import Literal

import httpx2
import pytest

from services.order.statuses import EventType, OrderState
from tests.api.world import (
    CANCELED,
    CANCELING,
    DECLINED,
    DELIVERED,
    HANEUL,
    MINJI,
    PLACED,
    FakeEngine,
    Racing,
    Shop,
    is_problem,
    record,
)
from workflows.client import TooLate

each_way = pytest.mark.parametrize("way", ["POST", "PATCH"])


async def cancel(
    shop: Shop, order_id: str, *if_match: str, way: str = "POST", who: dict[str, str] = MINJI
) -> httpx2.Response:
    """Cancel an order with these `If-Match` lines."""
    lines = [*who.items(), *(("If-Match", line) for line in if_match)]
    if way == "PATCH":
        body = {"orderStatus": "OrderCanceled"}
        return await shop.client.patch(f"/orders/{order_id}", json=body, headers=lines)
    return await shop.client.post(f"/orders/{order_id}/cancel", headers=lines)


@each_way
@pytest.mark.parametrize(
    "if_match",
    [
        ['"v1"'],
        [' "v1"\t'],
        ['"v0","v1"'],
        [',, "a,b" ,W/"v1",\t"v1",'],
        ['"v0"', '"v1"'],
        ['""', '"!#~", "v1"'],
        ["*"],
        [" * "],
    ],
)
async def test_an_order_that_stands_where_it_should_is_cancelled(shop: Shop, way: str, if_match: list[str]) -> None:
    order_id = await shop.ordered()
    answer = await cancel(shop, order_id, *if_match, way=way)
    assert (answer.status_code, answer.headers["etag"]) == (202, '"v2"')
    assert len(shop.engine.told) == 1


@each_way
@pytest.mark.parametrize(
    "if_match", [['"v2"'], ['W/"v1"'], ['"v0", W/"v1"', '"v2"'], ['"V1"'], ['"v1,v1"'], ['"*"'], [""], [" , "]]
)
async def test_an_order_that_stands_elsewhere_is_not_cancelled(shop: Shop, way: str, if_match: list[str]) -> None:
    order_id = await shop.ordered()
    is_problem(await cancel(shop, order_id, *if_match, way=way), 412, "precondition-failed")
    assert shop.engine.told == []


@each_way
@pytest.mark.parametrize(
    "if_match",
    [
        *(["v1"], ['"v1'], ['v1"'], ["'v1'"], ['w/"v1"'], ['W/ "v1"'], ["W/"], ['"v1";']),
        *(['"v1" "v2"'], ['"v1""v2"'], ['"v 1"'], ['"v1", v2'], ['*, "v1"'], ["*,"], ["*", "*"], ['"v1"', "*"]),
        [", " * 3000 + "x"],
    ],
)
async def test_a_header_that_is_no_list_of_tags_is_refused(shop: Shop, way: str, if_match: list[str]) -> None:
    order_id = await shop.ordered()
    is_problem(await cancel(shop, order_id, *if_match, way=way), 400, "bad-request")
    assert shop.engine.told == []


@pytest.mark.parametrize(
    ("state", "event", "otherwise"),
    [
        (CANCELING, EventType.ORDER_CANCELING, 202),
        (CANCELED, EventType.ORDER_CANCELED, 202),
        (DELIVERED, EventType.DELIVERED, 409),
        (DECLINED, EventType.PAYMENT_DECLINED, 409),
    ],
    ids=lambda value: value.order_status if isinstance(value, OrderState) else "",
)
async def test_where_the_order_stands_comes_before_what_it_is(
    shop: Shop, state: OrderState, event: EventType, otherwise: int
) -> None:
    order_id = await shop.ordered()
    await shop.record(order_id, state, event)
    is_problem(await cancel(shop, order_id, '"v1"'), 412, "precondition-failed")
    for met in ('"v2"', "*"):
        assert (await cancel(shop, order_id, met)).status_code == otherwise
    assert shop.engine.told == []


class Faster(FakeEngine):
    """An engine whose workflow went on after the order was read."""

    async def cancel(
        self,
        order_id: str,
        *,
        by: Literal["customer", "operator"],
        actor: str,
        if_version: int | None = None,
        note: str = "",
    ) -> None:
        await record(self.book, order_id, PLACED, EventType.ORDER_PLACED)
        await super().cancel(order_id, by=by, actor=actor, if_version=if_version)


@each_way
async def test_an_order_that_goes_on_after_it_was_read_is_not_cancelled(shop: Shop, way: str) -> None:
    engine = Faster(shop.parts.book)
    shop.exchange(engine=engine)
    order_id = await shop.ordered()
    is_problem(await cancel(shop, order_id, '"v1", "v2"', way=way), 412, "precondition-failed")
    assert engine.told == []
    assert (await cancel(shop, order_id, "*", way=way)).status_code == 202
    assert (await cancel(shop, await shop.ordered(), way=way)).status_code == 202


@pytest.mark.parametrize(
    ("final", "event"), [(CANCELED, EventType.ORDER_CANCELED), (DELIVERED, EventType.DELIVERED)], ids=["gone", "there"]
)
async def test_an_order_that_ends_after_it_was_read_stands_elsewhere(
    shop: Shop, final: OrderState, event: EventType
) -> None:
    engine = Racing(shop.parts.book)
    engine.final, engine.event = final, event
    shop.exchange(engine=engine)
    is_problem(await cancel(shop, await shop.ordered(), '"v1"'), 412, "precondition-failed")


class Over(FakeEngine):
    """An engine in which somebody terminated the workflow."""

    async def cancel(
        self,
        order_id: str,
        *,
        by: Literal["customer", "operator"],
        actor: str,
        if_version: int | None = None,
        note: str = "",
    ) -> None:
        raise TooLate(order_id)


async def test_an_order_whose_workflow_is_over_and_that_stands_where_it_should_is_too_late(shop: Shop) -> None:
    shop.exchange(engine=Over(shop.parts.book))
    is_problem(await cancel(shop, await shop.ordered(), '"v1"'), 409, "too-late-to-cancel")


@pytest.mark.parametrize("if_match", ['"v1"', '"v2"', "*"])
async def test_whether_somebody_elses_order_stands_somewhere_is_not_told(shop: Shop, if_match: str) -> None:
    order_id = await shop.ordered()
    is_problem(await cancel(shop, order_id, if_match, who=HANEUL), 404, "not-found")


async def read(shop: Shop, order_id: str, if_none_match: Sequence[str]) -> httpx2.Response:
    lines = [*MINJI.items(), *(("If-None-Match", line) for line in if_none_match)]
    return await shop.client.get(f"/orders/{order_id}", headers=lines)


@pytest.mark.parametrize(
    "known", [['"v1"'], ['W/"v1"'], ['"a,b" , ,W/"v1"'], ['"x"', '"v1"'], ["*"], [" *\t"]], ids=str
)
async def test_what_the_caller_has_is_not_sent_again(shop: Shop, known: list[str]) -> None:
    order_id = await shop.ordered()
    whole = await read(shop, order_id, [])
    answer = await read(shop, order_id, known)
    assert (answer.status_code, answer.content) == (304, b"")
    for name in ("etag", "cache-control"):
        assert answer.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    "known",
    [[], [""], ['"v2"'], ['"a,v1,b"'], ['"a,"v1"'], ["v1"], ['"v1'], ['w/"v1"'], ['*, "v1"'], ['"v1", x'], ['"*"']],
    ids=str,
)
async def test_what_the_caller_has_not_is_sent_whole(shop: Shop, known: list[str]) -> None:
    order_id = await shop.ordered()
    answer = await read(shop, order_id, known)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"v1"')
    assert answer.json()["orderId"] == order_id
