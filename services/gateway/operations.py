"""What the platform asks of the API process: health and metrics."""

import asyncio
from typing import ClassVar

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from starlette.types import Scope

from services.gateway.parts import Parts
from services.order.figures import ShopFigures
from services.shared.errors import Unavailable
from services.shared.metrics import Exposition, exposed

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class Draining(Unavailable):
    """This process is about to end. Another one takes what comes."""

    code: ClassVar[str] = "draining"


class Metrics:
    """The API's metrics, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.accepted = Counter(
            "street12_orders_accepted", "Orders accepted, repetitions not counted", registry=self.registry
        )
        self.refused = Counter(
            "street12_orders_refused",
            "Orders refused, by problem code or the intake's state",
            ["reason"],
            registry=self.registry,
        )
        self.figures = ShopFigures(self.registry)
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


def route_of(scope: Scope) -> str:
    """The template of the route that a request took, `unknown` where it took none."""
    return getattr(scope.get("route"), "path", "unknown")


def install_operations(
    app: FastAPI, metrics: Metrics, leaving: asyncio.Event, of_the_engine: Exposition | None = None
) -> None:
    """Health and metrics, those of the engine's client included."""

    @app.get("/livez", tags=["operations"])
    async def livez() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        """Whether the process is alive."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["operations"])
    async def readyz() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        """Whether orders can be taken here."""
        if leaving.is_set():
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
        await metrics.figures.refresh(shop.order_database, shop.admission)
        return Response(await exposed(metrics.registry, of_the_engine), media_type=CONTENT_TYPE_LATEST)
