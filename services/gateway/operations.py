"""What the platform asks of the API process: health and metrics."""

import asyncio
import math
from contextlib import suppress
from typing import ClassVar

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

from services.gateway.parts import Parts
from services.order.admission import AdmissionReport
from services.order.circuit import Intake
from services.shared.errors import DatabaseUnavailable, Unavailable

INTAKE_SECONDS = 1.0
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class Draining(Unavailable):
    """This process is about to end. Another one takes what comes."""

    code: ClassVar[str] = "draining"


class Metrics:
    """The API's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.accepted = Counter(
            "street12_orders_accepted", "Orders accepted, repetitions not counted", registry=self.registry
        )
        self.refused = Counter(
            "street12_orders_refused",
            "Orders refused, by problem code or the intake's state",
            ["reason"],
            registry=self.registry,
        )
        self.intake = _IntakeGauges(self.registry)
        self.requests = Histogram(
            "street12_http_request_seconds",
            "HTTP requests by route",
            ["method", "route", "status"],
            registry=self.registry,
        )

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request whose answer began so many seconds after it came."""
        # A stranger may send any method: each would become a series of its own.
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.requests.labels(method, route_of(scope), str(status)).observe(seconds)


class _IntakeGauges:
    """The same from every API process; NaN while it is not known."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"street12_{name}", what, labels, registry=registry)

        self._pending = gauge("payments_pending", "Accepted orders whose payment is in flight")
        self._limit = gauge("payments_pending_limit", "As many as that may be")
        self._oldest = gauge("payments_pending_oldest_seconds", "How long one of them has waited at most")
        self._median = gauge("payment_median_seconds", "What the last payments took; NaN where there were none")
        self._state = gauge("admission_state", "1 for the state that the intake of orders is in", "state")
        self._since = gauge("admission_since_timestamp_seconds", "Since when no orders are taken; 0 while they are")

    def set(self, report: AdmissionReport | None) -> None:
        """Where the intake of orders stands; nothing where that is not known."""
        if report is None:
            for one in (self._pending, self._limit, self._oldest, self._median, self._since):
                one.set(math.nan)
            for state in Intake:
                self._state.labels(state).set(math.nan)
            return
        standing, median = report.standing, report.standing.circuit.median
        self._pending.set(standing.pending)
        self._limit.set(standing.rules.max_pending)
        self._oldest.set((standing.at - standing.oldest.since).total_seconds() if standing.oldest else 0)
        self._median.set(math.nan if median is None else median.total_seconds())
        for state in Intake:
            self._state.labels(state).set(state is standing.intake)
        self._since.set(report.since.timestamp() if report.since else 0)


def route_of(scope: Scope) -> str:
    """The template of the route that a request took, `unknown` where it took none."""
    return getattr(scope.get("route"), "path", "unknown")


def install_operations(app: FastAPI, metrics: Metrics, draining: asyncio.Event) -> None:
    """Health and metrics."""

    @app.get("/livez", tags=["operations"])
    async def livez() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        """Whether the process is alive."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["operations"])
    async def readyz() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        """Whether orders can be taken here."""
        if draining.is_set():
            raise Draining
        # The order database alone: without engine and other teams orders can still be accepted. And the issuer's keys,
        # once: a process that never had any must not take the place of one that has.
        shop: Parts = app.state.parts
        shop.tokens.keys.must_be_known()
        await shop.order_database.ping()
        return {"status": "ready"}

    @app.get("/metrics", tags=["operations"], operation_id="metrics", response_class=PlainTextResponse)
    async def exposition() -> Response:  # pyright: ignore[reportUnusedFunction]
        """The process's metrics, for Prometheus."""
        shop: Parts = app.state.parts
        report = None
        # A database that is away must not keep the other figures back.
        with suppress(TimeoutError, DatabaseUnavailable):
            async with asyncio.timeout(INTAKE_SECONDS):
                report = await shop.admission.report(shop.order_database)
        metrics.intake.set(report)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
