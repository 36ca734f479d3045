"""Whether a process traces, where its spans go, and what a collector that is away costs."""

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from services.shared import telemetry
from services.shared.settings import TraceSettings, WrongSetting, read_settings
from services.shared.telemetry import tracer_of, tracing
from tests.collector import collecting
from tests.logged import logged

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
OFF = """
import sys
import api, worker
from services.shared.settings import TraceSettings, read_settings
from services.shared.telemetry import tracing
with tracing("test", read_settings(TraceSettings)) as provider:
    assert provider is None
# (The client of Redis loads the SDK's metrics where they are installed.)
ours = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "temporalio.contrib.opentelemetry")
print(sorted(name for name in sys.modules if name.startswith(ours)))
"""


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TraceSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)


def test_a_process_that_names_no_collector_does_not_even_load_the_sdk() -> None:
    ran = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, check=False, timeout=60)
    assert (ran.stdout, ran.returncode) == ("[]\n", 0), ran.stderr


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({ENDPOINT: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_a_process_traces_where_a_collector_is_named(
    settings: dict[str, str], on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert read_settings(TraceSettings).on is on


@pytest.mark.parametrize(
    ("name", "value"),
    [(ENDPOINT, "collector:4318"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_EXPORTER", "zipkin")],
)
def test_what_cannot_be_done_is_said_at_the_start(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(WrongSetting, match=name):
        read_settings(TraceSettings)


@pytest.mark.parametrize(
    ("settings", "service"),
    [({}, "street12-api"), ({"OTEL_SERVICE_NAME": "the-shop"}, "the-shop")],
    ids=["its own name", "a given one"],
)
async def test_the_last_spans_of_a_process_are_delivered(
    settings: dict[str, str], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with collecting() as collector:
        for name, value in {ENDPOINT: collector.url, **settings}.items():
            monkeypatch.setenv(name, value)
        await asyncio.to_thread(_trace, 3)
        assert [(span.service, span.name) for span in collector.spans] == [(service, "a span")] * 3


async def test_the_sampler_is_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        await asyncio.to_thread(_trace, 3)
        assert collector.spans == []


@pytest.mark.parametrize("away", ["refuses", "hangs"])
def test_a_collector_that_is_away_costs_nobody_time_and_two_lines(away: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "FLUSH_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    for found in logging.getLogger("opentelemetry.sdk._shared_internal").filters:
        vars(found).pop("last_log", None)  # the SDK's own filter, which knows the line from the test before
    ended = threading.Event()
    with _nobody(hangs=away == "hangs") as url, logged() as lines:
        monkeypatch.setenv(ENDPOINT, url)

        def work() -> None:
            _trace(500)
            ended.set()

        threading.Thread(target=work, daemon=True).start()
        assert ended.wait(20), "it waits for the collector"
    assert "dropping" in lines.getvalue(), "nothing was too much, so nothing was tried"
    assert len(lines.parsed()) <= 2, lines.getvalue()


def test_whatever_is_wrong_with_a_collector_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    complaining = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")
    with _nobody(hangs=False) as url, logged() as lines:
        monkeypatch.setenv(ENDPOINT, url)
        with tracing("api", read_settings(TraceSettings)):
            for number in range(10):
                for name in complaining:
                    logging.getLogger(name).warning("something else each time: %s %s", name, number)
    assert len(lines.parsed()) == 1


def _trace(spans: int) -> None:
    with tracing("api", read_settings(TraceSettings)) as provider:
        tracer = tracer_of(provider)
        assert tracer is not None
        for _ in range(spans):
            with tracer.start_as_current_span("a span"):
                pass


@contextmanager
def _nobody(*, hangs: bool) -> Generator[str]:
    """An address where nobody answers: it refuses, or takes a connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if not hangs:
            listener.close()
        yield url
