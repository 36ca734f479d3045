"""The order book on a real database: the view only goes forward, the timeline has no gaps, readers see their own."""

import asyncio
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from services.order.acceptance import Acceptance
from services.order.book import OrderBook, OrderReading
from services.order.statuses import EventType, OrderState, OrderStatus, PayStatus, TimelineEntry
from services.order.tables import OrderView
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable, NotFound
from services.shared.ids import first_order_id
from services.shared.settings import PoolSettings
from tests.database.orders import NOON, accept
from tests.database.proxy import running_proxy
from tests.database.servers import on_mysql, reopened
from tests.orders import an_order


def entry(version: int, type: EventType, **detail: str) -> TimelineEntry:
    return TimelineEntry(version=version, type=type, at=NOON + timedelta(seconds=version), detail=detail)


PLACED = OrderState(order_status=OrderStatus.ORDER_PLACED, pay_status=PayStatus.PAID)
ISSUED = replace(
    PLACED, order_status=OrderStatus.COUPON_ISSUED, coupon_id="c1", coupon_kind="Bronze", coupon_use_yn="N"
)


async def test_what_is_recorded_is_read(acceptance: Acceptance, order_database: Database) -> None:
    book = OrderBook(order_database)
    order_id = (await accept(acceptance)).order.order_id
    timeline = [entry(2, EventType.ORDER_PLACED), entry(3, EventType.COUPON_ISSUED, couponId="c1")]
    for _ in range(2):
        await book.record(order_id=order_id, state=ISSUED, timeline=timeline[::-1])
    view = (await book.get(order_id)).view
    assert (view.order_status, view.pay_status, view.version) == ("CouponIssued", "Paid", 3)
    assert (view.coupon_id, view.coupon_kind, view.coupon_use_yn) == ("c1", "Bronze", "N")
    assert view.updated_at == NOON + timedelta(seconds=3)
    events = await book.timeline(order_id)
    assert [(e.version, e.type, e.detail) for e in events] == [
        (1, "OrderReceived", {}),
        (2, "OrderPlaced", {}),
        (3, "CouponIssued", {"couponId": "c1"}),
    ]
    assert [e.version for e in await book.timeline(order_id, after=2)] == [3]


async def test_a_late_record_fills_the_timeline_and_leaves_the_view(
    acceptance: Acceptance, order_database: Database
) -> None:
    book = OrderBook(order_database)
    order_id = (await accept(acceptance)).order.order_id
    await book.record(order_id=order_id, state=ISSUED, timeline=[entry(3, EventType.COUPON_ISSUED)])
    # Some of it is there already, some is not.
    late = [entry(2, EventType.ORDER_PLACED), entry(3, EventType.STOCK_ADJUSTED), entry(1, EventType.DELIVERED)]
    await book.record(order_id=order_id, state=PLACED, timeline=late)
    await book.record(order_id=order_id, state=PLACED, timeline=late[:1])
    await book.record(order_id=order_id, state=PLACED, timeline=[])
    view = (await book.get(order_id)).view
    assert (view.order_status, view.version) == ("CouponIssued", 3)
    events = await book.timeline(order_id)
    assert [e.type for e in events] == ["OrderReceived", "OrderPlaced", "CouponIssued"]


async def test_records_in_any_order_and_at_once_end_the_same(acceptance: Acceptance, order_database: Database) -> None:
    book = OrderBook(order_database)
    order_id = (await accept(acceptance)).order.order_id
    timeline = [entry(version, EventType.ATTENTION_RAISED) for version in range(2, 12)]
    records = [
        book.record(
            order_id=order_id,
            state=ISSUED if upto == len(timeline) else PLACED,
            timeline=timeline[max(0, upto - 3) : upto],
        )
        for upto in (10, 3, 7, 1, 9, 5, 2, 8, 4, 6)
    ]
    await asyncio.gather(*records)
    view = (await book.get(order_id)).view
    assert (view.version, view.order_status) == (11, "CouponIssued")
    assert [e.version for e in await book.timeline(order_id)] == list(range(1, 12))


