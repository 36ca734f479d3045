"""An order's whole life in the terminal: `python -m deploy.demo`, or `make demo`, against a running shop.

Places an order, follows it until its delivery has started, cancels it, and follows the undo to its end.
"""

import sys
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy import screen
from deploy.client import ClientError, Json, Say, ShopClient, Who, path
from deploy.stack import Stack, StackError, StackSettings, Urls, read_settings
from deploy.timeline import ENDS
from services.shared.money import format_amount

CUSTOMER = Who("demo-customer")
OPERATOR = Who("demo-operator", "operator")
PRODUCT_ID = "1001"
QTY = 1
BODY: Json = {
    "productId": PRODUCT_ID,
    "qty": QTY,
    "username": "홍길동",
    "address": "서울특별시 중구 세종대로 110",
    "phoneNo": "010-1234-5678",
    "paymentMethod": "pm_card_visa",
}
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Step:
    """A row of the picture: what is done and undone, by whom, and the events that tell of it."""

    team: str
    do: str
    done: str
    undo: str
    undone: str


SAGA = (
    Step("order", "pay_order", "OrderPlaced", "refund_payment", "PaymentRefunded"),
    Step("marketing", "issue_coupon", "CouponIssued", "revoke_coupon", "CouponRevoked"),
    Step("delivery", "start_delivery", "DeliveryStarted", "cancel_delivery", "DeliveryCanceled"),
    Step("delivery", "adjust_stock", "StockAdjusted", "restore_stock", "StockRestored"),
)


class DemoFailed(Exception):
    """The demo did not end as it should; the message says where and why."""


class Shop:
    """The customer's and the operator's calls on the shop, and a look into the payment provider's books."""

    def __init__(self, urls: Urls, say: Say) -> None:
        self._shop, self._payments = ShopClient(urls.api), ShopClient(urls.payments)
        self._say = say

    def products(self) -> list[Json]:
        return self._shop.get("/products")["items"]

    def on_hand(self) -> int:
        return self._shop.get(path("stocks", PRODUCT_ID), OPERATOR)["onHand"]

    def place(self) -> Json:
        return self._shop.place(BODY, CUSTOMER, key=str(uuid.uuid4()), say=self._say).order

    def order(self, order_id: str) -> Json:
        return self._shop.get(path("orders", order_id), CUSTOMER)

    def events(self, order_id: str) -> list[Json]:
        return self._shop.get(path("orders", order_id, "events"), CUSTOMER)["items"]

    def cancel(self, order_id: str) -> None:
        self._shop.post(path("orders", order_id, "cancel"), CUSTOMER)

    def ledger_row(self, order_id: str) -> Json:
        rows: list[Json] = self._payments.get("/ledger")["items"]
        return next((row for row in rows if row["orderId"] == order_id), Json())


@dataclass
class Story:
    """What is known of the order so far."""

    events: list[Json] = field(default_factory=list[Json])

    def at(self, event_type: str) -> datetime | None:
        return next((_moment(event) for event in self.events if event["type"] == event_type), None)

    def seconds(self, event: Json) -> float:
        """From the order's first event to this one."""
        return (_moment(event) - _moment(self.events[0])).total_seconds()

    def picture(self) -> Table:
        """The saga: each step beside its undo, ticked where it has happened."""
        table = Table(title="The saga of this order", title_justify="left")
        for heading in ("team", "step", "done after", "undo", "undone after"):
            table.add_column(heading)
        for step in SAGA:
            done, undone = self._tick(step.done, "OrderReceived"), self._tick(step.undone, "OrderCanceling")
            table.add_row(step.team, step.do, done, step.undo, undone)
        return table

    def timeline(self) -> list[Text]:
        return [self.line(event) for event in self.events]

    def line(self, event: Json) -> Text:
        text = Text.assemble(f"{self.seconds(event):8.2f} s  ", (f"{event['type']:<17} ", "bold"), screen.detail(event))
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def _tick(self, event_type: str, since: str) -> Text:
        at, start = self.at(event_type), self.at(since)
        if at is None or start is None:
            return Text("·", style="dim")
        return Text(f"✔ {(at - start).total_seconds():.2f} s", style="green")


