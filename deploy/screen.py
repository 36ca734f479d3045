"""What the shop's API answers, shown to people: tables on a terminal, whole lines in a pipe."""

import io
import json
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import IO, Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.client import ClientError, Json, Refused
from services.shared.money import format_amount

_UNBOUNDED = 100_000


def tolerate_any_text() -> None:
    """A terminal that cannot write Korean is no reason to stop."""
    for stream in (sys.stdout, sys.stderr):
        cast("io.TextIOWrapper[Any]", stream).reconfigure(errors="replace")


def console(file: IO[str]) -> Console:
    """Writes what it is given as it is: nothing in it is markup. Into a pipe, nothing is wrapped."""
    plain = Console(file=file, highlight=False, markup=False, emoji=False)
    if not plain.is_terminal:
        plain.width = _UNBOUNDED
    return plain


def show_json(value: Json) -> None:
    """One line of JSON on the standard output."""
    can_korean = sys.stdout.encoding.lower().startswith("utf")
    print(json.dumps(value, ensure_ascii=not can_korean), flush=True)


def printable(value: object) -> str:
    """A value from elsewhere, without what would move the cursor or turn the text around."""
    return "".join(sign if sign.isprintable() else "�" for sign in str(value))


def table(title: str, *headings: str, rows: Iterable[Iterable[object]]) -> Table:
    """A table whose first column is whole on every screen."""
    made = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        made.add_column(heading, no_wrap=number == 0)
    for row in rows:
        made.add_row(*map(printable, row))
    return made


def catalogue(products: list[Json]) -> Table:
    """What is sold; with the pieces on hand where they are known."""
    with_stock = any("onHand" in product for product in products)
    rows = [
        (
            product["productId"],
            product["productName"],
            format_amount(product["productPrice"], product["currency"]),
            *((product["onHand"],) if with_stock else ()),
        )
        for product in products
    ]
    shown = table("12번가 sells", "product", "name", "price", *(("on hand",) if with_stock else ()), rows=rows)
    for column in shown.columns[2:]:
        column.justify = "right"
    return shown


def order_list(title: str, orders: list[Json]) -> Table:
    rows = [
        (
            order["orderId"],
            order["orderStatus"] + (" (needs attention)" if order["needsAttention"] else ""),
            order["userId"],
            f"{order['productName']} × {order['qty']}",
            format_amount(order["amount"], order["currency"]),
            local_time(order["updatedAt"], "%Y-%m-%d %H:%M:%S"),
        )
        for order in orders
    ]
    return table(title, "order", "status", "customer", "what", "amount", "since", rows=rows)


def order_sheet(order: Json) -> Table:
    """Everything about one order that has a value."""
    return facts(f"Order {order['orderId']}", {name: value for name, value in order.items() if name != "orderId"})


def facts(title: str, values: Json) -> Table:
    """A document of the API line by line, without what is not known."""
    rows = [(name, value) for name, value in values.items() if value is not None]
    shown = table(title, "", "", rows=rows)
    shown.show_header = False
    return shown


def event_line(event: Json) -> str:
    """An event of a timeline, in the local time."""
    line = f"{event['version']:>3}  {local_time(event['at'], '%H:%M:%S.%f')[:-3]}  {event['type']:<20}{detail(event)}"
    return printable(line.rstrip())


def detail(event: Json) -> str:
    return ", ".join(f"{name} {value}" for name, value in cast(Json, event["detail"]).items())


def local_time(at: str, form: str) -> str:
    return datetime.fromisoformat(at).astimezone().strftime(form)


def error_lines(error: ClientError) -> list[Text]:
    """What went wrong, what is known about it, and what can be done."""
    lines = [f"street12: {error}"]
    if isinstance(error, Refused):
        known = [f"{error.status} {error.problem.get('code', '')}".rstrip()]
        if request_id := error.problem.get("requestId"):
            known.append(f"request {request_id}")
        lines.append(f"  ({', '.join(known)})")
        for found in cast(list[Json], error.problem.get("errors") or []):
            lines.append(f"  {found.get('pointer') or found.get('in')}: {found.get('detail')}")
    if error.hint:
        lines.append(f"  {error.hint}")
    return [Text(printable(line)) for line in lines]
