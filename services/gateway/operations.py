"""What the platform asks of the API process: health and metrics."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from services.shared.errors import DatabaseUnavailable

PENDING_SECONDS = 1.0
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class Metrics:
    """The API's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.accepted = Counter(
            "street12_orders_accepted", "Orders accepted, repetitions not counted", registry=self.registry
        )
        self.pending_payments = Gauge(
            "street12_payments_pending",
            "Accepted orders whose payment is in flight; the same from every API process, NaN while it is not known",
            registry=self.registry,
        )
        self.requests = Histogram(
            "street12_http_request_seconds",
            "HTTP requests by route",
            ["method", "route", "status"],
            registry=self.registry,
        )


def install_operations(app: FastAPI, metrics: Metrics) -> None:
    """Health, metrics, and the clock around each request."""

    @app.get("/livez", include_in_schema=False)
    async def livez() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        # The order database alone: without engine and other teams orders can still be accepted.
        await app.state.parts.order_database.ping()
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", include_in_schema=False)
    async def exposition() -> Response:  # pyright: ignore[reportUnusedFunction]
        pending = math.nan
        # A database that is away must not keep the other figures back.
        with suppress(TimeoutError, DatabaseUnavailable):
            async with asyncio.timeout(PENDING_SECONDS):
                pending = await app.state.parts.book.pending_payments()
        metrics.pending_payments.set(pending)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.middleware("http")
    async def timed(  # pyright: ignore[reportUnusedFunction]
        request: Request, call: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        began = time.perf_counter()
        response = await call(request)
        route = request.scope.get("route")
        # A stranger may send any method: each would become a series of its own.
        method = request.method if request.method in _METHODS else "other"
        labels = (method, getattr(route, "path", "unknown"), str(response.status_code))
        metrics.requests.labels(*labels).observe(time.perf_counter() - began)
        return response