class Stage:
    """Where the story is shown: redrawn in place on a terminal, line by line elsewhere."""

    def __init__(self, console: Console, story: Story) -> None:
        self._console = console
        self._story = story
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._shown = 0

    def __enter__(self) -> "Stage":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._console.print("", self._story.picture(), sep="\n")

    def show(self) -> None:
        if self._live is not None:
            self._live.update(Group(self._story.picture(), "", *self._story.timeline()), refresh=True)
        else:
            for event in self._story.events[self._shown :]:
                self._console.print(self._story.line(event), soft_wrap=True)
        self._shown = len(self._story.events)


def follow(shop: Shop, order_id: str, story: Story, stage: Stage, goal: str) -> Json:
    """Show the timeline as it grows, until it reads `goal`. Raises `DemoFailed` when the order ends without it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        events = shop.events(order_id)
        if len(events) > len(story.events):
            deadline = time.monotonic() + PATIENCE_SECONDS
        story.events = events
        stage.show()
        if story.at(goal):
            return shop.order(order_id)
        newest = events[-1]
        if newest["type"] in ENDS:
            why = screen.detail(newest) or shop.order(order_id)["cancelReason"] or "no reason was given"
            raise DemoFailed(f"The order ended with {newest['type']} instead of {goal}: {why}.")
        if time.monotonic() > deadline:
            raise DemoFailed(
                f"The order has come to {newest['type']}, and nothing has happened to it for {PATIENCE_SECONDS:.0f} s:"
                " the shop's log and the Web UI tell what it waits for."
            )
        time.sleep(POLL_SECONDS)


def tell(console: Console, urls: Urls) -> None:
    """The whole demo. Raises `DemoFailed` when it does not end as it should, `ClientError` when a call fails."""
    shop, story = Shop(urls, console.print), Story()
    console.print(screen.catalogue(shop.products()))
    stock = [shop.on_hand()]
    order = shop.place()
    order_id = order["orderId"]
    amount = format_amount(order["amount"], order["currency"])
    console.print(f"\nOrdered: {order['productName']} × {QTY} for {amount}, order {order_id}")
    link = f"{urls.temporalUi}/namespaces/default/workflows/{order_id}"
    console.print(f"In the Web UI: {link}\n", soft_wrap=True)
    with Stage(console, story) as stage:
        follow(shop, order_id, story, stage, "StockAdjusted")
        stock.append(shop.on_hand())
        paid = shop.ledger_row(order_id)
        shop.cancel(order_id)
        order = follow(shop, order_id, story, stage, "OrderCanceled")
    stock.append(shop.on_hand())
    refunded = shop.ledger_row(order_id)
    console.print("", _result(order, stock, paid, refunded), sep="\n")
    if stock[2] != stock[1] + QTY:  # others may have bought in between, so the difference is all that can be said
        console.print("Note: other orders moved the stock of this product meanwhile.")
    if (refunded.get("charged"), refunded.get("refunded")) != (order["amount"], order["amount"]):
        raise DemoFailed(f"The money was not given back in full; the simulator's ledger says {refunded}.")
    if order["payStatus"] != "Refunded" or order["deliveryStatus"] != "Canceled":
        raise DemoFailed(f"The order reads payment {order['payStatus']}, delivery {order['deliveryStatus']}.")
    console.print("Every step was undone.")


def _result(order: Json, stock: list[int], paid: Json, refunded: Json) -> Table:
    table = Table(title=f"Order {order['orderId']}", title_justify="left")
    for heading in ("", "before", "ordered", "canceled"):
        table.add_column(heading, justify="left" if not heading else "right")

    def money(row: Json, column: str) -> str:
        return format_amount(row[column], row["currency"].upper()) if row else "–"

    table.add_row("stock", *map(str, stock))
    table.add_row("charged", "–", money(paid, "charged"), money(refunded, "charged"))
    table.add_row("refunded", "–", money(paid, "refunded"), money(refunded, "refunded"))
    table.add_row("status", "–", "DeliveryStarted", order["orderStatus"])
    return table


def _moment(event: Json) -> datetime:
    return datetime.fromisoformat(event["at"])


def main() -> int:
    """The process's exit status: 0 when the order went through and was undone, 1 when not."""
    screen.tolerate_any_text()
    try:
        tell(screen.console(sys.stdout), Stack.read(read_settings(StackSettings).data_dir).urls)
    except ClientError as error:
        screen.show(sys.stderr, *screen.error_lines(error))
        return 1
    except (StackError, DemoFailed) as error:
        print(f"street12: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
