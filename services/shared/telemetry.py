"""Traces: what became of one request, from the call that brought it to the last statement and payment call.

OpenTelemetry's own settings say where spans go and how many are kept. Whoever makes spans is given a tracer, or none;
the SDK is loaded here alone, and only when there is a collector to send to.
"""

import logging
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.shared.settings import TraceSettings

FLUSH_SECONDS = 3.0
"""How long the end of a process waits for its last spans to be taken."""
_SILENCE_SECONDS = 60.0
_PROPAGATOR = TraceContextTextMapPropagator()


@contextmanager
def tracing(process: str, settings: TraceSettings) -> Generator[TracerProvider | None]:
    """What makes the spans of a process; nothing while no collector is named.

    Spans are sent by a thread of their own. A collector that is away costs spans, never an order: what does not fit
    into the queue is dropped, and the log is told of it once a minute at most.
    """
    if not settings.on:
        yield None
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    complaining = [
        logging.getLogger(name) for name in (OTLPSpanExporter.__module__, "opentelemetry.sdk._shared_internal")
    ]
    seldom = _Seldom()
    for logger in complaining:
        logger.addFilter(seldom)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # says the same once more
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME)).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: f"street12-{process}"}))
    provider = SdkTracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider
    finally:
        # The SDK itself would wait for half a minute for a collector that does not answer.
        flushing = threading.Thread(target=provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)
        for logger in complaining:
            logger.removeFilter(seldom)


def tracer_of(provider: TracerProvider | None) -> Tracer | None:
    """What makes the shop's own spans."""
    return None if provider is None else provider.get_tracer("street12")


def current_traceparent() -> str | None:
    """The trace, and the place in it, that is being worked on, as a `traceparent`."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def trace_of(traceparent: str | None) -> Generator[None]:
    """Go on with the trace that a `traceparent` names; with what is being worked on anyhow where it names none."""
    if traceparent is None:
        yield
        return
    token = context.attach(_PROPAGATOR.extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(token)


def trace_ids() -> dict[str, str]:
    """What a log line says of the trace that it belongs to; nothing where it belongs to none."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return {}
    trace_id = trace.format_trace_id(span.trace_id)
    # A remote one is the caller's span, and this line none of its doing.
    return {"trace_id": trace_id} if span.is_remote else {"trace_id": trace_id, "span_id": f"{span.span_id:016x}"}


class _Seldom(logging.Filter):
    """Lets a line pass each `_SILENCE_SECONDS`."""

    _next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _SILENCE_SECONDS
        return True