async def test_timelines_and_progress_are_told_of_many_orders_at_once(
    acceptance: Acceptance, order_database: Database
) -> None:
    book = OrderBook(order_database)
    one, other, third = [(await accept(acceptance, key)).order.order_id for key in ("k1", "k2", "k3")]
    await book.record(order_id=other, state=PLACED, timeline=[entry(2, EventType.ORDER_PLACED)])
    timeline = [entry(2, EventType.ORDER_PLACED), entry(3, EventType.COUPON_ISSUED)]
    await book.record(order_id=third, state=ISSUED, timeline=timeline)
    asked = [third, one.upper(), one, "order_unknown"]
    assert sorted(await book.progress(asked)) == [(one, 1, "OrderReceived"), (third, 3, "CouponIssued")]
    for after, expected in ((0, [(one, 1), (third, 1), (third, 2), (third, 3)]), (2, [(third, 3)]), (3, [])):
        found = [(event.order_id, event.version) for event in await book.timelines(asked, after=after)]
        assert found == expected


async def test_an_order_is_shown_to_its_owner_alone(acceptance: Acceptance, order_database: Database) -> None:
    book = OrderBook(order_database)
    order = (await accept(acceptance)).order
    assert (await book.get(order.order_id, user_id="u1")).order == order
    for user_id in ("u2", "U1", ""):
        with pytest.raises(NotFound):
            await book.get(order.order_id, user_id=user_id)
    with pytest.raises(NotFound):
        await book.get("order_unknown")


async def test_readers_that_come_together_share_a_query_and_are_told_of_their_own(
    acceptance: Acceptance, order_database: Database
) -> None:
    book = OrderBook(order_database)
    mine = [(await accept(acceptance, f"k{number}")).order.order_id for number in range(20)]
    others = (await accept(acceptance, user_id="u2")).order.order_id
    transactions: list[Connection] = []
    event.listen(order_database.engine.sync_engine, "begin", transactions.append)
    asked = [*mine, others, "order_unknown", mine[0].upper(), mine[0]]
    found = await asyncio.gather(*(book.get(order_id, user_id="u1") for order_id in asked), return_exceptions=True)
    assert len(transactions) <= 2, "the first may go alone, then all that came meanwhile"
    told = [one.order.order_id if isinstance(one, OrderReading) else type(one) for one in found]
    assert told == [*mine, NotFound, NotFound, NotFound, mine[0]]
    assert all(one.view.order_id == one.order.order_id for one in found if isinstance(one, OrderReading))


async def test_a_reader_sees_what_was_recorded_before_it_asked(
    acceptance: Acceptance, order_database: Database
) -> None:
    book = OrderBook(order_database)
    order_id = (await accept(acceptance)).order.order_id
    for version in range(2, 12):
        earlier = asyncio.ensure_future(book.get(order_id))  # its query may be on its way
        await book.record(order_id=order_id, state=PLACED, timeline=[entry(version, EventType.ATTENTION_RAISED)])
        assert (await book.get(order_id)).view.version == version
        assert (await earlier).view.version in (version - 1, version)


@on_mysql
async def test_readers_go_past_those_whose_connection_fell_silent(
    acceptance: Acceptance, order_database: Database
) -> None:
    order_id = (await accept(acceptance)).order.order_id
    async with running_proxy(order_database) as proxy:
        database = reopened(order_database, PoolSettings(transaction_seconds=5), host=proxy.host, port=proxy.port)
        book = OrderBook(database)
        await book.get(order_id)
        assert proxy.silence() == 1
        proxy.heal()  # as after a failover: what is open leads nowhere, what is opened now does
        hanging = asyncio.create_task(book.get(order_id))
        await asyncio.wait([hanging], timeout=0.1)  # its round has begun, without whoever asks now
        assert (await book.get(order_id)).order.order_id == order_id
        assert not hanging.done()
        with pytest.raises(DatabaseUnavailable):
            await hanging
        await database.close()


