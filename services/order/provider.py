"""The payment provider, as the order team sees it, and its one real implementation through Stripe.

An intent is created first and confirmed afterwards. Whatever happens to a call, an intent charges once at most, and a
cancelled intent never: those two are the ground that the saga stands on. Every failure is one of the errors below;
`ProviderUnavailable` alone means "unknown, ask again".
"""

import re
import ssl
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import wraps
from types import CoroutineType
from typing import Any, ClassVar, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar
from urllib.parse import urlsplit

import aiohttp
import stripe
from opentelemetry.trace import NoOpTracer, SpanKind, Status, StatusCode, Tracer
from stripe.params import PaymentIntentListParams

from services.order.metrics import OrderMetrics
from services.shared.errors import Refused, ShopError, Unavailable
from services.shared.settings import PaymentSettings

P = ParamSpec("P")
T = TypeVar("T")

stripe.enable_telemetry = False  # it would leave a file in the home directory and time every call

_WHICH = re.compile("/(pi|re)_[^/]+")
_NOW = stripe.RequestOptions()
_PAGE = 100  # Stripe gives no more at once
_REFUND_FAILED = ("failed", "canceled")
_UNEXPECTED_STATE = "payment_intent_unexpected_state"
# 401 and 403: a wrong or withdrawn key is a fault of ours that is put right; no order must be undone for it.
_TRANSIENT_STATUSES = frozenset({401, 403, 408, 409, 429})
_TRANSIENT_CODES = frozenset({"idempotency_key_in_use", "lock_timeout", "rate_limit"})


class PaymentDeclined(Refused):
    """The customer cannot pay with what they gave: nothing was charged, and asking again will not help."""

    code: ClassVar[str] = "payment-declined"
    status: ClassVar[int] = 402


class InsufficientFunds(PaymentDeclined):
    """The card is good and the money is not there."""

    code: ClassVar[str] = "insufficient-funds"


class PaymentVoided(Refused):
    """The intent was cancelled: nothing was charged on it and nothing can be any more."""

    code: ClassVar[str] = "payment-voided"


class RefundRefused(Refused):
    """The provider does not give the money back, so a person must."""

    code: ClassVar[str] = "refund-refused"


class ProviderUnavailable(Unavailable):
    """The provider gave no answer that can be relied on. The call may have taken effect: ask the same again."""

    code: ClassVar[str] = "payment-provider-unavailable"


class ProviderRejected(ShopError):
    """The provider does not accept how we ask (key, parameters): an engineer's matter, no use in asking again."""

    code: ClassVar[str] = "payment-provider-rejected"
    status: ClassVar[int] = 502


class IntentStatus(StrEnum):
    """Where an intent stands, in Stripe's words. `CANCELED` and `SUCCEEDED` are for ever."""

    REQUIRES_PAYMENT_METHOD = "requires_payment_method"
    REQUIRES_CONFIRMATION = "requires_confirmation"
    REQUIRES_ACTION = "requires_action"
    REQUIRES_CAPTURE = "requires_capture"
    PROCESSING = "processing"
    CANCELED = "canceled"
    SUCCEEDED = "succeeded"


@dataclass(frozen=True, kw_only=True)
class Intent:
    """A payment that is meant or made. Amounts are in the currency's minor unit; the currency is upper case."""

    intent_id: str
    status: IntentStatus
    amount: int
    amount_received: int
    currency: str


@dataclass(frozen=True, kw_only=True)
class Charge(Intent):
    """What became of an intent's money. `order_id` is what its metadata name; nothing where it is not the shop's."""

    order_id: str | None
    amount_refunded: int


class ChargePage(NamedTuple):
    """Intents, newest first, and whether older ones are left."""

    charges: Sequence[Charge]
    more: bool


