"""What the order team's services measure, for Prometheus."""

from prometheus_client import CollectorRegistry, Gauge, Histogram

# From what the payment simulator takes to what a worker waits for the provider.
_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class OrderMetrics:
    """Without a registry it is measured for nobody."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.payments = Histogram(
            "street12_payment_seconds",
            "Payments, from their first attempt until it was noted what became of them",
            ["outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.provider = Histogram(
            "street12_provider_call_seconds",
            "Calls to the payment provider, by what was asked and the error's code",
            ["call", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.writes_waiting = Gauge(
            "street12_status_writes_waiting", "Status writes that this process has not done yet", registry=registry
        )
        self.write_lag = Histogram(
            "street12_status_write_lag_seconds",
            "How long after something happened to an order its readers could see it",
            buckets=(*_SECONDS, 300, 3600),
            registry=registry,
        )
