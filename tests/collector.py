"""A collector of spans to send to, which speaks OTLP over HTTP as any other."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.payments import serving


class Taken(NamedTuple):
    """A span, and the process that sent it."""

    service: str
    name: str
    trace_id: str


@dataclass
class Collector:
    """What was sent there."""

    url: str = ""
    spans: list[Taken] = field(default_factory=list[Taken])

    async def take(self, request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for of_process in sent.resource_spans:
            names = {one.key: one.value.string_value for one in of_process.resource.attributes}
            for scope in of_process.scope_spans:
                self.spans += [Taken(names["service.name"], one.name, one.trace_id.hex()) for one in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    def services(self, trace_id: str) -> set[str]:
        """The processes that took part in a trace."""
        return {span.service for span in self.spans if span.trace_id == trace_id}


@asynccontextmanager
async def collecting() -> AsyncGenerator[Collector]:
    """A collector on a free port."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    async with serving(app) as collector.url:
        yield collector