class PaymentProvider(Protocol):
    """What the order team asks of a payment provider. Any call may raise `ProviderUnavailable`, which says that the
    outcome is unknown, and `ProviderRejected`."""

    async def create_intent(self, *, order_id: str, amount: int, currency: str) -> Intent:
        """The order's intent, as it was when it was made: asking again gives the same one, and charges nothing."""
        ...

    async def find_intent(self, intent_id: str) -> Intent:
        """The intent as it is now."""
        ...

    async def confirm(self, *, order_id: str, intent_id: str, payment_method: str) -> Intent:
        """Charge the intent once, however often this is asked; what comes back has `SUCCEEDED`.

        Raises `PaymentDeclined` (a payment method that the provider does not know included), `InsufficientFunds`
        or `PaymentVoided`.
        """
        ...

    async def cancel_intent(self, *, order_id: str, intent_id: str) -> Intent:
        """Void the intent unless it was charged already. What comes back is either `CANCELED` or `SUCCEEDED`."""
        ...

    async def refund(self, *, order_id: str, intent_id: str, amount: int) -> None:
        """Give a charge back once, however often this is asked. Raises `RefundRefused`."""
        ...

    async def list_charges(self, *, since: datetime, until: datetime, after: str | None) -> ChargePage:
        """The intents that were made at `since` or later and before `until`, to the second; newest first, from behind
        the intent `after`, as many as one call gives."""
        ...

    async def find_charge(self, intent_id: str) -> Charge:
        """What became of an intent's money by now."""
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


def _measured(
    call: "Callable[Concatenate[StripeProvider, P], CoroutineType[Any, Any, T]]",
) -> "Callable[Concatenate[StripeProvider, P], CoroutineType[Any, Any, T]]":
    """Measure how long a call takes, by what it comes to."""

    @wraps(call)
    async def measured(provider: "StripeProvider", *args: P.args, **kwargs: P.kwargs) -> T:
        began, outcome = time.perf_counter(), "answered"
        try:
            return await call(provider, *args, **kwargs)
        except ShopError as error:
            outcome = error.code
            raise
        finally:
            provider.metrics.provider.labels(call.__name__, outcome).observe(time.perf_counter() - began)

    return measured


