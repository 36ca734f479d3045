"""The shop from the command line, over its REST API: `python -m deploy.shopctl --help`. For operators and demos.

Exit status: 0 it is done, 1 it was refused or failed (why is on the standard error), 2 that is no command, 130 Ctrl-C.
"""

import time
import uuid
from typing import Annotated, Literal

import typer

from deploy import screen
from deploy.client import ClientError, Json, Query, Role, Who, path
from deploy.desk import Desk, add_command, ascii_text
from deploy.timeline import follow

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)

POLL_SECONDS = 1.0

Order = Annotated[str, typer.Argument(metavar="ORDER", help="An order's id.")]
Product = Annotated[str, typer.Argument(metavar="PRODUCT", help="A product's id.")]
Key = Annotated[
    str | None,
    typer.Option("--key", callback=ascii_text, help="The Idempotency-Key; given again, it is done no second time."),
]


def products(
    desk: Desk, stock: Annotated[bool, typer.Option("--stock", help="With the pieces on hand.")] = False
) -> None:
    """What the shop sells. --stock is for operators, and one call more for each product."""
    found = desk.shop.get("/products")
    if stock:
        for product in found["items"]:
            product["onHand"] = desk.shop.get(path("stocks", product["productId"]), desk.operator)["onHand"]
    desk.show(found, screen.catalogue(found["items"]))


def order(
    desk: Desk,
    product: Product,
    qty: int = 1,
    pay: Annotated[str, typer.Option(help="The payment method.")] = "pm_card_visa",
    name: str = "홍길동",
    address: str = "서울특별시 중구 세종대로 110",
    phone: str = "010-1234-5678",
    wait: Annotated[int, typer.Option(min=0, max=30, help="Wait so many seconds for the payment.")] = 0,
    key: Key = None,
) -> None:
    """Order once, as --as, however often the request must be sent."""
    body: Json = {
        "productId": product,
        "qty": qty,
        "username": name,
        "address": address,
        "phoneNo": phone,
        "paymentMethod": pay,
    }
    key = key or str(uuid.uuid4())
    placed = desk.shop.place(body, desk.customer, key=key, say=desk.say, wait=wait)
    desk.show(placed.order, screen.order_sheet(placed.order))
    if placed.replayed:
        desk.say(f"The key {key} had placed this order before: nothing was ordered a second time.")


