"""What the Web UI shows of an order, in Markdown, for whoever is on call."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.order.statuses import OrderState
from services.shared.money import format_amount
from workflows.messages import CancelOrder, PlaceOrder

# What Markdown takes for more than text. Names and notes come from people, and must not draw links or headings.
_MARKUP = re.compile(r"([\\`*_\[\]<>#|!~@]|(?<=:)/(?=/)|(?<=www)\.)", re.IGNORECASE)


@dataclass(frozen=True)
class Waiting:
    """What an order waits for, and since when."""

    what: str
    since: datetime

    def __str__(self) -> str:
        return f"{self.what}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What its workflow knows of an order beside its state."""

    waiting: Sequence[Waiting]
    stuck: Sequence[str]
    """The undos that wait for an operator."""
    attention: Mapping[str, str]
    """What it was flagged for, and why."""
    last_error: str
    cancel: CancelOrder | None
    may_cancel: bool
    may_waive: bool


def work_of(steps: Iterable[str], team: str) -> str:
    """Activities, and the team that does them."""
    return f"{', '.join(f'`{name}`' for name in steps)} of team **{team}**"


def details(order: PlaceOrder, state: OrderState, now: Situation) -> str:
    """The stage, what the order waits for and since when, of which team, what went wrong last, what an operator can do
    about it, and where to look further."""
    amount = format_amount(order.amount, order.currency)
    lines = [
        f"**{state.order_status}** · {plain(order.product_name)} × {order.qty} · {amount} · {state.pay_status}",
        "",  # else the Web UI takes what follows for more of the same line
        *(f"- waits for: {waiting}" for waiting in now.waiting),
        *([f"- canceled by: {_canceled_by(now.cancel)}"] if now.cancel else []),
        *(f"- **needs attention** {plain(why)}" for why in now.attention.values()),
        *(
            [f"- last error: {plain(error)}"]
            if (error := now.last_error) and error not in now.attention.values()
            else []
        ),
        "- what is being tried now, and how its last attempt failed: *Pending Activities*",
        *_what_to_do(now),
        f"- the order: {f'[{order.order_id}]({order.link})' if order.link else f'`{order.order_id}`'}",
    ]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text in which nothing is taken for Markdown, on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def _canceled_by(cancel: CancelOrder) -> str:
    note = f": {plain(cancel.note)}" if cancel.note else ""
    return f"{cancel.reason} ({plain(cancel.actor)}){note}"


def _what_to_do(now: Situation) -> Iterable[str]:
    signed = '"actor": "your name", "reason": "why"'
    for undo in now.stuck:
        yield f'- to settle: update `settle` `{{"undo": "{undo}", "action": "retry", {signed}}}`, or `"skip"`'
    if now.may_waive:
        yield f"- to deliver without a coupon: update `waive_coupon` `{{{signed}}}`"
    for about in (about for about in now.attention if about not in now.stuck):
        yield f'- once that is seen to: update `clear_attention` `{{"about": {json.dumps(about)}, {signed}}}`'
    if now.may_cancel:
        yield (
            '- to undo the order: update `cancel` `{"reason": "operator", "actor": "your name", "note": "why"}`,'
            " or *Request Cancellation*. Never terminate: effects would stay behind."
        )
