"""The payment provider keeps its promises over Stripe's wire, whatever the wire does."""

import asyncio
import json
import logging
import socket
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from services.order.provider import (
    InsufficientFunds,
    Intent,
    IntentStatus,
    PaymentDeclined,
    PaymentVoided,
    ProviderRejected,
    ProviderUnavailable,
    RefundRefused,
    StripeProvider,
)
from services.shared.errors import ShopError
from services.shared.settings import PaymentSettings
from tests.payments import Dawdling, ledger_of, serving

KEY = "sk_test_never_to_be_seen"
GRAM = 9_000_000


@asynccontextmanager
async def paying_at(url: str, *, key: str = KEY, timeout: float = 8.0) -> AsyncGenerator[StripeProvider]:
    provider = StripeProvider(PaymentSettings(url=url, key=SecretStr(key), timeout_seconds=timeout))
    try:
        yield provider
    finally:
        await provider.close()


@pytest.fixture
async def provider(simulator: str) -> AsyncGenerator[StripeProvider]:
    async with paying_at(simulator) as provider:
        yield provider


async def created(provider: StripeProvider, order_id: str = "order_1") -> str:
    return (await provider.create_intent(order_id=order_id, amount=GRAM, currency="KRW")).intent_id


async def confirmed(provider: StripeProvider, intent_id: str, method: str = "pm_card_visa") -> Intent:
    return await provider.confirm(order_id="order_1", intent_id=intent_id, payment_method=method)


async def cancelled(provider: StripeProvider, intent_id: str) -> Intent:
    return await provider.cancel_intent(order_id="order_1", intent_id=intent_id)


async def refunded(provider: StripeProvider, intent_id: str, order_id: str = "order_1") -> None:
    await provider.refund(order_id=order_id, intent_id=intent_id, amount=GRAM)


def row(*, charged: int = GRAM, refunded: int = 0) -> dict[str, Any]:
    times = {"charges": 1, "refunds": int(refunded > 0)}
    return {"orderId": "order_1", "charged": charged, "refunded": refunded, "currency": "KRW", **times}


# Creating


async def test_a_new_intent_is_the_orders_amount_uncharged(provider: StripeProvider, simulator: str) -> None:
    intent = await provider.create_intent(order_id="order_1", amount=GRAM, currency="KRW")
    assert intent == Intent(
        intent_id=intent.intent_id,
        status=IntentStatus.REQUIRES_PAYMENT_METHOD,
        amount=GRAM,
        amount_received=0,
        currency="KRW",
    )
    assert await ledger_of(simulator) == []


async def test_an_order_has_one_intent_however_often_it_is_created(provider: StripeProvider) -> None:
    assert await created(provider) == await created(provider)
    assert await created(provider) != await created(provider, "order_2")


async def test_an_orders_amount_cannot_change(provider: StripeProvider) -> None:
    await created(provider)
    with pytest.raises(ProviderRejected):
        await provider.create_intent(order_id="order_1", amount=1, currency="KRW")


# Confirming


async def test_a_confirmed_intent_is_charged(provider: StripeProvider, simulator: str) -> None:
    intent = await confirmed(provider, await created(provider))
    assert (intent.status, intent.amount_received) == (IntentStatus.SUCCEEDED, GRAM)
    assert await provider.find_intent(intent.intent_id) == intent
    assert await ledger_of(simulator) == [row()]


async def test_an_intent_is_charged_once_however_often_it_is_confirmed(
    provider: StripeProvider, simulator: str
) -> None:
    intent_id = await created(provider)
    assert await confirmed(provider, intent_id) == await confirmed(provider, intent_id)
    assert await ledger_of(simulator) == [row()]


async def test_a_charge_whose_key_the_provider_forgot_still_counts(provider: StripeProvider, simulator: str) -> None:
    intent_id = await created(provider)
    await confirmed(provider, intent_id)
    again = await provider.confirm(order_id="as_if_forgotten", intent_id=intent_id, payment_method="pm_card_visa")
    assert again.status is IntentStatus.SUCCEEDED
    assert await ledger_of(simulator) == [row()]