class StripeProvider(PaymentProvider):
    """Stripe, or what speaks its wire, at `settings.url`. Never repeats a call by itself: that is the saga's part.

    Used and closed in one event loop.
    """

    def __init__(
        self, settings: PaymentSettings, metrics: OrderMetrics | None = None, *, tracer: Tracer | None = None
    ) -> None:
        self.metrics = metrics or OrderMetrics()
        self._transport = _Transport(settings.timeout_seconds, tracer or NoOpTracer())
        client = stripe.StripeClient(
            settings.key.get_secret_value(),
            base_addresses={"api": settings.url.rstrip("/")},
            http_client=self._transport,
            max_network_retries=0,
        )
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds

    @_measured
    async def create_intent(self, *, order_id: str, amount: int, currency: str) -> Intent:
        async def ask(options: stripe.RequestOptions) -> Intent:
            created = await self._intents.create_async(
                {
                    "amount": amount,
                    "currency": currency.lower(),
                    "allowed_payment_method_types": ["card"],
                    "metadata": {"order_id": order_id},
                },
                options,
            )
            return _intent(created)

        with _faults_named(order_id):
            # A second intent is harmless: only the first that is noted is ever confirmed.
            return await _ask_by_key(f"{order_id}:intent", ask, stale=stripe.APIError)

    @_measured
    async def find_intent(self, intent_id: str) -> Intent:
        with _faults_named(intent_id):
            return _intent(await self._intents.retrieve_async(intent_id))

    @_measured
    async def confirm(self, *, order_id: str, intent_id: str, payment_method: str) -> Intent:
        async def ask(options: stripe.RequestOptions) -> Intent:
            # Nobody is at hand to pass an extra check, so needing one is a decline.
            confirmed = await self._intents.confirm_async(
                intent_id, {"payment_method": payment_method, "error_on_requires_action": True}, options
            )
            return _intent(confirmed)

        with _faults_named(order_id):
            try:
                intent = await _ask_by_key(f"{order_id}:confirm", ask, stale=stripe.APIError)
            except stripe.CardError as error:
                raise _decline(order_id, error) from None
            except stripe.InvalidRequestError as error:
                if error.param == "payment_method":
                    raise PaymentDeclined(_told(order_id, error)) from None
                if error.code != _UNEXPECTED_STATE:
                    raise
                intent = await self.find_intent(intent_id)
        if intent.status is IntentStatus.PROCESSING:
            intent = await self.find_intent(intent_id)  # the key would give this same answer for ever
        return _charged(order_id, intent)

    @_measured
    async def cancel_intent(self, *, order_id: str, intent_id: str) -> Intent:
        # No key: a cancelled intent stays so, and a stored answer could only be an old one.
        with _faults_named(order_id):
            try:
                intent = _intent(await self._intents.cancel_async(intent_id))
            except stripe.InvalidRequestError as error:
                if error.code != _UNEXPECTED_STATE:
                    raise
                intent = await self.find_intent(intent_id)
        if intent.status not in (IntentStatus.CANCELED, IntentStatus.SUCCEEDED):
            raise ProviderUnavailable(f"{order_id}: the intent is neither void nor charged but {intent.status}")
        return intent

    @_measured
    async def refund(self, *, order_id: str, intent_id: str, amount: int) -> None:
        async def ask(options: stripe.RequestOptions) -> stripe.Refund:
            return await self._refunds.create_async({"payment_intent": intent_id, "amount": amount}, options)

        # A refusal, too, is asked past once stored: a person may have cleared its reason in the meantime.
        stale = (stripe.APIError, stripe.InvalidRequestError)
        with _faults_named(order_id):
            try:
                refund = await _ask_by_key(f"{order_id}:refund", ask, stale=stale)
                if _is_stored(refund):
                    refund = await self._refunds.retrieve_async(refund.id)  # it was as it was then
                    if refund.status in _REFUND_FAILED:
                        refund = await ask(_NOW)
            except (stripe.InvalidRequestError, stripe.CardError) as error:
                if error.code == "charge_already_refunded":
                    await self._must_have_arrived(order_id, intent_id)
                    return
                if _is_transient(error):
                    raise
                raise RefundRefused(_told(order_id, error)) from None
        if refund.status in _REFUND_FAILED:
            raise RefundRefused(f"{order_id}: the refund {refund.id} is {refund.status}")
        if refund.status != "succeeded":  # the money is on its way, and may come back
            raise ProviderUnavailable(f"{order_id}: the refund {refund.id} is {refund.status}")

    async def _must_have_arrived(self, order_id: str, intent_id: str) -> None:
        """Raises `ProviderUnavailable` while what was given back of a charge is still on its way: it may come back."""
        refunds = (await self._refunds.list_async({"payment_intent": intent_id, "limit": _PAGE})).data
        if not any(refund.status == "succeeded" for refund in refunds):
            told = ", ".join(f"{refund.id} {refund.status}" for refund in refunds)
            raise ProviderUnavailable(f"{order_id}: its refunds are {told or 'none'}")

    @_measured
    async def list_charges(self, *, since: datetime, until: datetime, after: str | None) -> ChargePage:
        asked: PaymentIntentListParams = {
            "created": {"gte": int(since.timestamp()), "lt": int(until.timestamp())},
            "limit": _PAGE,
            "expand": ["data.latest_charge"],
        }
        if after is not None:
            asked["starting_after"] = after
        with _faults_named("the list of intents"):
            page = await self._intents.list_async(asked)
        return ChargePage([_charge(intent) for intent in page.data], page.has_more)

    @_measured
    async def find_charge(self, intent_id: str) -> Charge:
        with _faults_named(intent_id):
            return _charge(await self._intents.retrieve_async(intent_id, {"expand": ["latest_charge"]}))

    async def close(self) -> None:
        await self._transport.close_async()


