"""Acceptance on a real database: an order is promised whole, once for each key, and a refusal leaves nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from services.order.acceptance import Acceptance, Accepted, NewOrder
from services.order.book import OrderBook
from services.order.catalogue import Catalogue
from services.order.dispatch import Inbox
from services.order.errors import IdempotencyKeyReused, OutOfStock, PriceChanged, UnknownProduct
from services.order.tables import IdempotencyKey, Order, OrderEvent, OrderView
from services.shared.database import Database
from services.shared.errors import ShopError
from tests.database.orders import LEASE, NOON, TEA, HeldClock, accept, rows

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


async def test_an_accepted_order_is_there_with_its_view_and_its_first_event(
    acceptance: Acceptance, order_database: Database
) -> None:
    accepted = await accept(acceptance)
    order = accepted.order
    assert not accepted.replayed
    assert await rows(order_database, Order) == [order]
    assert (order.user_id, order.product_name, order.product_price, order.amount) == ("u1", "녹차", 1000, 3000)
    assert (order.order_date, order.started_at, order.claimed_until) == (NOON, None, NOON + LEASE)
    reading = await OrderBook(order_database).get(order.order_id)
    view = reading.view
    assert (view.order_status, view.pay_status, view.delivery_status) == ("OrderReceived", "NotPaid", "None")
    assert (view.version, view.updated_at, view.needs_attention, view.coupon_id) == (1, NOON, False, None)
    events = await OrderBook(order_database).timeline(order.order_id)
    assert [(event.version, event.type, event.at, event.detail) for event in events] == [(1, "OrderReceived", NOON, {})]


async def test_a_repeated_request_answers_the_same_order(
    acceptance: Acceptance, order_database: Database, on_hand: dict[str, int]
) -> None:
    first = await accept(acceptance)
    await Catalogue(order_database).put(product_id="tea", product_name="녹차", product_price=9999)
    for left in (3, 0):
        on_hand["tea"] = left
        assert await accept(acceptance) == replace(first, replayed=True)


async def test_a_key_that_came_with_another_request_is_refused(acceptance: Acceptance) -> None:
    await accept(acceptance)
    others: list[NewOrder] = [
        replace(TEA, product_id="cup"),
        replace(TEA, qty=4),
        replace(TEA, username="x"),
        replace(TEA, address="x"),
        replace(TEA, phone_no="x"),
        replace(TEA, payment_method="x"),
        replace(TEA, product_price=1000),
    ]
    for other in others:
        with pytest.raises(IdempotencyKeyReused):
            await accept(acceptance, request=other)


async def test_an_order_keeps_the_trace_of_the_request_that_brought_it_for_whoever_starts_it(
    acceptance: Acceptance, order_database: Database, clock: HeldClock
) -> None:
    first = await accept(acceptance, "k1", traceparent=TRACE)
    assert first.order.traceparent == TRACE
    for other in (OTHER_TRACE, None):
        assert await accept(acceptance, "k1", traceparent=other) == replace(first, replayed=True)
    together = [accept(acceptance, "k2", traceparent=OTHER_TRACE), accept(acceptance, "k3"), accept(acceptance, "k4")]
    traces = {order.order.order_id: order.order.traceparent for order in (first, *await asyncio.gather(*together))}
    assert sorted(map(str, traces.values())) == [TRACE, OTHER_TRACE, "None", "None"]
    clock.now += LEASE
    claimed = await Inbox(order_database, lease=LEASE, clock=clock).claim(10)
    assert {order.order_id: order.traceparent for order in claimed} == traces


async def test_a_key_is_its_callers_own(acceptance: Acceptance) -> None:
    mine = await accept(acceptance)
    others = [await accept(acceptance, user_id="u2"), await accept(acceptance, user_id="U1"), await accept(acceptance)]
    assert [other.replayed for other in others] == [False, False, True]
    assert len({mine.order.order_id, *(other.order.order_id for other in others)}) == 3


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        (replace(TEA, qty=4), OutOfStock),
        (replace(TEA, product_id="coffee"), UnknownProduct),
        (replace(TEA, product_price=999), PriceChanged),
    ],
)
async def test_a_refusal_leaves_nothing_behind(
    acceptance: Acceptance,
    order_database: Database,
    on_hand: dict[str, int],
    request_: NewOrder,
    refusal: type[ShopError],
) -> None:
    on_hand["tea"] = 3
    with pytest.raises(refusal):
        await accept(acceptance, request=request_)
    for table in (IdempotencyKey, Order, OrderView, OrderEvent):
        assert await rows(order_database, table) == []
    assert not (await accept(acceptance, request=replace(TEA, product_price=1000))).replayed


async def test_an_order_whose_commit_was_not_acknowledged_is_known_as_our_own(
    acceptance: Acceptance, order_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = order_database.write

    async def twice(work: Callable[[AsyncSession], Awaitable[Accepted]]) -> Accepted:
        await write(work)
        return await write(work)

    monkeypatch.setattr(order_database, "write", twice)
    accepted = await accept(acceptance)
    assert not accepted.replayed
    assert await rows(order_database, Order) == [accepted.order]
