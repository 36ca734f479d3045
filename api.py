"""The HTTP process: builds the app from its parts, and holds the order routes, thin.

`python api.py` is the composition root: settings from the environment, three databases, the engine, uvicorn.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry

from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.gateway.caller import Buyer, Caller, Role, caller_name
from services.gateway.classic import classic
from services.gateway.conditional import ANY, IfMatch, IfNoneMatch, is_known
from services.gateway.contract import EVENTS, JSON, ShopRoute, preferred
from services.gateway.cursor import AskedPage
from services.gateway.docs_page import install_docs
from services.gateway.fields import KEY, Flag, Instant, OrderId
from services.gateway.guard import Guard, stay
from services.gateway.headers import install_headers
from services.gateway.openapi import headers, install_openapi, operation_id, order_links, refusals, revalidated
from services.gateway.operations import PROBES, Metrics, install_operations
from services.gateway.parts import Parts, parts
from services.gateway.problems import Forbidden, IdempotencyKeyMissing, install_problems, problem
from services.gateway.rates import RateLimits, Rates
from services.gateway.routes import router as other_routes
from services.gateway.schemas import DecisionRequest, EventAnswer, Items, OrderAnswer, OrderPatch, OrderRequest, Page
from services.gateway.server import Server, configured, listen
from services.gateway.stock_hint import StockHint
from services.gateway.stream import Timelines
from services.gateway.tokens import SigningKeys, Tokens, jwks_at
from services.gateway.tracing import traceparent
from services.gateway.waiting import payment_known, wished_wait
from services.marketing.coupons import Coupons
from services.order.acceptance import Acceptance
from services.order.admission import Admission
from services.order.book import OrderBook, OrderReading
from services.order.catalogue import Catalogue
from services.order.circuit import admission_rules
from services.order.dispatch import Dispatcher, Inbox
from services.order.errors import OrderIntakePaused
from services.order.provider import PaymentDeclined
from services.order.reconciliation_reports import ReconciliationReports
from services.order.statuses import OrderStatus, PayStatus
from services.shared.database import Database
from services.shared.errors import Refused, Unavailable
from services.shared.health import background, keep_alive
from services.shared.logs import configure_logs
from services.shared.metrics import Exposition, ProcessMetrics
from services.shared.process import end
from services.shared.settings import (
    TEAMS,
    ApiSettings,
    AuthSettings,
    CodecSettings,
    DatabaseSettings,
    LogSettings,
    OrderSettings,
    PoolSettings,
    RateSettings,
    TraceSettings,
    WrongSetting,
    read_settings,
)
from services.shared.telemetry import tracer_of, tracing
from workflows.client import OrderEngine, PreconditionFailed, TooLate, connect
from workflows.codec import history_codec
from workflows.reconciling import ReconciliationSchedule
from workflows.telemetry import Telemetry

VERSION = "0.2.0"
LARGEST_BODY = 64 * 1024

PLACED = headers("ETag", "Location", "Idempotent-Replayed", "Preference-Applied")
CANCELS: dict[str, Any] = {
    "status_code": 202,
    "response_model": OrderAnswer,
    "responses": {
        202: {"description": "It is cancelled, or being cancelled", "headers": headers("ETag"), "links": order_links()},
        **refusals("not-found", "too-late-to-cancel", "precondition-failed", "engine-unavailable"),
    },
}

_log = structlog.get_logger(__name__)
orders = APIRouter(route_class=ShopRoute)
Shop = Annotated[Parts, Depends(parts)]


@orders.post(
    "/orders",
    status_code=202,
    response_model=OrderAnswer,
    responses={
        201: {"model": OrderAnswer, "description": "Paid", "headers": PLACED, "links": order_links()},
        202: {"description": "Accepted", "headers": PLACED, "links": order_links()},
        **refusals(
            *("idempotency-key-missing", "payment-declined", "insufficient-funds", "unknown-product"),
            *("out-of-stock", "price-changed", "idempotency-key-reused", "order-intake-paused"),
        ),
    },
)
async def place_order(
    request: Request,
    body: OrderRequest,
    shop: Shop,
    who: Buyer,
    idempotency_key: Annotated[str | None, Header(max_length=255, pattern=KEY)] = None,
    prefer: Annotated[str, Header()] = "",
) -> Response:
    """Accept an order. `202`; with `Prefer: wait=N`, `201` once it is paid or `402` once it is declined."""
    if not idempotency_key or not idempotency_key.strip():
        raise IdempotencyKeyMissing
    metrics: Metrics = request.app.state.metrics
    try:
        reading = await shop.acceptance.accept(
            user_id=who.user_id,
            idempotency_key=idempotency_key,
            request=body.by(who.user_id),
            traceparent=traceparent(request),
        )
    except (Refused, OrderIntakePaused) as error:
        metrics.refused.labels(error.reason if isinstance(error, OrderIntakePaused) else error.code).inc()
        raise
    order, replayed = reading.order, reading.replayed
    structlog.contextvars.bind_contextvars(order_id=order.order_id)
    if not replayed:
        _log.info("order accepted")
        metrics.accepted.inc()
        shop.dispatcher.offer(order)
    more = {"Location": f"/orders/{order.order_id}"}
    if replayed:
        more["Idempotent-Replayed"] = "true"
    wait = wished_wait(prefer)
    if wait:
        with suppress(Unavailable):  # it is accepted; where it stands can be read later
            if reading.view.order_status == OrderStatus.ORDER_RECEIVED:
                stay(request, who.user_id, seconds=wait)
                await payment_known(request, shop.engine, reading.order, wait)
                reading = await shop.book.get(order.order_id)
            more["Preference-Applied"] = f"wait={wait}"
            if reading.view.pay_status == PayStatus.DECLINED:
                answer = problem(request, await _decline_code(shop, order.order_id), 402)
                answer.headers.update(more)
                return answer
    return _order(reading, 201 if wait and reading.view.pay_status == PayStatus.PAID else 202, more)


@orders.get("/orders", responses=refusals("invalid-cursor"))
@orders.get("/orderStatus", operation_id="listOrderStatus", **classic("/orders", "invalid-cursor"))
async def list_orders(
    shop: Shop,
    who: Buyer,
    asked: AskedPage,
    order_status: Annotated[OrderStatus | None, Query(alias="orderStatus")] = None,
    since: Annotated[Instant | None, Query(alias="from", description="Ordered then or later.")] = None,
    until: Annotated[Instant | None, Query(alias="to", description="Ordered before.")] = None,
    needs_attention: Annotated[Flag | None, Query(alias="needsAttention", description="For operators only.")] = None,
) -> Page[OrderAnswer]:
    """The caller's orders, an operator's view of all; newest first."""
    if needs_attention is not None and who.role is not Role.OPERATOR:
        raise Forbidden("needsAttention")
    paging = asked.of("orders", who, order_status, since, until, needs_attention)
    found = await shop.book.list(
        user_id=who.sees,
        order_status=order_status,
        needs_attention=needs_attention,
        since=since,
        until=until,
        limit=paging.limit,
        before=paging.before,
    )
    page, more = paging.cut(found, lambda reading: reading.order.order_id)
    return Page(items=[OrderAnswer.of(reading) for reading in page], next_cursor=more)


@orders.get(
    "/orders/{orderId}",
    response_model=OrderAnswer,
    responses=revalidated(links=order_links()) | refusals("not-found"),
)
async def get_order(order_id: OrderId, shop: Shop, who: Buyer, if_none_match: IfNoneMatch = None) -> Response:
    """Where an order stands. `304` when it still stands where the caller knows it to."""
    reading = await shop.book.get(order_id, user_id=who.sees)
    if is_known(if_none_match, _etag(reading)):
        return Response(status_code=304, headers=_validators(reading))
    return _order(reading, 200)


@orders.post("/orders/{orderId}/cancel", **CANCELS)
async def cancel_order(
    order_id: OrderId, shop: Shop, who: Buyer, if_match: IfMatch, body: DecisionRequest | None = None
) -> Response:
    """Cancel an order: everything is undone. Repeating it is harmless. An operator may say why, for the timeline.

    With `If-Match`, `412` unless the order still stands where the caller takes it to.
    """
    if body is not None and who.role is not Role.OPERATOR:
        raise Forbidden("reason")
    return await _cancel(order_id, shop, who, if_match, note=body.reason if body else "")


@orders.patch("/orders/{orderId}", **CANCELS)
async def patch_order(order_id: OrderId, body: OrderPatch, shop: Shop, who: Buyer, if_match: IfMatch) -> Response:
    """The same as `cancel`: the one thing about an order that its customer may change."""
    return await _cancel(order_id, shop, who, if_match)


@orders.get(
    "/orders/{orderId}/events",
    response_model=Items[EventAnswer],
    responses={
        200: {"content": {EVENTS: {"schema": {"type": "string"}}}},
        204: {"description": "As server-sent events: after `Last-Event-ID`, nothing can come any more."},
        **refusals("not-found"),
    },
)
async def get_timeline(
    request: Request,
    order_id: OrderId,
    shop: Shop,
    who: Buyer,
    last_event_id: Annotated[str, Header()] = "",
) -> Any:
    """What happened to an order; as server-sent events when asked for `text/event-stream`."""
    reading = await shop.book.get(order_id, user_id=who.sees)
    if preferred(request, [JSON, EVENTS]) == EVENTS:
        timelines: Timelines = request.app.state.timelines
        stay(request, who.user_id)
        return await timelines.answer(reading, last_event_id, who)
    events = await shop.book.timeline(order_id)
    return Items(items=[EventAnswer.of(event, to_operator=who.sees is None) for event in events])


async def _cancel(order_id: str, shop: Parts, who: Caller, if_match: Sequence[str] | None, note: str = "") -> Response:
    reading = await shop.book.get(order_id, user_id=who.sees)
    if_version = None
    if if_match is not None and ANY not in if_match:
        if _etag(reading) not in if_match:
            raise PreconditionFailed(order_id)
        if_version = reading.view.version  # which may be another by now: the workflow decides
    if reading.view.order_status in (OrderStatus.DELIVERED, OrderStatus.PAYMENT_DECLINED):
        raise TooLate(order_id)
    if reading.view.order_status not in (OrderStatus.ORDER_CANCELING, OrderStatus.ORDER_CANCELED):
        operator = who.role is Role.OPERATOR
        try:
            by = "operator" if operator else "customer"
            await shop.engine.cancel(order_id, by=by, actor=who.user_id, if_version=if_version, note=note)
        except TooLate:
            # The workflow may have ended a moment ago because a cancel had arrived before.
            now = (await shop.book.get(order_id)).view
            if if_version not in (None, now.version):
                raise PreconditionFailed(order_id) from None
            if now.order_status != OrderStatus.ORDER_CANCELED:
                raise
        reading = await shop.book.get(order_id)
    return _order(reading, 202)


async def _decline_code(shop: Parts, order_id: str) -> str:
    """How the provider put its no; told apart on the timeline alone."""
    for event in await shop.book.timeline(order_id):
        if event.type == OrderStatus.PAYMENT_DECLINED:
            return event.detail.get("code", PaymentDeclined.code)
    return PaymentDeclined.code


def _etag(reading: OrderReading) -> str:
    return f'"v{reading.view.version}"'


def _validators(reading: OrderReading) -> dict[str, str]:
    return {"ETag": _etag(reading), "Cache-Control": "private, no-cache", "Vary": "Authorization"}


def _order(reading: OrderReading, status: int, more: dict[str, str] | None = None) -> Response:
    body = OrderAnswer.of(reading).model_dump_json(by_alias=True)
    return Response(body, status, {**_validators(reading), **(more or {})}, media_type=JSON)


def create_app(
    shop: Parts,
    *routers: APIRouter,
    max_requests: int = 256,
    request_seconds: float = 15.0,
    cors_origins: Sequence[str] = (),
    rates: RateSettings | None = None,
    registry: CollectorRegistry | None = None,
    of_the_engine: Exposition | None = None,
    tracer_provider: TracerProvider | None = None,
) -> FastAPI:
    """The app around its parts, with `routers` beside its own; with a `tracer_provider`, requests are traced.

    While it lives, what was accepted is handed to the engine, the issuer's keys are kept fresh, and who follows a
    timeline is told what happens. `/metrics` shows what is in `registry`, and what the engine's client has measured.
    Once `app.state.leaving` is set, the process is not ready; once `app.state.draining` is, nobody stays longer than
    they must.
    """
    leaving, draining = asyncio.Event(), asyncio.Event()
    counted = None if rates is None else Rates(rates)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        timelines = app.state.timelines = Timelines(shop.book, draining)
        serving = [
            asyncio.create_task(work)
            for work in (shop.dispatcher.serve(), shop.tokens.keys.keep_fresh(), timelines.serve())
        ]
        yield
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        if counted is not None:
            await counted.close()

    app = FastAPI(
        title="street12",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        telemetry={
            "tracer_provider": tracer_provider,
            "tracing": tracer_provider is not None,
            "metrics": False,  # the shop's own, for Prometheus
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": lambda scope: scope.get("path") in PROBES,
        },
    )
    app.state.parts = shop
    app.state.metrics = Metrics(registry)
    app.state.leaving, app.state.draining = leaving, draining
    install_problems(app)
    install_operations(app, app.state.metrics, leaving, of_the_engine)
    if counted is not None:
        app.add_middleware(RateLimits, rates=counted, who=caller_name)
    app.add_middleware(
        Guard,
        metrics=app.state.metrics,
        largest_body=LARGEST_BODY,
        max_requests=max_requests,
        request_seconds=request_seconds,
    )
    for router in (orders, other_routes, *routers):
        app.include_router(router)
    install_openapi(app)
    install_docs(app)
    install_headers(app, cors_origins)
    return app


async def _serve(routers: Sequence[APIRouter], tracer_provider: TracerProvider | None) -> None:
    databases, pool, rules, auth, rates, settings = (
        read_settings(DatabaseSettings),
        read_settings(PoolSettings),
        read_settings(OrderSettings),
        read_settings(AuthSettings),
        read_settings(RateSettings),
        read_settings(ApiSettings),
    )
    measured, telemetry = ProcessMetrics("api", VERSION), Telemetry()
    tracer = tracer_of(tracer_provider)
    order, delivery, marketing = (
        Database(databases.url(team), pool, name=team, metrics=measured.databases, tracer=tracer) for team in TEAMS
    )
    codec = history_codec(read_settings(CodecSettings))
    client = await connect(codec=codec, lazy=True, runtime=telemetry.runtime, tracer=tracer)
    engine = OrderEngine(
        client,
        payment_budget=rules.payment_budget,
        delivery_deadline=rules.delivery_deadline,
        order_link=rules.order_link,
    )
    lease = timedelta(seconds=rules.dispatch_lease_seconds)
    admission, warehouse = Admission(admission_rules(rules)), Warehouse(delivery)
    shop = Parts(
        order_database=order,
        catalogue=Catalogue(order),
        admission=admission,
        acceptance=Acceptance(order, admission, lease=lease, on_hand=StockHint(warehouse).on_hand),
        book=OrderBook(order),
        dispatcher=Dispatcher(Inbox(order, lease=lease), engine.start),
        deliveries=Deliveries(delivery),
        warehouse=warehouse,
        coupons=Coupons(marketing),
        engine=engine,
        reconciliations=ReconciliationSchedule(client),
        reports=ReconciliationReports(order),
        tokens=Tokens(
            SigningKeys(jwks_at(str(auth.jwks_url))),
            issuer=auth.issuer,
            audience=auth.audience,
            role_claim=auth.role_claim,
        ),
    )
    listener = listen(settings.host, settings.port)
    app = create_app(
        shop,
        *routers,
        max_requests=settings.max_requests,
        request_seconds=settings.request_seconds,
        cors_origins=settings.cors_origins,
        rates=rates,
        registry=measured.registry,
        of_the_engine=telemetry.exposition,
        tracer_provider=tracer_provider,
    )
    # What was loaded by now stays. Looked through at each full collection, it kept everybody waiting for 80 ms.
    gc.freeze()
    async with background(keep_alive(settings.liveness_file)):
        state = app.state
        server = Server(
            configured(app, settings), state.leaving, state.draining, unready_seconds=settings.unready_seconds
        )
        await server.serve(sockets=[listener])
    for database in (order, delivery, marketing):
        await database.close()


def main(*routers: APIRouter) -> int:
    """Serve until SIGTERM or SIGINT. Exit status 1 when a setting is wrong or the port is taken.

    `routers` are routes of whoever runs it: the one-machine shop has some.
    """
    try:
        configure_logs("api", read_settings(LogSettings))
        with tracing("api", read_settings(TraceSettings)) as tracer_provider:
            asyncio.run(_serve(routers, tracer_provider))
    except WrongSetting as error:
        print(error, file=sys.stderr)  # noqa: T201  (for the person who started it)
        return 1
    except OSError as error:
        print(f"The API cannot listen at its address: {error.strerror or error}.", file=sys.stderr)  # noqa: T201  (likewise)
        return 1
    return 0


if __name__ == "__main__":
    end(main())
