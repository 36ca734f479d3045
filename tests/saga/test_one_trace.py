"""One trace of an order: from the request that brought it to the last statement and the last call of the provider."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

import worker
from tests.api.world import CARRIER, MINJI, ORDER
from tests.logged import logged
from tests.saga.whole import LEASE, Whole, whole_shop
from workflows.client import traced
from workflows.order import OrderWorkflow

ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RUNNERS: dict[str, Callable[[], WorkflowRunner]] = {
    "as in the shop": UnsandboxedWorkflowRunner,
    "in the sandbox": SandboxedWorkflowRunner,
}


class Spans:
    """The spans that were made."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))

    def all(self) -> list[ReadableSpan]:
        return sorted(self._kept.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> ReadableSpan:
        """The one of that name."""
        [found] = [span for span in self.all() if span.name == name]
        return found

    def way_to(self, span: ReadableSpan) -> list[str]:
        """The names from the outermost span to this one."""
        by_id = {one.context.span_id: one for one in self.all() if one.context}
        way = [span.name]
        while span.parent is not None and span.parent.span_id in by_id:
            span = by_id[span.parent.span_id]
            way.insert(0, span.name)
        return way

    def forget(self) -> None:
        self._kept.clear()


def traces(spans: Iterable[ReadableSpan]) -> set[str]:
    return {f"{span.context.trace_id:032x}" for span in spans if span.context}


@pytest.fixture
def spans() -> Spans:
    return Spans()


async def ordered(shop: Whole, *, pay: str = "pm_card_visa", **headers: str) -> str:
    """The id of an order, once its delivery has started."""
    body, headers = {**ORDER, "paymentMethod": pay}, {**MINJI, "Idempotency-Key": "k1", **headers}
    answer = await shop.http.post("/orders", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    order_id = answer.json()["orderId"]
    await shop.until(order_id, "DeliveryStarted")
    return order_id


@pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)
async def test_one_trace_leads_from_the_request_to_the_last_statement(
    engine: WorkflowEnvironment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spans: Spans,
    runner: Callable[[], WorkflowRunner],
) -> None:
    monkeypatch.setattr(worker, "RUNNER", runner())
    async with whole_shop(engine, tmp_path, monkeypatch, tracer_provider=spans.provider) as shop:
        spans.forget()
        await ordered(shop)
    assert len(traces(spans.all())) == 1
    start = ["POST /orders", "StartWorkflow:OrderWorkflow"]
    assert spans.way_to(spans.named("RunWorkflow:OrderWorkflow"))[:-1] == start
    for activity in ("pay_order", "issue_coupon", "start_delivery", "adjust_stock"):
        attempt = [*start, f"StartActivity:{activity}", f"RunActivity:{activity}"]
        assert spans.way_to(spans.named(f"RunActivity:{activity}")) == attempt
        assert [*attempt, "INSERT" if activity != "pay_order" else "POST /v1/payment_intents/{id}/confirm"] in [
            spans.way_to(span) for span in spans.all()
        ]
    assert ["POST /orders", "INSERT"] in [spans.way_to(span) for span in spans.all()]
    statements = [span.attributes or {} for span in spans.all() if "INSERT" in span.name]
    assert {str(of["db.namespace"]) for of in statements} == {"order", "marketing", "delivery"}
    assert not [of for of in statements if str(ORDER["address"]) in str(of)]


@pytest.mark.parametrize("recording", [True, False], ids=["traced", "not traced"])
async def test_a_history_replays_whether_or_not_it_was_traced_and_is(
    engine: WorkflowEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: Spans, recording: bool
) -> None:
    provider = spans.provider if recording else None
    async with whole_shop(engine, tmp_path, monkeypatch, tracer_provider=provider) as shop:
        order_id = await ordered(shop)
        await shop.http.post(f"/deliveries/{order_id}/events", json={"event": "Delivered"}, headers=CARRIER)
        handle = shop.client.get_workflow_handle(order_id)
        await handle.result()
        history = await handle.fetch_history()
    assert ("_tracer-data" in history.to_json()) is recording
    spans.forget()
    for interceptors in ([], [traced(spans.provider.get_tracer("test"))]):
        for runner in RUNNERS.values():
            replayer = Replayer(
                workflows=[OrderWorkflow],
                data_converter=pydantic_data_converter,
                workflow_runner=runner(),
                interceptors=interceptors,
            )
            await replayer.replay_workflow(history)
    assert spans.all() == [], "nothing is told twice"


@pytest.mark.parametrize("lease", [LEASE, timedelta()], ids=["started by the API", "left to the dispatcher"])
async def test_a_callers_trace_goes_on(
    engine: WorkflowEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: Spans, lease: timedelta
) -> None:
    async with whole_shop(engine, tmp_path, monkeypatch, tracer_provider=spans.provider, lease=lease) as shop:
        spans.forget()
        order_id = await ordered(shop, traceparent=f"00-{ID}-{PARENT}-01")
        kept = (await shop.parts.book.get(order_id)).order.traceparent
    assert traces(spans.all()) == {ID}
    request = spans.named("POST /orders")
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    assert request.context is not None
    assert kept == f"00-{ID}-{request.context.span_id:016x}-01"
    assert spans.way_to(spans.named("RunActivity:adjust_stock"))[:2] == ["POST /orders", "StartWorkflow:OrderWorkflow"]


async def test_a_trace_that_its_caller_does_not_keep_is_not_kept_here(
    engine: WorkflowEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: Spans
) -> None:
    async with whole_shop(engine, tmp_path, monkeypatch, tracer_provider=spans.provider) as shop:
        spans.forget()
        order_id = await ordered(shop, traceparent=f"00-{ID}-{PARENT}-00")
        kept = (await shop.parts.book.get(order_id)).order.traceparent
    assert spans.all() == []
    assert kept is not None
    assert (kept[:36], kept[-3:]) == (f"00-{ID}-", "-00")


async def test_a_message_is_a_call_in_its_own_trace_and_a_link_in_the_orders(
    engine: WorkflowEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: Spans
) -> None:
    async with whole_shop(engine, tmp_path, monkeypatch, tracer_provider=spans.provider) as shop:
        order_id = await ordered(shop)
        spans.forget()
        await shop.http.post(f"/orders/{order_id}/cancel", headers={**MINJI, "traceparent": f"00-{ID}-{PARENT}-01"})
        await shop.until(order_id, "OrderCanceled")
    call, handled = spans.named("StartWorkflowUpdate:cancel"), spans.named("HandleUpdate:cancel")
    assert spans.way_to(call) == ["POST /orders/{orderId}/cancel", "StartWorkflowUpdate:cancel"]
    assert traces([call]) == {ID}
    assert call.context is not None
    assert [link.context.span_id for link in handled.links] == [call.context.span_id]
    refund = [span for span in spans.all() if span.name == "POST /v1/refunds"]
    assert traces(refund) == traces([handled]) != {ID}


async def test_what_is_logged_names_order_and_trace(
    engine: WorkflowEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: Spans
) -> None:
    with logged() as lines:
        async with whole_shop(engine, tmp_path, monkeypatch, tracer_provider=spans.provider) as shop:
            spans.forget()
            order_id = await ordered(shop, pay="pm_sim_outage", **{"X-Request-Id": "asked-1"})
    [accepted] = lines.of("order accepted")
    request = spans.named("POST /orders")
    assert request.context is not None
    assert accepted["order_id"] == order_id
    assert accepted["request_id"] == "asked-1"
    assert (accepted["trace_id"], accepted["span_id"]) == (
        f"{request.context.trace_id:032x}",
        f"{request.context.span_id:016x}",
    )
    attempts = lines.of("Completing activity as failed")  # as the SDK says it
    assert [attempt["attempt"] for attempt in attempts] == [*range(1, len(attempts) + 1)]
    assert attempts
    for attempt in attempts:
        assert (attempt["activity"], attempt["order_id"], attempt["workflow_id"]) == ("pay_order", order_id, order_id)
        assert attempt["trace_id"] == accepted["trace_id"]
