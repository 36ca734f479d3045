"""The timeline, at once and as it grows."""

import asyncio
import re

from services.gateway.stream import follow as follow
from services.order.statuses import EventType, OrderStatus
from tests.api.conftest import KIM, World

STREAM = KIM | {"Accept": "text/event-stream"}


async def _story(world: World) -> str:
    """An order that was declined: two events, and its end."""
    order_id: str = (await world.order())["orderId"]
    await world.happen(order_id, 2, EventType.PAYMENT_DECLINED, OrderStatus.PAYMENT_DECLINED, code="payment-declined")
    return order_id


async def test_the_timeline_reads_in_order(world: World) -> None:
    items = (await world.http.get(f"/orders/{await _story(world)}/events", headers=KIM)).json()["items"]
    assert [(item["version"], item["type"]) for item in items] == [(1, "OrderReceived"), (2, "PaymentDeclined")]
    assert items[1]["detail"] == {"code": "payment-declined"}
    assert all(item["at"].endswith("Z") and sorted(item) == ["at", "detail", "type", "version"] for item in items)


async def test_the_stream_ends_with_the_order(world: World) -> None:
    answer = await world.http.get(f"/orders/{await _story(world)}/events", headers=STREAM)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert re.findall(r"^id: (\d+)\nevent: (\w+)\ndata: \{", answer.text, re.M) == [
        ("1", "OrderReceived"),
        ("2", "PaymentDeclined"),
    ]


async def test_the_stream_goes_on_where_the_reader_left_it(world: World) -> None:
    order_id = await _story(world)
    rest = await world.http.get(f"/orders/{order_id}/events", headers=STREAM | {"Last-Event-ID": "1"})
    assert re.findall(r"^id: (\d+)", rest.text, re.M) == ["2"]
    nothing = await world.http.get(f"/orders/{order_id}/events", headers=STREAM | {"Last-Event-ID": "2"})
    assert (nothing.status_code, nothing.text) == (200, "")


async def test_the_stream_tells_what_happens_while_it_is_open_and_beats_in_between(world: World) -> None:
    order_id: str = (await world.order())["orderId"]
    stream = follow(world.parts.book, order_id, after=0, every=0.001, heartbeat=2)
    async with asyncio.timeout(5):
        assert (await anext(stream)).startswith("id: 1\n")
        assert (await anext(stream)).startswith(":")
        await world.happen(order_id, 2, EventType.ORDER_CANCELED, OrderStatus.ORDER_CANCELED)
        rest = [part async for part in stream if not part.startswith(":")]
    assert [part.split("\n")[0] for part in rest] == ["id: 2"]
