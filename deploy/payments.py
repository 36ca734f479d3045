"""The payment simulator: a process of its own that speaks as much of Stripe's wire as the shop uses.

    python -m deploy.payments --port 12111 --host 127.0.0.1 --ledger PATH

Payment methods choose what happens: see `PaymentMethod`. `GET /ledger` tells what was charged and given back per order.
Whatever changes the books is decided and written without an `await` in between, so requests cannot mix.
"""

import argparse
import asyncio
import hashlib
import secrets
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from deploy.payment_ledger import Intent, Ledger, NotALedger, StoredAnswer
from deploy.payment_wire import (
    DECLINE_CODES,
    Answer,
    NotExecuted,
    PaymentMethod,
    amount_in,
    error,
    intent_shown,
    intents_shown,
    is_authorized,
    is_expanded,
    missing,
    number_in,
    payment_method_named,
    read_form,
    refund_fields,
    refund_refusal,
    refund_shown,
    required,
    response,
    unexpected_state,
)

Dawdle = Callable[[], Awaitable[None]]
OUTAGE_TRIES = 3
_SHUTDOWN_SECONDS = 5.0


class Simulator:
    """The calls, over one ledger. `dawdle` is how long a slow payment takes."""

    def __init__(self, ledger: Ledger, dawdle: Dawdle) -> None:
        self._ledger = ledger
        self._dawdle = dawdle
        self._executing: set[str] = set()

    def app(self) -> web.Application:
        """What an HTTP server serves."""
        app = web.Application(middlewares=[_stripe_errors])
        app.router.add_post("/v1/payment_intents", self.create_intent)
        app.router.add_get("/v1/payment_intents", self.list_intents)
        app.router.add_get("/v1/payment_intents/{id}", self.show_intent)
        app.router.add_post("/v1/payment_intents/{id}/confirm", self.confirm_intent)
        app.router.add_post("/v1/payment_intents/{id}/cancel", self.cancel_intent)
        app.router.add_post("/v1/refunds", self.refund)
        app.router.add_get("/v1/refunds", self.list_refunds)
        app.router.add_get("/v1/refunds/{id}", self.show_refund)
        app.router.add_get("/ledger", self.show_ledger)
        app.router.add_get("/healthz", self.show_health)
        return app

    async def create_intent(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        amount, currency = amount_in(form), required(form, "currency").lower()
        method = payment_method_named(form.get("payment_method"))
        confirm = form.get("confirm") == "true"
        if confirm and not method:
            raise missing("payment_method")

        def execute() -> Answer:
            intent = Intent(
                id=f"pi_{secrets.token_hex(12)}",
                metadata={k[9:-1]: v for k, v in form.items() if k.startswith("metadata[")},
                amount=amount,
                currency=currency,
                status="requires_confirmation" if method else "requires_payment_method",
                payment_method=method,
                created=int(time.time()),
            )
            self._ledger.open_intent(intent)
            return self._charge(intent, method) if confirm and method else intent_shown(intent)

        return await self._once(request, form, execute, paying=method if confirm else None)

    async def confirm_intent(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        intent = self._named_intent(request.match_info["id"])
        method = payment_method_named(form.get("payment_method") or intent.payment_method)
        if method is None:
            raise missing("payment_method")

        def execute() -> Answer:
            return self._charge(self._ledger.intent(intent.id), method)

        return await self._once(request, form, execute, paying=method)

    async def cancel_intent(self, request: web.Request) -> web.Response:
        intent_id = self._named_intent(request.match_info["id"]).id

        def execute() -> Answer:
            intent = self._ledger.intent(intent_id)
            if intent.status in ("succeeded", "canceled"):
                return unexpected_state(intent, "cancel")
            self._ledger.cancel(intent_id)
            return intent_shown(self._ledger.intent(intent_id))

        return await self._once(request, await read_form(request), execute)

    async def refund(self, request: web.Request) -> web.Response:
        form = await read_form(request)
        intent_id = self._named_intent(required(form, "payment_intent")).id
        wanted = amount_in(form) if "amount" in form else None

        def execute() -> Answer:
            intent = self._ledger.intent(intent_id)
            left = intent.charged - intent.refunded
            if refusal := refund_refusal(intent, left, wanted):
                return refusal
            refund_id = f"re_{secrets.token_hex(12)}"
            self._ledger.refund(refund_id, intent_id, wanted or left)
            return refund_shown(refund_id, intent, wanted or left)

        return await self._once(request, form, execute)

    async def show_intent(self, request: web.Request) -> web.Response:
        expanded = is_expanded(request.query, "latest_charge")
        return response(intent_shown(self._named_intent(request.match_info["id"]), expanded=expanded))

    async def list_intents(self, request: web.Request) -> web.Response:
        query = request.query
        limit = number_in(query, "limit", 10, least=1, most=100)
        found = self._ledger.intents(
            since=number_in(query, "created[gte]", 0),
            until=number_in(query, "created[lt]", 2**40),
            after=self._named_intent(query["starting_after"]) if "starting_after" in query else None,
            limit=limit + 1,
        )
        expanded = is_expanded(query, "data.latest_charge")
        return response(intents_shown(found[:limit], more=len(found) > limit, expanded=expanded))

    async def show_refund(self, request: web.Request) -> web.Response:
        refund_id = request.match_info["id"]
        found = self._ledger.find_refund(refund_id)
        if found is None:
            raise NotExecuted(error(404, "invalid_request_error", f"No such refund: '{refund_id}'", "resource_missing"))
        return response(refund_shown(refund_id, self._ledger.intent(found.intent_id), found.amount))

    async def list_refunds(self, request: web.Request) -> web.Response:
        intent = self._named_intent(request.query.get("payment_intent", ""))
        found = [refund_fields(refund_id, intent, amount) for refund_id, amount in self._ledger.refunds_of(intent.id)]
        return web.json_response({"object": "list", "url": "/v1/refunds", "has_more": False, "data": found})

    async def show_ledger(self, _request: web.Request) -> web.Response:
        return web.json_response({"items": self._ledger.totals()})

    async def show_health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _once(
        self,
        request: web.Request,
        form: dict[str, str],
        execute: Callable[[], Answer],
        paying: PaymentMethod | None = None,
    ) -> web.Response:
        """Execute a request once per idempotency key, and answer it the same ever after."""
        fingerprint = hashlib.sha256(repr((request.path, sorted(form.items()))).encode()).hexdigest()
        key = request.headers.get("Idempotency-Key") or secrets.token_hex(16)
        if key in self._executing:
            raise NotExecuted(error(409, "invalid_request_error", code="idempotency_key_in_use"))
        if stored := self._ledger.find_answer(key):
            if stored.fingerprint != fingerprint:
                message = "Keys for idempotent requests can only be used with the same parameters."
                raise NotExecuted(error(400, "idempotency_error", message))
            return response(Answer(stored.status, stored.body), {"Idempotent-Replayed": "true"})
        self._executing.add(key)
        try:
            await self._before(paying, request.match_info.get("id", key))
            with self._ledger.transaction():
                answer = execute()
                self._ledger.store_answer(key, StoredAnswer(fingerprint, *answer))
        finally:
            self._executing.discard(key)
        if paying is PaymentMethod.LOST_REPLY and answer.status == 200 and request.transport:
            request.transport.abort()
        return response(answer)

    async def _before(self, paying: PaymentMethod | None, subject: str) -> None:
        if paying is PaymentMethod.SLOW:
            await self._dawdle()
        if paying is PaymentMethod.OUTAGE:
            with self._ledger.transaction():
                number = self._ledger.count_try(subject)
            if number <= OUTAGE_TRIES:
                raise NotExecuted(error(500, "api_error", "An outage, as asked for."))

    def _charge(self, intent: Intent, method: PaymentMethod) -> Answer:
        if intent.status in ("succeeded", "canceled"):
            return unexpected_state(intent, "confirm")
        if decline_code := DECLINE_CODES.get(method):
            message = "Your card was declined."
            return error(402, "card_error", message, "card_declined", intent, decline_code=decline_code)
        self._ledger.charge(intent.id, method)
        return intent_shown(self._ledger.intent(intent.id))

    def _named_intent(self, intent_id: str) -> Intent:
        if intent := self._ledger.find_intent(intent_id):
            return intent
        message = f"No such payment_intent: '{intent_id}'"
        raise NotExecuted(error(404, "invalid_request_error", message, "resource_missing", param="intent"))


@web.middleware
async def _stripe_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path.startswith("/v1/") and not is_authorized(request):
        return response(error(401, "invalid_request_error", "Invalid API Key provided."))
    try:
        return await handler(request)
    except NotExecuted as refusal:
        return response(refusal.answer)
    except sqlite3.Error as failure:
        print(f"the ledger failed: {failure}", file=sys.stderr, flush=True)
        return response(error(500, "api_error", "The ledger cannot be written; nothing was changed."))
    except web.HTTPException as unknown:
        return response(error(unknown.status, "invalid_request_error", f"{request.method} {request.path}"))


async def serve(ledger: Ledger, host: str, port: int, slow_seconds: float) -> None:
    """Answer until SIGTERM or SIGINT; what is being executed then is finished. Raises `OSError` for a port in use."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    app = Simulator(ledger, lambda: asyncio.sleep(slow_seconds)).app()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        print(f"payment simulator on http://{host}:{runner.addresses[0][1]}", flush=True)
        await stopped.wait()
    finally:
        await runner.cleanup()


def main() -> int:
    """The process. Its exit status is 1 when it could not start, with one sentence that says why."""
    parser = argparse.ArgumentParser(prog="python -m deploy.payments", description="The payment simulator.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=12111, help="0 takes any free port")
    parser.add_argument("--ledger", type=Path, required=True, help="the file that holds the books")
    parser.add_argument("--slow-seconds", type=float, default=2.0, help="how long pm_sim_slow takes")
    options = parser.parse_args()
    try:
        ledger = Ledger(options.ledger)
    except NotALedger as unusable:
        print(f"The payment simulator cannot start: {unusable}.", file=sys.stderr)
        return 1
    try:
        asyncio.run(serve(ledger, options.host, options.port, options.slow_seconds))
    except (OSError, OverflowError) as refused:
        where = f"{options.host}:{options.port}"
        print(f"The payment simulator cannot start: {where} is not to be had ({refused}).", file=sys.stderr)
        return 1
    finally:
        ledger.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
