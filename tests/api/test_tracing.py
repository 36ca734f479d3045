"""The trace that a request belongs to: kept with its order, named in what is logged about it, and never an error."""

from typing import Any, Literal

import httpx2
import pytest
import structlog

from tests.api.world import MINJI, ORDER, FakeEngine, Shop
from tests.logged import logged

ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACE = f"00-{ID}-{PARENT}-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


async def place(shop: Shop, *traces: str, key: str = "k1") -> httpx2.Response:
    """Place an order with these `traceparent` lines."""
    lines = [*MINJI.items(), ("Idempotency-Key", key), *(("Traceparent", trace) for trace in traces)]
    answer = await shop.client.post("/orders", json=ORDER, headers=lines)
    assert answer.status_code == 202, answer.text
    return answer


async def kept(shop: Shop, answer: httpx2.Response) -> str | None:
    """The trace that is kept with the order of that answer."""
    return (await shop.parts.book.get(answer.json()["orderId"])).order.traceparent


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (TRACE, TRACE),
        (OTHER, OTHER),
        (f"00-{ID}-{PARENT}-ff", f"00-{ID}-{PARENT}-ff"),
        (f"01-{ID}-{PARENT}-00", f"00-{ID}-{PARENT}-00"),
        (f"cc-{ID}-{PARENT}-03", TRACE),
        (f"fe-{ID}-{PARENT}-f1-what-is=to, come", TRACE),
        (f"01-{ID}-{PARENT}-01-", TRACE),
    ],
)
async def test_an_order_keeps_the_trace_of_its_request(shop: Shop, given: str, read: str) -> None:
    answer = await place(shop, given)
    assert await kept(shop, answer) == read
    assert ID not in answer.text


@pytest.mark.parametrize(
    "given",
    [
        *([], [""], ["-"], [TRACE, TRACE], [TRACE, OTHER], [f"{TRACE},{OTHER}"]),
        *([TRACE[:-1]], [f"{TRACE}0"], [f"{TRACE}-"], [f"{TRACE}-more"], [TRACE.replace("-", "_")]),
        *([f"ff-{ID}-{PARENT}-01"], [f"0-{ID}-{PARENT}-01"], [f"FE-{ID}-{PARENT}-01"]),
        *([f"01-{ID}-{PARENT}-01.more"], [f"01-{ID}-{PARENT}-0"], [f"01-{ID}-{PARENT}-011"]),
        *([f"00-{'0' * 32}-{PARENT}-01"], [f"00-{ID}-{'0' * 16}-01"], [f"01-{'0' * 32}-{PARENT}-01"]),
        *([TRACE.upper()], [f"00-{ID.upper()}-{PARENT}-01"], [f"00-{ID}-{PARENT}-0A"], [f"00-{ID}-{PARENT}-0g"]),
        *([f"00-{ID[1:]}-{PARENT}-01"], [f"00-{ID}-{PARENT}0-01"], [f"00-{ID}-{PARENT}-01" + "0" * 4000]),
    ],
    ids=lambda lines: ";".join(line[:70] for line in lines) or "none",
)
async def test_what_is_no_trace_is_passed_over(shop: Shop, given: list[str]) -> None:
    assert await kept(shop, await place(shop, *given)) is None


@pytest.mark.parametrize("again", [[OTHER], [], ["no trace"]], ids=["another", "none", "malformed"])
async def test_a_retry_has_another_trace_and_is_the_same_request(shop: Shop, again: list[str]) -> None:
    first = await place(shop, TRACE)
    retry = await place(shop, *again)
    assert retry.headers["idempotent-replayed"] == "true"
    assert retry.json() == first.json()
    assert await kept(shop, retry) == TRACE


class Logging(FakeEngine):
    """An engine that notes what each line that is logged meanwhile would name."""

    bound: dict[str, Any]

    async def cancel(
        self,
        order_id: str,
        *,
        by: Literal["customer", "operator"],
        actor: str,
        if_version: int | None = None,
        note: str = "",
    ) -> None:
        self.bound = structlog.contextvars.get_contextvars()


async def test_what_is_logged_about_a_request_names_its_trace(shop: Shop) -> None:
    engine = Logging(shop.parts.book)
    shop.exchange(engine=engine)
    path = f"/orders/{await shop.ordered()}/cancel"
    # One after the other in one context, as requests that are sent ahead on one connection.
    for given, named in ((TRACE, ID), ("no trace", None), (f"cc-{ID}-{PARENT}-01-x", ID), (None, None)):
        headers = {**MINJI, **({"traceparent": given} if given else {})}
        answer = await shop.client.post(path, headers=headers)
        assert engine.bound["request_id"] == answer.headers["x-request-id"]
        assert engine.bound.get("trace_id") == named
        assert ("trace_id" in engine.bound) == (named is not None)


async def test_what_is_logged_about_a_request_names_the_order_that_it_is_about(shop: Shop) -> None:
    engine = Logging(shop.parts.book)
    shop.exchange(engine=engine)
    order_id = await shop.ordered()
    await shop.client.post(f"/orders/{order_id}/cancel", headers=MINJI)
    assert engine.bound["order_id"] == order_id
    with logged() as lines:
        await shop.client.get("/orders/order_x", headers=MINJI)
        await shop.client.get("/products/none", headers=MINJI)
        accepted = await shop.ordered()
    of_order, of_product = lines.of("request refused")
    assert of_order["order_id"] == "order_x"
    assert "order_id" not in of_product, "it is the one of the request before"
    assert [line["order_id"] for line in lines.of("order accepted")] == [accepted]
    assert all(line["request_id"] for line in lines.of("request refused"))