@pytest.mark.parametrize(
    ("method", "decline"),
    [
        ("pm_card_chargeDeclined", PaymentDeclined),
        ("pm_card_chargeDeclinedInsufficientFunds", InsufficientFunds),
        ("pm_card_of_nobody", PaymentDeclined),
    ],
)
async def test_a_decline_is_final_and_told_by_its_kind(
    provider: StripeProvider, simulator: str, method: str, decline: type[ShopError]
) -> None:
    intent_id = await created(provider)
    for _ in range(2):
        with pytest.raises(PaymentDeclined) as raised:
            await confirmed(provider, intent_id, method)
        assert type(raised.value) is decline
        assert not raised.value.retryable
    assert await ledger_of(simulator) == []


async def test_a_lost_reply_is_unknown_until_the_same_is_asked_again(provider: StripeProvider, simulator: str) -> None:
    intent_id = await created(provider)
    with pytest.raises(ProviderUnavailable):
        await confirmed(provider, intent_id, "pm_sim_lostReply")
    assert (await confirmed(provider, intent_id, "pm_sim_lostReply")).status is IntentStatus.SUCCEEDED
    assert await ledger_of(simulator) == [row()]


async def test_an_outage_is_asked_through(provider: StripeProvider, simulator: str) -> None:
    intent_id = await created(provider)
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            await confirmed(provider, intent_id, "pm_sim_outage")
    assert (await confirmed(provider, intent_id, "pm_sim_outage")).status is IntentStatus.SUCCEEDED
    assert await ledger_of(simulator) == [row()]


async def test_a_payment_still_under_way_is_unknown_until_asked_again(
    provider: StripeProvider, simulator: str, dawdling: Dawdling
) -> None:
    intent_id = await created(provider)
    first = asyncio.create_task(confirmed(provider, intent_id, "pm_sim_slow"))
    await dawdling.begun.wait()
    with pytest.raises(ProviderUnavailable):
        await confirmed(provider, intent_id, "pm_sim_slow")
    dawdling.may_end.set()
    assert await first == await confirmed(provider, intent_id, "pm_sim_slow")
    assert await ledger_of(simulator) == [row()]


async def test_a_payment_slower_than_our_patience_is_unknown_until_asked_again(
    simulator: str, dawdling: Dawdling
) -> None:
    async with paying_at(simulator) as provider, paying_at(simulator, timeout=0.05) as impatient:
        intent_id = await created(provider)
        with pytest.raises(ProviderUnavailable):
            await confirmed(impatient, intent_id, "pm_sim_slow")
        assert dawdling.begun.is_set(), "it had reached the provider"
        dawdling.may_end.set()
        assert (await confirmed(provider, intent_id, "pm_sim_slow")).status is IntentStatus.SUCCEEDED
    assert await ledger_of(simulator) == [row()]


# Cancelling


async def test_a_cancelled_intent_is_void_for_ever(provider: StripeProvider, simulator: str) -> None:
    intent_id = await created(provider)
    assert (await cancelled(provider, intent_id)).status is IntentStatus.CANCELED
    assert (await cancelled(provider, intent_id)).status is IntentStatus.CANCELED
    for _ in range(2):
        with pytest.raises(PaymentVoided):
            await confirmed(provider, intent_id)
    assert await ledger_of(simulator) == []


async def test_a_cancel_beats_a_charge_in_flight(provider: StripeProvider, simulator: str, dawdling: Dawdling) -> None:
    intent_id = await created(provider)
    confirming = asyncio.create_task(confirmed(provider, intent_id, "pm_sim_slow"))
    await dawdling.begun.wait()
    assert (await cancelled(provider, intent_id)).status is IntentStatus.CANCELED
    dawdling.may_end.set()
    with pytest.raises(PaymentVoided):
        await confirming
    assert await ledger_of(simulator) == []


async def test_a_cancel_that_comes_too_late_says_that_the_charge_won(provider: StripeProvider, simulator: str) -> None:
    intent_id = await created(provider)
    await confirmed(provider, intent_id)
    assert (await cancelled(provider, intent_id)).status is IntentStatus.SUCCEEDED
    assert await ledger_of(simulator) == [row()]


async def test_a_declined_intent_can_be_cancelled(provider: StripeProvider) -> None:
    intent_id = await created(provider)
    with pytest.raises(PaymentDeclined):
        await confirmed(provider, intent_id, "pm_card_chargeDeclined")
    assert (await cancelled(provider, intent_id)).status is IntentStatus.CANCELED


