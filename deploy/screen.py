"""What the shop's API answers, shown to people: tables on a terminal, whole lines in a pipe."""

import io
import json
import sys
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TextIO, cast

from rich.console import Console, RenderableType
from rich.table import Table

from deploy.client import ClientError, Json, Refused
from services.shared.money import format_amount

_UNBOUNDED = 100_000


def tolerate_any_text() -> None:
    """A terminal that cannot write Korean is no reason to stop."""
    for stream in (sys.stdout, sys.stderr):
        cast("io.TextIOWrapper[Any]", stream).reconfigure(errors="replace")


def console(file: TextIO) -> Console:
    """Writes what it is given as it is: nothing in it is markup. Into a pipe, nothing is wrapped."""
    plain = Console(file=file, highlight=False, markup=False, emoji=False)
    if not plain.is_terminal:
        plain.width = _UNBOUNDED
    return plain


def show(file: TextIO, *pictures: RenderableType) -> None:
    """One below the other; a line of text is never broken."""
    out = console(file)
    for picture in pictures:
        out.print(picture, soft_wrap=isinstance(picture, str))


def show_json(value: Json, file: TextIO) -> None:
    """One line of JSON."""
    print(json.dumps(value, ensure_ascii=not file.encoding.lower().startswith("utf")), file=file, flush=True)


def printable(value: object) -> str:
    """A value from elsewhere, without what would move the cursor or turn the text around."""
    return "".join(sign if sign.isprintable() or unicodedata.category(sign) == "Zs" else "�" for sign in str(value))


def table(title: str, *headings: str, rows: Iterable[Iterable[object]]) -> Table:
    """A table whose first column is whole on every screen."""
    made = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        made.add_column(heading, no_wrap=number == 0, overflow="fold")
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


def order_list(title: str, orders: list[Json]) -> Table | str:
    """Where each order stands, a line an order."""
    if not orders:
        return f"{title}: none."
    rows = [
        (
            order["orderId"],
            order["orderStatus"] + (" (needs attention)" if order["needsAttention"] else ""),
            order["userId"],
            f"{order['productName']} × {order['qty']}",
            local_time(order["updatedAt"], "%m-%d %H:%M:%S"),
        )
        for order in orders
    ]
    return table(title, "order", "status", "customer", "what", "since", rows=rows)


def run_list(runs: list[Json]) -> Table | str:
    """The runs of the reconciliation, a line each."""
    if not runs:
        return "Reconciliations: none."
    rows = [
        (
            run["reconciliationId"],
            local_time(run["startedAt"], "%m-%d %H:%M:%S"),
            local_time(run["finishedAt"], "%m-%d %H:%M:%S") if run["finishedAt"] else "–",
            run["compared"],
            run["found"],
            run["repaired"],
            ", ".join(run["notCompared"]) or "–",
        )
        for run in runs
    ]
    headings = ("run", "began", "ended", "orders", "found", "repaired", "not compared")
    return table("Reconciliations, newest first", *headings, rows=rows)


def difference_list(differences: list[Json]) -> Table | str:
    """What a run found, a line each."""
    if not differences:
        return "No differences."
    rows = [(one["orderId"] or one["productId"], one["code"], one["outcome"], one["detail"]) for one in differences]
    return table("Differences", "order or product", "code", "outcome", "detail", rows=rows)


def order_sheet(order: Json) -> Table:
    """Everything about one order that has a value."""
    amounts = {name: format_amount(order[name], order["currency"]) for name in ("productPrice", "amount")}
    hidden = ("orderId", "currency")
    return facts(
        f"Order {order['orderId']}", {name: it for name, it in (order | amounts).items() if name not in hidden}
    )


def facts(title: str, values: Json) -> Table:
    """A document of the API line by line, without what is not known."""
    rows = [(name, _members(value)) for name, value in values.items() if value is not None]
    shown = table(title, "", "", rows=rows)
    shown.show_header = False
    return shown


def event_line(event: Json) -> str:
    """An event of a timeline, in the local time."""
    line = f"{event['version']:>3}  {local_time(event['at'], '%H:%M:%S.%f')[:-3]}  {event['type']:<20}{detail(event)}"
    return printable(line.rstrip())


def detail(event: Json) -> str:
    return _members(event["detail"])


def local_time(at: str, form: str) -> str:
    return datetime.fromisoformat(at).astimezone().strftime(form)


def _members(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in cast(Json, value).items())
    return ", ".join(map(str, cast(list[object], value))) if isinstance(value, list) else str(value)


def error_lines(error: ClientError) -> list[str]:
    """What went wrong, what is known about it, and what can be done."""
    lines = [f"street12: {error}"]
    if isinstance(error, Refused):
        known = [f"{error.status} {error.problem.get('code', '')}".rstrip()]
        if request_id := error.problem.get("requestId"):
            known.append(f"request {request_id}")
        lines.append(f"  ({', '.join(known)})")
        for found in cast(list[Json], error.problem.get("errors", [])):
            lines.append(f"  {found['in']} {found['pointer']}: {found['detail']}")
    if error.hint:
        lines.append(f"  {error.hint}")
    return [printable(line) for line in lines]
