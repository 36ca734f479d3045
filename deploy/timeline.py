"""An order's timeline, followed as it grows: the reader's side of `GET /orders/{orderId}/events` as a stream."""

from collections.abc import Iterator
from typing import cast

import httpx2

from deploy.client import COME_BACK, PAUSE_SECONDS, ClientError, Json, NotTheShop, Refused, Say, ShopClient, Who, path

ENDS = ("PaymentDeclined", "OrderCanceled", "Delivered")
RECONNECTS = 30


def follow(shop: ShopClient, order_id: str, who: Who, say: Say) -> Iterator[Json]:
    """Each event once, in order, as it happens, until no more can come.

    A stream that breaks is taken up after the last event, again and again while the shop is away for a while.
    Raises `ClientError` when it never began, when the shop refuses it, or when it stays away.
    """
    where = path("orders", order_id, "events")
    seen, pause, failures, begun = 0, PAUSE_SECONDS, 0, False
    while True:
        newest = ""
        try:
            after = {"Last-Event-ID": str(seen)} if seen else {}
            with shop.stream(where, who, {"Accept": "text/event-stream", **after}) as answer:
                if answer.status_code == 204:
                    return
                for sent in httpx2.EventSource(answer):
                    begun, failures = True, 0
                    pause = pause if sent.retry is None else sent.retry / 1000
                    if sent.data and (event := _read(sent, where))["version"] > seen:
                        seen, newest = event["version"], event["type"]
                        yield event
        except ClientError as error:
            failures += 1
            if not begun or failures > RECONNECTS or not _may_return(error, shop, who):
                raise
            say(f"{error} The timeline is taken up again in {pause:g} s.")
        # After what ends an order the shop is asked at once whether more can come; it seldom does.
        shop.sleep(0 if newest in ENDS else pause)


def _may_return(error: ClientError, shop: ShopClient, who: Who) -> bool:
    if isinstance(error, Refused):
        return error.status in COME_BACK or (error.status == 401 and shop.renew(who))
    return not isinstance(error, NotTheShop)


def _read(sent: httpx2.ServerSentEvent, where: str) -> Json:
    try:
        event = sent.json()
        if isinstance(event, dict) and isinstance(cast(Json, event)["version"], int):
            return cast(Json, event)
    except (ValueError, KeyError):
        pass
    raise NotTheShop(f"GET {where}")