async def test_an_unknown_intent_is_our_mistake(provider: StripeProvider) -> None:
    for asking in (
        provider.find_intent("pi_none"),
        confirmed(provider, "pi_none"),
        cancelled(provider, "pi_none"),
    ):
        with pytest.raises(ProviderRejected):
            await asking


# Refunding


async def test_a_charge_is_given_back_once_however_often_it_is_asked(provider: StripeProvider, simulator: str) -> None:
    intent_id = await created(provider)
    await confirmed(provider, intent_id)
    for _ in range(2):
        await refunded(provider, intent_id)
    assert await ledger_of(simulator) == [row(refunded=GRAM)]


async def test_a_refund_whose_key_the_provider_forgot_still_counts(provider: StripeProvider, simulator: str) -> None:
    intent_id = await created(provider)
    await confirmed(provider, intent_id)
    await refunded(provider, intent_id)
    await refunded(provider, intent_id, order_id="as_if_forgotten")
    assert await ledger_of(simulator) == [row(refunded=GRAM)]


async def test_a_refused_refund_says_so(provider: StripeProvider, simulator: str) -> None:
    intent_id = await created(provider)
    await confirmed(provider, intent_id, "pm_sim_refundRefused")
    for _ in range(2):
        with pytest.raises(RefundRefused):
            await refunded(provider, intent_id)
    assert await ledger_of(simulator) == [row()]


# A provider, or a wire, that does not answer as it should

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def provider_answered_by(handler: Handler) -> AsyncGenerator[StripeProvider]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with serving(app) as url, paying_at(url) as provider:
        yield provider


async def ask_everything(provider: StripeProvider, expected: type[ShopError]) -> None:
    for asking in (
        created(provider),
        provider.find_intent("pi_1"),
        confirmed(provider, "pi_1"),
        cancelled(provider, "pi_1"),
        refunded(provider, "pi_1"),
    ):
        with pytest.raises(expected) as raised:
            await asking
        assert type(raised.value) is expected
        assert KEY not in str(raised.value)


def stripe_error(code: str) -> str:
    return json.dumps({"error": {"type": "invalid_request_error", "code": code, "message": "No."}})


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, stripe_error("api_error")),
        (503, "<html>upstream is away</html>"),
        (429, stripe_error("rate_limit")),
        (429, stripe_error("lock_timeout")),
        (400, stripe_error("rate_limit")),
        (400, stripe_error("lock_timeout")),
        (409, stripe_error("idempotency_key_in_use")),
        (200, '{"id": "pi_1", "obj'),
    ],
)
async def test_an_answer_that_cannot_be_relied_on_is_unknown(status: int, body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type="application/json")

    async with provider_answered_by(answer) as provider:
        await ask_everything(provider, ProviderUnavailable)


async def test_a_reply_that_breaks_off_is_unknown() -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Length": "1000"})
        await reply.prepare(request)
        await reply.write(b'{"id": "pi_1"')
        assert request.transport is not None
        request.transport.close()
        return reply

    async with provider_answered_by(break_off) as provider:
        await ask_everything(provider, ProviderUnavailable)


async def test_a_reply_that_stops_in_the_middle_is_unknown() -> None:
    finished = asyncio.Event()

    async def stop(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Length": "1000"})
        await reply.prepare(request)
        await reply.write(b'{"id": "pi_1"')
        await finished.wait()
        return reply

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stop)
    async with serving(app) as url, paying_at(url, timeout=0.05) as provider:
        await ask_everything(provider, ProviderUnavailable)
        finished.set()


async def test_nobody_listening_is_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    async with paying_at(f"http://127.0.0.1:{port}") as provider:
        await ask_everything(provider, ProviderUnavailable)


