"""What the engine's client, its workers and the workflows measure: kept by the SDK, which serves it on a port."""

import socket

import aiohttp
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from activities.logs import sdk_logging

_HOST = "127.0.0.1"
_ATTEMPTS = 5
# Of the SDK itself, in seconds: from a poll that is answered at once to a team that is away for hours.
_SHORT = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
_LONG = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400]
_BUCKETS = {
    "temporal_request_latency": _SHORT,
    "temporal_activity_execution_latency": _SHORT,
    "temporal_activity_schedule_to_start_latency": _LONG,
    "temporal_activity_succeed_endtoend_latency": _LONG,
    "temporal_workflow_task_schedule_to_start_latency": _LONG,
    "temporal_workflow_endtoend_latency": [*_LONG, 604800],
    "street12_step": _LONG,
    "street12_compensation": _LONG,
}


class Telemetry:
    """The one runtime of a process, and its metrics.

    The SDK serves them on a port of its own. It is bound to this machine alone; what a process tells Prometheus, it
    tells on one port, and fetches this from there.
    """

    def __init__(self) -> None:
        self.runtime, self._url = _started()

    async def exposition(self) -> bytes:
        """The metrics as Prometheus reads them. Raises `OSError`."""
        return await fetched(self._url)


async def fetched(url: str) -> bytes:
    """What is served there. Raises `OSError` when it does not come whole."""
    try:
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as answer:
            return await answer.read()
    except aiohttp.ClientError as error:  # an answer that is broken off is no OSError of its own
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _started() -> tuple[Runtime, str]:
    for attempt in range(_ATTEMPTS):
        address = f"{_HOST}:{_free_port()}"
        metrics = PrometheusConfig(
            bind_address=address,
            counters_total_suffix=True,
            unit_suffix=True,
            durations_as_seconds=True,
            histogram_bucket_overrides=_BUCKETS,
        )
        try:
            telemetry = TelemetryConfig(metrics=metrics, logging=sdk_logging(), attach_service_name=False)
            return Runtime(telemetry=telemetry), f"http://{address}/metrics"
        except ValueError:  # somebody took the port in the meantime
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((_HOST, 0))
        return free.getsockname()[1]
