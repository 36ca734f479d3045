"""What customers and operators are shown of an order: at once where it matters, together where nobody could look."""

from collections import Counter
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory

from tests.saga.conftest import Saga, cancel, reads, under_way
from tests.saga.world import Fail, Gate
from workflows import steps
from workflows.journal import ORDER_STATUS


def events(history: WorkflowHistory) -> Counter[str]:
    return Counter(EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in history.events)


def scheduled(history: WorkflowHistory) -> list[str]:
    """The activities that the server was asked for."""
    return [
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]


def status_writes(history: WorkflowHistory) -> int:
    """How many status writes the server was asked for."""
    return scheduled(history).count("record_status")


def nothing_will_wake(history: WorkflowHistory) -> bool:
    """Whether the order rests after a timer has fired, and no other one runs."""
    counted = events(history)
    resting = counted["WORKFLOW_TASK_SCHEDULED"] == counted["WORKFLOW_TASK_COMPLETED"]
    fired = counted["TIMER_FIRED"]
    return resting and fired > 0 and counted["TIMER_STARTED"] == fired + counted["TIMER_CANCELED"]


async def test_an_order_that_goes_through_at_once_is_published_when_it_is_paid_and_when_it_is_under_way(
    saga: Saga, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "PUBLISH_WITHIN", timedelta(hours=1))  # whatever the machine
    await under_way(saga)
    await saga.recorded(lambda history: events(history)["TIMER_CANCELED"] == 1)
    counted = events(await saga.handle.fetch_history())
    assert (counted["MARKER_RECORDED"], counted["UPSERT_WORKFLOW_SEARCH_ATTRIBUTES"]) == (2, 1)
    assert saga.world.events == ["OrderPlaced", "CouponIssued", "DeliveryStarted", "StockAdjusted"]


@pytest.mark.parametrize(
    ("team", "status"), [("marketing", "OrderPlaced"), ("delivery", "CouponIssued")], ids=["marketing", "delivery"]
)
async def test_an_order_that_waits_for_a_team_is_found_where_it_waits(
    saga: Saga, monkeypatch: pytest.MonkeyPatch, team: str, status: str
) -> None:
    monkeypatch.setattr(steps, "PUBLISH_WITHIN", timedelta(milliseconds=50))
    await saga.go(team)
    await saga.start()
    await saga.world.until(reads(status))
    await saga.recorded(lambda history: events(history)["UPSERT_WORKFLOW_SEARCH_ATTRIBUTES"] > 0)
    assert (await saga.handle.describe()).typed_search_attributes[ORDER_STATUS] == status
    await saga.come(team)
    await saga.world.until(reads("DeliveryStarted"))


async def test_a_paid_order_gives_up_its_place_at_once(saga: Saga, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PUBLISH_WITHIN", timedelta(hours=1))
    gate = Gate()
    saga.world.script("issue_coupon", gate)
    await saga.start()
    await saga.world.until(reads("OrderPlaced"))
    gate.opened.set()
    await saga.world.until(reads("DeliveryStarted"))


async def test_status_writes_that_keep_failing_are_left_to_the_server(saga: Saga) -> None:
    """For as long as the worker repeats them itself, the next step is not even asked for."""
    saga.world.script("record_status", *[Fail()] * 8)
    await saga.start()
    await saga.recorded(lambda history: status_writes(history) > 0)
    await saga.world.until(reads("DeliveryStarted"))


async def test_what_an_update_decides_is_written_by_the_server_after_the_engine_knows_of_it(saga: Saga) -> None:
    """In the worker, it would be written before; and an engine that dies in between remembers nothing of it."""
    await under_way(saga)
    assert status_writes(await saga.handle.fetch_history()) == 0
    await cancel(saga)
    assert await saga.result() == "OrderCanceled"
    history = await saga.handle.fetch_history()
    assert status_writes(history) >= 1
    assert saga.world.events[-1] == "OrderCanceled"


async def test_waiting_for_the_database_costs_no_history(saga: Saga, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PUBLISH_WITHIN", timedelta(milliseconds=10))
    writing = [Gate() for _ in range(6)]  # the server gives each attempt 15 s
    saga.world.script("record_status", *[Fail()] * steps.STATUS_LOCAL_RETRY.maximum_attempts, *writing)
    await saga.go("delivery")
    await saga.start()
    await writing[0].reached.wait()
    await saga.recorded(lambda history: "start_delivery" in scheduled(history) and nothing_will_wake(history))
    for gate in writing:
        gate.opened.set()
    await saga.world.until(reads("CouponIssued"))
    await saga.come("delivery")
    await saga.world.until(reads("DeliveryStarted"))