async def test_a_wrong_key_is_put_right_one_day_and_never_told(
    simulator: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with paying_at(simulator, key=f"pk{KEY}") as provider:
        await ask_everything(provider, ProviderUnavailable)
    assert KEY not in caplog.text


async def test_a_call_is_never_repeated_by_the_client() -> None:
    calls: list[str] = []

    async def fail(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.Response(status=503, headers={"Stripe-Should-Retry": "true"})

    async with provider_answered_by(fail) as provider:
        with pytest.raises(ProviderUnavailable):
            await confirmed(provider, "pi_1")
    assert calls == ["/v1/payment_intents/pi_1/confirm"]


@pytest.mark.parametrize("failure", ["fault", "too many requests", "reset"])
async def test_what_is_unknown_is_asked_for_again_under_the_same_key(failure: str) -> None:
    keys: dict[str, list[str | None]] = defaultdict(list)

    async def fail(request: web.Request) -> web.Response:
        keys[request.path].append(request.headers.get("Idempotency-Key"))
        if failure == "reset" and request.transport is not None:
            request.transport.abort()
        return web.Response(status=429 if failure == "too many requests" else 500)

    async with provider_answered_by(fail) as provider, provider_answered_by(fail) as another:
        for attempt in (provider, provider, another):
            for asking in (created(attempt), confirmed(attempt, "pi_1"), refunded(attempt, "pi_1")):
                with pytest.raises(ProviderUnavailable):
                    await asking
    assert keys == {
        "/v1/payment_intents": ["order_1:intent"] * 3,
        "/v1/payment_intents/pi_1/confirm": ["order_1:confirm"] * 3,
        "/v1/refunds": ["order_1:refund"] * 3,
    }


def intent_json(status: str) -> dict[str, Any]:
    received = GRAM if status == "succeeded" else 0
    return {
        "id": "pi_1",
        "object": "payment_intent",
        "status": status,
        "amount": GRAM,
        "amount_received": received,
        "currency": "krw",
    }


def stored(status: int, code: str) -> web.Response:
    headers = {"Idempotent-Replayed": "true"}
    return web.Response(status=status, text=stripe_error(code), content_type="application/json", headers=headers)


async def test_a_fault_stored_under_the_key_does_not_hide_the_charge_for_ever() -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.headers["Idempotency-Key"] == "order_1:confirm":
            return stored(500, "api_error")
        return web.json_response(intent_json("succeeded"))

    async with provider_answered_by(answer) as provider:
        assert (await confirmed(provider, "pi_1")).status is IntentStatus.SUCCEEDED


async def test_a_refusal_stored_under_the_key_does_not_bar_a_later_refund() -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.headers["Idempotency-Key"] == "order_1:refund":
            return stored(400, "charge_disputed")
        return web.json_response({"id": "re_1", "object": "refund", "status": "succeeded"})

    async with provider_answered_by(answer) as provider:
        await refunded(provider, "pi_1")


async def test_a_refund_that_fails_at_once_is_refused() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"id": "re_1", "object": "refund", "status": "failed"})

    async with provider_answered_by(answer) as provider:
        with pytest.raises(RefundRefused):
            await refunded(provider, "pi_1")


@pytest.mark.parametrize("status", ["pending", "requires_action"])
async def test_a_refund_that_is_on_its_way_is_not_done(status: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"id": "re_1", "object": "refund", "status": status})

    async with provider_answered_by(answer) as provider:
        with pytest.raises(ProviderUnavailable):
            await refunded(provider, "pi_1")


async def of_yesterday(request: web.Request, *, now: str, new: str) -> web.Response:
    """The key answers with a refund that was pending then; it is `now` something else, and a `new` one is, too."""
    refund = {"id": "re_1", "object": "refund", "status": "pending"}
    if request.method == "GET":
        assert request.path == "/v1/refunds/re_1"
        return web.json_response({**refund, "status": now})
    if request.headers["Idempotency-Key"] == "order_1:refund":
        return web.json_response(refund, headers={"Idempotent-Replayed": "true"})
    return web.json_response({"id": "re_2", "object": "refund", "status": new})


@pytest.mark.parametrize(
    ("now", "new", "raised"),
    [
        ("succeeded", "never asked for", None),
        ("pending", "never asked for", ProviderUnavailable),
        ("failed", "succeeded", None),
        ("canceled", "failed", RefundRefused),
    ],
)
async def test_a_refund_of_an_earlier_attempt_counts_for_what_it_is_now_and_is_asked_for_anew_if_it_failed(
    now: str, new: str, raised: type[Exception] | None
) -> None:
    async with provider_answered_by(partial(of_yesterday, now=now, new=new)) as provider:
        with nullcontext() if raised is None else pytest.raises(raised):
            await refunded(provider, "pi_1")