def orders(
    desk: Desk,
    status: Annotated[str | None, typer.Option(help="Only those that stand there, such as OrderPlaced.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
) -> None:
    """The newest orders: everybody's, or those of --as."""
    query: Query = {"limit": limit} | ({"orderStatus": status} if status else {})
    found = desk.shop.get("/orders", desk.buyer, query)
    desk.show(found, screen.order_list("Orders, newest first", found["items"]))


def show(desk: Desk, order_id: Order) -> None:
    """An order and its timeline. With --json, the timeline is the order's `events`."""
    found = desk.shop.get(path("orders", order_id), desk.buyer)
    events = desk.shop.get(path("orders", order_id, "events"), desk.buyer)["items"]
    desk.show(found | {"events": events}, screen.order_sheet(found), *map(screen.event_line, events))


def watch(desk: Desk, order_id: Order) -> None:
    """Follow an order's timeline until nothing more can happen. With --json, an event a line."""
    for event in follow(desk.shop, order_id, desk.buyer, desk.say):
        desk.show(event, screen.event_line(event))


def cancel(
    desk: Desk,
    order_id: Order,
    if_version: Annotated[int | None, typer.Option(help="Only if the order still has this version.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the timeline; of an operator.")] = None,
) -> None:
    """Cancel an order as an operator, or as the customer --as. Everything is undone."""
    condition = {} if if_version is None else {"If-Match": f'"v{if_version}"'}
    body: Json | None = {"reason": reason} if reason else None
    found = desk.shop.post(path("orders", order_id, "cancel"), desk.buyer, body, headers=condition)
    desk.show(found, screen.order_sheet(found))


def restock(
    desk: Desk,
    product: Product,
    qty: Annotated[int, typer.Argument(metavar="QTY", help="Pieces; fewer with `-- -5`.")],
    reason: Annotated[str, typer.Option(help="Why, for the books.")] = "restock",
    key: Key = None,
) -> None:
    """Change a product's stock once, however often the request must be sent."""
    body: Json = {"qty": qty, "reason": reason}
    found = desk.shop.move_stock(product, body, desk.operator, key=key or str(uuid.uuid4()), say=desk.say)
    desk.show(found, screen.facts("Stock", found))


def admission(desk: Desk) -> None:
    """Whether orders are taken; if not, why and since when."""
    found = desk.shop.get("/admission", desk.operator)
    desk.show(found, screen.facts("Taking orders", found))


def attention(desk: Desk) -> None:
    """The orders that wait for a person: see what for with `show`, and settle or cancel them."""
    found = desk.shop.all_items("/orders", desk.operator, {"needsAttention": "true"})
    listed: Json = {"items": found, "nextCursor": None}
    desk.show(listed, screen.order_list("Orders that need attention, newest first", found))


def settle(
    desk: Desk,
    order_id: Order,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The undo that is stuck, such as refund_payment.")],
    action: Annotated[Literal["retry", "skip"], typer.Argument(help="Try it again, or leave it undone.")],
    reason: Annotated[str, typer.Option(help="Why, for the timeline.")],
) -> None:
    """Settle an undo that failed for good."""
    body: Json = {"step": step, "action": action, "reason": reason}
    found = desk.shop.post(path("orders", order_id, "settlements"), desk.operator, body)
    desk.show(found, screen.order_sheet(found))


def waive(
    desk: Desk,
    order_id: Order,
    reason: Annotated[str, typer.Option(help="Why, for the timeline.")],
) -> None:
    """Let an order go on without the coupon that marketing keeps it waiting for. It gets none later."""
    found = desk.shop.post(path("orders", order_id, "waivers"), desk.operator, {"reason": reason})
    desk.show(found, screen.order_sheet(found))


def clear(
    desk: Desk,
    order_id: Order,
    reason: Annotated[str, typer.Option(help="What was done about it, for the timeline.")],
    about: Annotated[str | None, typer.Option(help="What it was flagged for and is seen to; else all.")] = None,
) -> None:
    """Note that what an order was flagged for has been seen to. A stuck undo is settled instead."""
    body: Json = {"reason": reason} | ({"about": about} if about else {})
    found = desk.shop.post(path("orders", order_id, "clearances"), desk.operator, body)
    desk.show(found, screen.order_sheet(found))


def reconcile(
    desk: Desk,
    listed: Annotated[bool, typer.Option("--list", help="Only show the last runs, and begin none.")] = False,
    wait: Annotated[int, typer.Option(min=1, help="Wait so many seconds for its end.")] = 900,
) -> None:
    """Compare now what every store says of the orders, and show what was found. With --json, its `differences` too.

    What has changed within the last minute is left to the next run, and what looks wrong is looked at again after a
    minute: a run takes that long.
    """
    if listed:
        runs = desk.shop.get("/reconciliations", desk.operator)
        desk.show(runs, screen.run_list(runs["items"]))
        return
    before = desk.shop.get("/reconciliations", desk.operator, {"limit": 1})["items"]
    state = desk.shop.post("/reconciliations", desk.operator)["state"]
    if state == "running":
        desk.say("A run is under way; this is that one.")
    desk.say("What has changed within the minute before it is left to the next run.")
    run = _finished(desk, known=before[0]["reconciliationId"] if before and state == "started" else None, wait=wait)
    where = path("reconciliations", run["reconciliationId"])
    found = desk.shop.all_items(f"{where}/differences", desk.operator, {})
    desk.show(run | {"differences": found}, screen.facts("Reconciliation", run), screen.difference_list(found))


def _finished(desk: Desk, *, known: str | None, wait: int) -> Json:
    """The newest run, other than the one that is `known`, once it has come to its end."""
    told = ""
    end = time.monotonic() + wait
    while time.monotonic() < end:
        runs = desk.shop.get("/reconciliations", desk.operator, {"limit": 1})["items"]
        if runs and runs[0]["reconciliationId"] != known:
            run: Json = runs[0]
            if run["finishedAt"] is not None:
                return run
            so_far = f"{run['compared']} orders compared, {run['found']} differences found"
            if so_far != told:
                desk.say(f"{so_far} …")
                told = so_far
        time.sleep(POLL_SECONDS)
    trouble = ClientError(f"The run has not come to its end within {wait} s.")
    trouble.hint = "See `shopctl reconcile --list`, and in the Web UI whether an order worker is at it."
    raise trouble


def deliver(desk: Desk, order_id: Order) -> None:
    """Tell the shop, as its carrier, that the goods were handed over."""
    found = desk.shop.post(path("deliveries", order_id, "events"), desk.carrier, {"event": "Delivered"})
    desk.show(found, screen.facts(f"Delivery {order_id}", found))


def token(desk: Desk, role: Annotated[Role, typer.Option(help="Whose rights it has.")] = "customer") -> None:
    """A token of the one-machine shop for --as, good for an hour: TOKEN=$(python -m deploy.shopctl token)"""
    found = desk.shop.sign(Who(desk.name, role))
    desk.show(found, str(found["accessToken"]))


for command in (
    products, order, orders, show, watch, cancel, deliver, restock, admission, attention, settle, waive, clear,
    reconcile, token,
):  # fmt: skip
    add_command(app, command)


def main() -> None:
    """Ends the process with the exit status."""
    screen.tolerate_any_text()
    app(prog_name="shopctl")


if __name__ == "__main__":
    main()