class _Transport(stripe.HTTPClient):
    """The client's way to the wire. Its own one keeps hold of the connection when a reply breaks off in the middle.

    Each call is a span, which tells neither what was sent nor what came back.
    """

    name = "aiohttp"

    def __init__(self, timeout_seconds: float, tracer: Tracer) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]  (stripe leaves a parameter without a type)
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None
        self._tracer = tracer

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: str | None = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        self._session = self._session or self._open()
        request = self._session.request(method, url, headers=headers, data=post_data, allow_redirects=False)
        with self._tracer.start_as_current_span(
            f"{method.upper()} {_WHICH.sub('/{id}', urlsplit(url).path)}",
            kind=SpanKind.CLIENT,
            attributes={"http.request.method": method.upper(), "url.path": urlsplit(url).path},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                async with request as reply:
                    span.set_attribute("http.response.status_code", reply.status)
                    return await reply.read(), reply.status, reply.headers
            except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise stripe.APIConnectionError("The connection failed.") from error

    async def close_async(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        trusted = ssl.create_default_context(cafile=stripe.ca_bundle_path)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusted),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
        )


async def _ask_by_key(
    key: str,
    ask: Callable[[stripe.RequestOptions], Awaitable[T]],
    *,
    stale: type[stripe.StripeError] | tuple[type[stripe.StripeError], ...],
) -> T:
    """Ask under a key and, where the answer is a stored one that may be stale, ask once more without it.

    Stripe stores faults (500) under a key, too, and repeats them for a day. Asking past them is safe because an intent
    is charged once at most, and its charge given back in full once at most, whatever keys are used.
    """
    try:
        return await ask({"idempotency_key": key})
    except stale as error:
        if "idempotent-replayed" not in (error.headers or {}):
            raise
    return await ask(_NOW)


def _is_stored(answer: stripe.StripeObject) -> bool:
    """Whether a key gave an answer of an earlier request."""
    return answer.last_response is not None and "idempotent-replayed" in (answer.last_response.headers or {})


@contextmanager
def _faults_named(about: str) -> Generator[None]:
    """Turn what is left of the client's errors into ours. `about` is the order, or the intent."""
    try:
        yield
    except stripe.StripeError as error:
        kind = ProviderUnavailable if _is_transient(error) else ProviderRejected
        raise kind(_told(about, error)) from None


def _is_transient(error: stripe.StripeError) -> bool:
    if isinstance(error, stripe.RateLimitError) or error.code in _TRANSIENT_CODES:
        return True
    # Without a status the connection failed, and below 400 the reply could not be read: what was asked may stand.
    status = error.http_status or 0
    return not 400 <= status < 500 or status in _TRANSIENT_STATUSES


def _decline(order_id: str, error: stripe.CardError) -> PaymentDeclined:
    kind = InsufficientFunds if _decline_code(error) == "insufficient_funds" else PaymentDeclined
    return kind(_told(order_id, error))


def _decline_code(error: stripe.StripeError) -> str | None:
    return error.error.decline_code if error.error else None


def _told(about: str, error: stripe.StripeError) -> str:
    """What an engineer may know of a failure: codes and Stripe's own request id, never what was sent.

    The client's error is not the cause of ours: its message repeats the payment method, for every log and trace.
    """
    cause = type(error.__cause__).__name__ if error.__cause__ else None
    details = (error.http_status, error.code, _decline_code(error), error.request_id, cause)
    return f"{about}: {type(error).__name__} {' '.join(str(detail) for detail in details if detail)}"


def _charged(order_id: str, intent: Intent) -> Intent:
    if intent.status is IntentStatus.CANCELED:
        raise PaymentVoided(f"{order_id}: the intent {intent.intent_id} was cancelled")
    if intent.status is not IntentStatus.SUCCEEDED:
        raise ProviderUnavailable(f"{order_id}: the charge is not settled, the intent is {intent.status}")
    return intent


def _intent(wire: stripe.PaymentIntent) -> Intent:
    return Intent(
        intent_id=wire.id,
        status=IntentStatus(wire.status),
        amount=wire.amount,
        amount_received=wire.amount_received,
        currency=wire.currency.upper(),
    )


def _charge(wire: stripe.PaymentIntent) -> Charge:
    charge = wire.latest_charge  # there is one where money was taken, or where that was tried
    refunded = charge.amount_refunded if isinstance(charge, stripe.Charge) else 0
    return Charge(**vars(_intent(wire)), order_id=wire.metadata.to_dict().get("order_id"), amount_refunded=refunded)
