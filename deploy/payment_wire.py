"""Stripe's wire, as far as the payment simulator speaks it: what comes in as a form, what goes out as JSON."""

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from aiohttp import web

from deploy.payment_ledger import Intent


class PaymentMethod(StrEnum):
    """What a test customer can pay with."""

    VISA = "pm_card_visa"
    DECLINED = "pm_card_chargeDeclined"
    INSUFFICIENT_FUNDS = "pm_card_chargeDeclinedInsufficientFunds"
    SLOW = "pm_sim_slow"
    """Takes 2 s. A cancel in the meantime wins."""
    LOST_REPLY = "pm_sim_lostReply"
    """Charges, then drops the connection instead of answering. A repetition is answered."""
    OUTAGE = "pm_sim_outage"
    """500 for the first three tries per intent."""
    REFUND_REFUSED = "pm_sim_refundRefused"
    """Pays; the refund is refused for good."""


DECLINE_CODES = {
    PaymentMethod.DECLINED: "generic_decline",
    PaymentMethod.INSUFFICIENT_FUNDS: "insufficient_funds",
}


class Answer(NamedTuple):
    """An HTTP status and a JSON text, as they are stored and sent."""

    status: int
    body: str


class NotExecuted(Exception):
    """A request that was turned away before it could have any effect; its answer is kept under no key."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body)
        self.answer = answer


def is_authorized(request: web.Request) -> bool:
    """Whether the request bears any secret key, as a bearer token or as Basic user name."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme == "Basic":
        try:
            credentials = base64.b64decode(credentials).decode()
        except ValueError:
            return False
    return scheme in ("Basic", "Bearer") and credentials.startswith("sk_")


async def read_form(request: web.Request) -> dict[str, str]:
    """The form's fields, with nested names as they are sent: `metadata[order_id]`."""
    return {name: str(value) for name, value in (await request.post()).items()}


def required(form: dict[str, str], name: str) -> str:
    """The field's value. Raises `NotExecuted` when it is missing."""
    if value := form.get(name):
        return value
    raise missing(name)


def missing(name: str) -> NotExecuted:
    """What to raise for a field that is missing."""
    message = f"Missing required param: {name}."
    return NotExecuted(error(400, "invalid_request_error", message, "parameter_missing", param=name))


def amount_in(form: dict[str, str]) -> int:
    """The amount, in the currency's minor unit. Raises `NotExecuted` unless it is one that Stripe accepts."""
    text = required(form, "amount")
    if text.isascii() and text.isdecimal() and 0 < int(text) <= 99_999_999_999:
        return int(text)
    message = "Invalid positive integer"
    raise NotExecuted(error(400, "invalid_request_error", message, "parameter_invalid_integer", param="amount"))


def payment_method_named(name: str | None) -> PaymentMethod | None:
    """The payment method of that name, if one is named. Raises `NotExecuted` for a name that means none."""
    try:
        return PaymentMethod(name) if name else None
    except ValueError:
        message = f"No such PaymentMethod: '{name}'"
        unknown = error(400, "invalid_request_error", message, "resource_missing", param="payment_method")
        raise NotExecuted(unknown) from None


def refund_refusal(intent: Intent, left: int, wanted: int | None) -> Answer | None:
    """Why this much (or all that is left) is not given back; nothing when it is."""
    kind = "invalid_request_error"
    if not intent.charged:
        return unexpected_state(intent, "refund")
    if intent.payment_method == PaymentMethod.REFUND_REFUSED:
        return error(400, kind, "The charge has been disputed.", "charge_disputed")
    if not left:
        return error(400, kind, "The charge has already been refunded.", "charge_already_refunded")
    if wanted is not None and wanted > left:
        return error(400, kind, f"Refund amount is greater than {left}, what is left.", param="amount")
    return None


def unexpected_state(intent: Intent, verb: str) -> Answer:
    """The refusal of something that the intent's status does not allow."""
    message = f"You cannot {verb} this PaymentIntent because it has a status of {intent.status}."
    return error(400, "invalid_request_error", message, "payment_intent_unexpected_state", intent)


def error(
    status: int, kind: str, message: str = "", code: str | None = None, intent: Intent | None = None, **more: str
) -> Answer:
    """An error in Stripe's shape; `kind` is its `type`."""
    fields: dict[str, Any] = {"type": kind, "message": message, **more}
    if code:
        fields["code"] = code
    if intent:
        fields["payment_intent"] = _intent_fields(intent)
    return Answer(status, json.dumps({"error": fields}))


def intent_shown(intent: Intent, *, expanded: bool = False) -> Answer:
    """The intent, as a success; `expanded`, with its charge in full."""
    return Answer(200, json.dumps(_intent_fields(intent, expanded=expanded)))


def intents_shown(intents: Sequence[Intent], *, more: bool, expanded: bool) -> Answer:
    """A page of the list of intents."""
    fields: dict[str, Any] = {
        "object": "list",
        "url": "/v1/payment_intents",
        "has_more": more,
        "data": [_intent_fields(intent, expanded=expanded) for intent in intents],
    }
    return Answer(200, json.dumps(fields))


def is_expanded(query: Mapping[str, str], name: str) -> bool:
    """Whether the query asks to have this shown in full: `expand[]=name`, or `expand[0]=name`."""
    return any(key.startswith("expand[") and value == name for key, value in query.items())


def number_in(query: Mapping[str, str], name: str, default: int, *, least: int = 0, most: int = 2**40) -> int:
    """A number of the query. Raises `NotExecuted` unless it is one that Stripe accepts."""
    text = query.get(name, str(default))
    if text.isascii() and text.isdecimal() and least <= int(text) <= most:
        return int(text)
    message = "Invalid integer"
    raise NotExecuted(error(400, "invalid_request_error", message, "parameter_invalid_integer", param=name))


def _charge_fields(intent: Intent) -> dict[str, Any]:
    return {
        "id": f"ch_{intent.id[3:]}",
        "object": "charge",
        "amount": intent.amount,
        "amount_captured": intent.charged,
        "amount_refunded": intent.refunded,
        "currency": intent.currency,
        "payment_intent": intent.id,
        "refunded": intent.refunded == intent.charged,
        "status": "succeeded",
    }


def _intent_fields(intent: Intent, *, expanded: bool = False) -> dict[str, Any]:
    charge = _charge_fields(intent) if intent.charged else None
    return {
        "id": intent.id,
        "object": "payment_intent",
        "amount": intent.amount,
        "amount_received": intent.charged,
        "currency": intent.currency,
        "status": intent.status,
        "payment_method": intent.payment_method,
        "latest_charge": charge if expanded or charge is None else charge["id"],
        "metadata": intent.metadata,
        "created": intent.created,
        "livemode": False,
    }


def refund_shown(refund_id: str, intent: Intent, amount: int) -> Answer:
    """The refund, as a success."""
    return Answer(200, json.dumps(refund_fields(refund_id, intent, amount)))


def refund_fields(refund_id: str, intent: Intent, amount: int) -> dict[str, Any]:
    return {
        "id": refund_id,
        "object": "refund",
        "amount": amount,
        "currency": intent.currency,
        "payment_intent": intent.id,
        "status": "succeeded",
    }


def response(answer: Answer, headers: dict[str, str] | None = None) -> web.Response:
    """The answer as it goes out."""
    return web.Response(
        status=answer.status,
        text=answer.body,
        content_type="application/json",
        headers={"Request-Id": f"req_{secrets.token_hex(7)}", **(headers or {})},
    )