@pytest.mark.parametrize(
    ("states", "done"), [(["failed", "succeeded"], True), (["failed", "pending"], False), ([], False)]
)
async def test_a_charge_that_is_already_refunded_is_so_once_the_money_has_arrived(
    states: list[str], done: bool
) -> None:
    """The key is forgotten, or its answer was of a refund that failed; another one is on its way."""

    async def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            error = stripe_error("charge_already_refunded")
            return web.Response(status=400, text=error, content_type="application/json")
        assert request.query["payment_intent"] == "pi_1"
        refunds = [{"id": f"re_{place}", "object": "refund", "status": state} for place, state in enumerate(states)]
        return web.json_response({"object": "list", "url": "/v1/refunds", "has_more": False, "data": refunds})

    async with provider_answered_by(answer) as provider:
        with nullcontext() if done else pytest.raises(ProviderUnavailable):
            await refunded(provider, "pi_1")


@pytest.mark.parametrize(("later", "known"), [("succeeded", True), ("processing", False)])
async def test_a_charge_that_is_processing_is_looked_up_and_unknown_until_settled(later: str, known: bool) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(intent_json("processing" if request.method == "POST" else later))

    async with provider_answered_by(answer) as provider:
        if known:
            assert (await confirmed(provider, "pi_1")).status is IntentStatus.SUCCEEDED
        else:
            with pytest.raises(ProviderUnavailable):
                await confirmed(provider, "pi_1")


async def test_a_cancel_that_is_refused_while_the_charge_is_processing_is_unknown() -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response(intent_json("processing"))
        error = stripe_error("payment_intent_unexpected_state")
        return web.Response(status=400, text=error, content_type="application/json")

    async with provider_answered_by(answer) as provider:
        with pytest.raises(ProviderUnavailable):
            await cancelled(provider, "pi_1")


# Listing

LONG_AGO, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


async def test_what_became_of_the_money_is_listed_page_by_page(provider: StripeProvider) -> None:
    intents = {f"order_{number}": await created(provider, f"order_{number}") for number in range(103)}
    for order_id in ("order_1", "order_2"):
        await provider.confirm(order_id=order_id, intent_id=intents[order_id], payment_method="pm_card_visa")
    await refunded(provider, intents["order_2"], "order_2")
    await provider.cancel_intent(order_id="order_3", intent_id=intents["order_3"])
    first = await provider.list_charges(since=LONG_AGO, until=LATER, after=None)
    second = await provider.list_charges(since=LONG_AGO, until=LATER, after=first.charges[-1].intent_id)
    assert (len(first.charges), first.more, len(second.charges), second.more) == (100, True, 3, False)
    listed = {charge.order_id: charge for charge in (*first.charges, *second.charges)}
    assert {order_id: charge.intent_id for order_id, charge in listed.items()} == intents
    money = {
        order_id: (listed[order_id].status, listed[order_id].amount_received, listed[order_id].amount_refunded)
        for order_id in ("order_0", "order_1", "order_2", "order_3")
    }
    assert money == {
        "order_0": (IntentStatus.REQUIRES_PAYMENT_METHOD, 0, 0),
        "order_1": (IntentStatus.SUCCEEDED, GRAM, 0),
        "order_2": (IntentStatus.SUCCEEDED, GRAM, GRAM),
        "order_3": (IntentStatus.CANCELED, 0, 0),
    }
    assert await provider.find_charge(intents["order_2"]) == listed["order_2"]


async def test_the_list_is_of_the_time_that_is_asked_for(provider: StripeProvider) -> None:
    await created(provider)
    for since, until in ((LONG_AGO, LONG_AGO + timedelta(days=1)), (LATER, LATER + timedelta(days=1))):
        assert await provider.list_charges(since=since, until=until, after=None) == ([], False)


async def test_a_provider_that_does_not_answer_is_away() -> None:
    async with paying_at("http://127.0.0.1:9") as provider:
        with pytest.raises(ProviderUnavailable):
            await provider.list_charges(since=LONG_AGO, until=LATER, after=None)