async def test_orders_are_listed_newest_first_and_page_by_page(
    acceptance: Acceptance, order_database: Database
) -> None:
    book = OrderBook(order_database)
    mine = [(await accept(acceptance, f"k{number}")).order.order_id for number in range(5)]
    others = (await accept(acceptance, user_id="u2")).order.order_id
    await book.record(order_id=mine[1], state=PLACED, timeline=[entry(2, EventType.ORDER_PLACED)])
    flagged = replace(PLACED, needs_attention=True)
    await book.record(order_id=mine[3], state=flagged, timeline=[entry(2, EventType.ATTENTION_RAISED)])

    async def listed(
        *,
        user_id: str | None = None,
        order_status: str | None = None,
        needs_attention: bool | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[str]:
        found = await book.list(
            user_id=user_id, order_status=order_status, needs_attention=needs_attention, limit=limit, before=before
        )
        assert all(reading.order.order_id == reading.view.order_id for reading in found)
        return [reading.order.order_id for reading in found]

    assert await listed() == [others, *mine[::-1]]
    assert await listed(user_id="u1", limit=2) == mine[:2:-1]
    assert await listed(user_id="u1", limit=2, before=mine[3]) == [mine[2], mine[1]]
    assert await listed(order_status="OrderPlaced") == [mine[3], mine[1]]
    assert await listed(order_status="OrderPlaced", needs_attention=True) == [mine[3]]
    assert await listed(user_id="u1", needs_attention=False) == [mine[4], mine[2], mine[1], mine[0]]
    assert await listed(user_id="u3") == []


async def test_orders_are_listed_from_a_moment_on_and_before_another(order_database: Database) -> None:
    book = OrderBook(order_database)
    after = [NOON + timedelta(microseconds=later) for later in (-1, 0, 1, 2)]
    seconds = (-9, -8, 8, 9)  # by which the time in an order's id is another than its date
    ids = [first_order_id(date + timedelta(seconds=apart)) for date, apart in zip(after, seconds, strict=True)]

    async def put_in(session: AsyncSession) -> None:
        for order_id, date in zip(ids, after, strict=True):
            state = asdict(OrderState())
            session.add(an_order(order_id, date))
            session.add(OrderView(order_id=order_id, user_id="u1", updated_at=date, **state))

    await order_database.write(put_in)

    async def listed(since: datetime | None = None, until: datetime | None = None) -> list[int]:
        all_of_them, of_one = [
            await book.list(user_id=user, since=since, until=until, limit=9) for user in (None, "u1")
        ]
        assert all_of_them == of_one
        return [ids.index(reading.order.order_id) for reading in of_one]

    assert await listed() == [3, 2, 1, 0]
    assert await listed(since=after[1]) == [3, 2, 1]
    assert await listed(until=after[2]) == [1, 0]
    assert await listed(after[1], after[3]) == [2, 1]
    assert await listed(after[1].astimezone(timezone(timedelta(hours=9))), after[2]) == [1]
    assert await listed(after[1], after[1]) == []
    assert await listed(NOON - timedelta(days=20_000), NOON + timedelta(days=2_900_000)) == [3, 2, 1, 0]


async def test_records_that_come_together_share_transactions(acceptance: Acceptance, order_database: Database) -> None:
    book = OrderBook(order_database)
    order_ids = [(await accept(acceptance, key=f"k{number}")).order.order_id for number in range(20)]
    transactions: list[Connection] = []
    event.listen(order_database.engine.sync_engine, "begin", transactions.append)
    placed = [entry(2, EventType.ORDER_PLACED)]
    await asyncio.gather(*(book.record(order_id=order_id, state=PLACED, timeline=placed) for order_id in order_ids))
    assert len(transactions) <= 2, "the first may go alone, then all that came meanwhile"
    for order_id in order_ids:
        assert (await book.get(order_id)).view.order_status == "OrderPlaced"
        assert [e.type for e in await book.timeline(order_id)] == ["OrderReceived", "OrderPlaced"]


async def test_a_record_that_cannot_be_written_keeps_nobody_else_out(
    acceptance: Acceptance, order_database: Database
) -> None:
    book = OrderBook(order_database)
    order_ids = [(await accept(acceptance, key=f"k{number}")).order.order_id for number in range(4)]
    impossible: Any = None  # in a column that must hold a text
    states = [replace(PLACED, order_status=impossible) if number == 1 else PLACED for number in range(4)]
    outcomes = await asyncio.gather(
        *(
            book.record(order_id=order_id, state=state, timeline=[entry(2, EventType.ORDER_PLACED)])
            for order_id, state in zip(order_ids, states, strict=True)
        ),
        return_exceptions=True,
    )
    assert [isinstance(outcome, DBAPIError) for outcome in outcomes] == [False, True, False, False]
    versions = [(await book.get(order_id)).view.version for order_id in order_ids]
    assert versions == [2, 1, 2, 2]
    assert [e.version for e in await book.timeline(order_ids[1])] == [1], "its event went with it"
