"""The trace that a request belongs to (W3C Trace Context, level 1). Of its two headers `tracestate` is not kept."""

import re

import structlog
from fastapi import Request

from services.shared.telemetry import current_traceparent

_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})"
    r"-(?P<trace>(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?"
)
_SAMPLED = 0x01


def traceparent(request: Request) -> str | None:
    """The `traceparent` of a request, 55 characters; nothing where it has none, several, or one that is malformed.

    While this process traces it is that of the request's own span, a part of the caller's trace or the first of one.
    One of a later version than `00` is read as far as it is known, and becomes one of `00`.
    """
    if own := current_traceparent():
        return own
    given = request.headers.getlist("traceparent")
    found = _TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        return None
    if found["version"] == "00":
        return None if found["more"] else given[0]
    return f"00-{found['trace']}-{int(found['flags'], 16) & _SAMPLED:02x}"


def bind_trace_id(request: Request) -> None:
    """Name a request's trace in each line that is logged about it, where it belongs to one."""
    if known := traceparent(request):
        structlog.contextvars.bind_contextvars(trace_id=known.split("-")[1])
