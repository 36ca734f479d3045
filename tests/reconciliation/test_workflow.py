"""A run of the reconciliation: what it believes, what it leaves alone, and that it never holds more than a page."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer

from activities.contract import ORDER_QUEUE
from services.order.comparison import Code
from services.order.statuses import OrderStatus
from services.shared.ids import first_order_id
from services.shared.summaries import (
    ChargeSummary,
    CouponSummary,
    DeliverySummary,
    OrderSummary,
    RunSummary,
    StockSummary,
)
from tests.engines import skipping_engine
from tests.reconciliation.fakes import TEAMS, Stores, moved, working
from workflows.reconciliation import Reconcile, ReconciliationWorkflow

_runs = count(1)
AGO = timedelta(hours=2)


@pytest.fixture(scope="module")
async def engine() -> AsyncGenerator[WorkflowEnvironment]:
    async with skipping_engine() as environment:
        yield environment


@pytest.fixture
async def now(engine: WorkflowEnvironment) -> datetime:
    """By the engine's clock, which other tests have put forward."""
    return await engine.get_current_time()


def fill(stores: Stores, at: datetime, orders: int = 3, *, ago: timedelta = AGO) -> list[str]:
    """Sound orders that are on their way to their customers, a second apart."""
    ids: list[str] = []
    for number in range(orders):
        then = at - ago + timedelta(seconds=number)
        order_id = first_order_id(then)
        ids.append(order_id)
        stores.orders[order_id] = OrderSummary(
            order_id=order_id,
            product_id="tea",
            qty=1,
            amount=1000,
            currency="KRW",
            order_status=OrderStatus.DELIVERY_STARTED,
            needs_attention=False,
            coupon_id="coupon_1",
            version=5,
            updated_at=then,
            started=True,
            payment_state="Paid",
            intent_id=f"pi_{order_id}",
        )
        stores.runs[order_id] = RunSummary(order_id, "RUNNING", "DeliveryStarted", False)
        stores.deliveries[order_id] = DeliverySummary(order_id, "Started", "tea", 1, 1)
        stores.coupons[order_id] = CouponSummary(order_id, "coupon_1", stands=True)
        stores.charges.append(ChargeSummary(f"pi_{order_id}", order_id, "succeeded", 1000, 0, "KRW", None))
    stores.stock["tea"] = StockSummary("tea", 5, 5)
    return ids


async def reconciled(
    engine: WorkflowEnvironment, stores: Stores, *, teams: tuple[str, ...] = TEAMS, **changes: Any
) -> str:
    """Run it, in so far as it is worked on; its id."""
    workflow_id = f"reconciliation-{next(_runs)}"
    async with working(engine.client, stores, teams):
        await engine.client.execute_workflow(
            ReconciliationWorkflow.run, replace(Reconcile(), **changes), id=workflow_id, task_queue=ORDER_QUEUE
        )
    return workflow_id


async def test_a_sound_shop_is_read_once_and_reported(engine: WorkflowEnvironment, now: datetime) -> None:
    stores = Stores()
    fill(stores, now)
    workflow_id = await reconciled(engine, stores)
    assert [name for name, _ in stores.asked] == ["orders", *stores_of(stores, 1), "charges", "stock"]
    last = stores.reports[-1]
    assert (last.finished, last.compared, last.found, last.not_compared) == (True, 3, 0, [])
    assert await pauses(engine, workflow_id) == []


async def pauses(engine: WorkflowEnvironment, workflow_id: str) -> list[timedelta]:
    """How long the run waited before it looked again."""
    history = await engine.client.get_workflow_handle(workflow_id).fetch_history()
    started = [event for event in history.events if event.HasField("timer_started_event_attributes")]
    return [event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta() for event in started]


def stores_of(stores: Stores, place: int) -> list[str]:
    """The three that are asked beside each other, in whatever order they came."""
    names = [name for name, _ in stores.asked[place : place + 3]]
    assert sorted(names) == ["coupons", "deliveries", "workflows"]
    return names


async def test_what_is_wrong_twice_is_put_right_and_reported(engine: WorkflowEnvironment, now: datetime) -> None:
    stores = Stores()
    first, second, third = fill(stores, now)
    stores.coupons.pop(first)
    stores.runs.pop(second)
    stores.charges.append(ChargeSummary("pi_2", third, "succeeded", 1000, 0, "KRW", None))
    stores.stock["tea"] = StockSummary("tea", 5, 6)
    workflow_id = await reconciled(engine, stores)
    assert stores.codes == {
        (first, Code.COUPON_MISSING),
        (second, Code.WORKFLOW_MISSING),
        (third, Code.CHARGED_TWICE),
        ("tea", Code.STOCK_NOT_THE_SUM),
    }
    assert {one.subject for one in stores.put_right} == {first, second, third, "tea"}
    last = stores.reports[-1]
    assert (last.found, last.repaired, last.finished) == (4, 1, True)
    assert [(report.compared, report.found) for report in stores.reports] == [(0, 0), (3, 0), (3, 4), (3, 4)]
    [pause] = await pauses(engine, workflow_id)
    assert timedelta(seconds=30) < pause <= timedelta(seconds=60)


async def test_what_is_gone_at_the_second_look_was_none(engine: WorkflowEnvironment, now: datetime) -> None:
    stores = Stores()
    first, second, _ = fill(stores, now)
    coupon = stores.coupons.pop(first)
    stores.runs.pop(second)
    run = RunSummary(second, "RUNNING", "DeliveryStarted", False)

    def later(name: str) -> None:
        if name == "stock":  # which comes last of the first look
            stores.coupons[first], stores.runs[second] = coupon, run

    stores.between = later
    stores.charges[2] = stores.charges[2]._replace(refunded=1000)
    await reconciled(engine, stores)
    assert [code for _, code in stores.codes] == [Code.REFUNDED_THOUGH_STANDING]


async def test_an_order_that_moved_meanwhile_is_left_alone(engine: WorkflowEnvironment, now: datetime) -> None:
    """The same difference, and another version: nobody knows whether it is the same."""
    stores = Stores()
    [first, *_] = fill(stores, now)
    stores.coupons.pop(first)

    def between(name: str) -> None:
        if name == "stock":
            stores.orders[first] = moved(stores.orders[first], now - AGO)

    stores.between = between
    await reconciled(engine, stores)
    assert stores.put_right == []


async def test_what_has_changed_in_the_last_minute_is_left_alone(engine: WorkflowEnvironment, now: datetime) -> None:
    stores = Stores()
    [first, *_] = fill(stores, now)
    stores.coupons.pop(first)
    stores.orders[first] = stores.orders[first]._replace(updated_at=now - timedelta(seconds=30))
    await reconciled(engine, stores)
    assert [name for name, _ in stores.asked].count("orders") == 1


async def test_orders_of_the_last_minute_and_of_last_month_are_not_compared(
    engine: WorkflowEnvironment, now: datetime
) -> None:
    stores = Stores()
    young = fill(stores, now, 1, ago=timedelta(seconds=30))
    old = fill(stores, now, 1, ago=timedelta(days=31))
    seen = fill(stores, now, 1, ago=timedelta(days=29))
    for order_id in (*young, *old, *seen):
        stores.coupons.pop(order_id)
    await reconciled(engine, stores)
    assert stores.codes == {(seen[0], Code.COUPON_MISSING)}


async def test_a_busy_shop_raises_no_alarm(engine: WorkflowEnvironment, now: datetime) -> None:
    """Between any two reads, each order takes its next step in a store that is read later, and its view comes after."""
    stores = Stores()
    ids = fill(stores, now, 40)
    steps = [OrderStatus.DELIVERY_STARTED, OrderStatus.ORDER_CANCELING, OrderStatus.ORDER_CANCELED]

    def step(name: str) -> None:
        if name != "orders":
            return
        at = datetime.now(UTC)
        for place, order_id in enumerate(ids):
            order = stores.orders[order_id]
            following = steps[min(steps.index(OrderStatus(order.order_status)) + 1, 2)]
            if place % 2:  # the view lags behind what the teams have done
                stores.deliveries[order_id] = DeliverySummary(order_id, "Canceled", "tea", 1, 0)
                stores.coupons[order_id] = CouponSummary(order_id, "coupon_1", stands=False)
            stores.orders[order_id] = moved(order, max(at, now), order_status=following)

    stores.between = step
    await reconciled(engine, stores, page=10)
    assert stores.put_right == []
    assert stores.codes == set()
    assert stores.reports[-1].compared == 40


@pytest.mark.parametrize("team", ["marketing", "delivery"])
async def test_a_team_that_is_away_holds_nobody_up(engine: WorkflowEnvironment, now: datetime, team: str) -> None:
    stores = Stores()
    first, second, third = fill(stores, now)
    stores.coupons.clear()
    stores.deliveries.clear()
    stores.runs.pop(second)
    stores.charges[2] = stores.charges[2]._replace(refunded=1000)
    there = tuple(one for one in TEAMS if one != team)
    workflow_id = await reconciled(engine, stores, teams=there, page=1, patience=timedelta(seconds=2))
    other = Code.DELIVERY_MISSING if team == "marketing" else Code.COUPON_MISSING
    assert {(second, Code.WORKFLOW_MISSING), (third, Code.REFUNDED_THOUGH_STANDING), (first, other)} <= stores.codes
    assert stores.reports[-1].not_compared == [team]
    history = await engine.client.get_workflow_handle(workflow_id).fetch_history()
    waits = [
        event.activity_task_scheduled_event_attributes.schedule_to_close_timeout.ToTimedelta()
        for event in history.events
        if event.activity_task_scheduled_event_attributes.task_queue.name == team
    ]
    assert waits == [timedelta(seconds=2)]  # in the whole run


@pytest.mark.parametrize(("store", "source"), [("charges", "provider"), ("workflows", "engine")])
async def test_a_store_that_fails_is_left_out_and_named(
    engine: WorkflowEnvironment, now: datetime, store: str, source: str
) -> None:
    stores = Stores(failing={store})
    [first, *_] = fill(stores, now)
    stores.coupons.pop(first)
    stores.runs.clear()
    stores.charges.clear()
    await reconciled(engine, stores)
    wrong = {(first, Code.COUPON_MISSING)}
    if source == "provider":
        wrong = {(order_id, Code.WORKFLOW_MISSING) for order_id in stores.orders}
    assert stores.codes == wrong
    assert stores.reports[-1].not_compared == [source]


async def test_without_the_orders_there_is_no_run(engine: WorkflowEnvironment, now: datetime) -> None:
    stores = Stores(failing={"orders"})
    fill(stores, now)
    with pytest.raises(WorkflowFailureError):
        await reconciled(engine, stores)
    assert not any(report.finished for report in stores.reports)


async def test_pages_follow_each_other_and_what_one_store_has_more_of_is_read_in_the_next(
    engine: WorkflowEnvironment, now: datetime
) -> None:
    """Stores are cut where the shortest of their parts ends: nothing is compared with what was not read."""
    stores = Stores()
    ids = fill(stores, now, 25)
    for number in range(30):  # many deliveries of no order, between two orders
        ghost = f"{ids[7]}-{number:02}"
        stores.deliveries[ghost] = DeliverySummary(ghost, "Started", "tea", 1, 1)
    await reconciled(engine, stores, page=4)
    assert {code for _, code in stores.codes} == {Code.EFFECTS_WITHOUT_ORDER}
    assert len(stores.codes) == 30
    assert stores.reports[-1].compared == 25
    assert all(len(part.order_ids or []) <= 50 for name, part in stores.asked if name == "orders")


async def test_the_history_begins_anew_and_loses_nothing(engine: WorkflowEnvironment, now: datetime) -> None:
    stores = Stores()
    ids = fill(stores, now, 50)
    for order_id in (ids[0], ids[-1]):
        stores.coupons.pop(order_id)
    workflow_id = await reconciled(engine, stores, page=2)
    assert stores.codes == {(ids[0], Code.COUPON_MISSING), (ids[-1], Code.COUPON_MISSING)}
    assert stores.reports[-1].compared == 50
    assert len({report.reconciliation_id for report in stores.reports}) == 1
    history = await engine.client.get_workflow_handle(workflow_id).fetch_history()
    asked = [event.activity_task_scheduled_event_attributes.activity_type.name for event in history.events]
    assert asked.count("summarise_orders") == 12  # of 26 pages the last eleven; and the second look
    await Replayer(workflows=[ReconciliationWorkflow], data_converter=engine.client.data_converter).replay_workflow(
        history
    )


async def test_what_is_found_is_numbered_without_gaps(engine: WorkflowEnvironment, now: datetime) -> None:
    stores = Stores()
    for order_id in fill(stores, now, 120):
        stores.coupons.pop(order_id)
    await reconciled(engine, stores)
    numbers = [report.first + place for report in stores.reports for place, _ in enumerate(report.handled)]
    assert numbers == list(range(1, 121))
    assert stores.reports[-1].found == 120


async def test_no_run_does_more_than_a_person_would_let_it(
    engine: WorkflowEnvironment, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.reconciliation.MOST_PUT_RIGHT", 60)
    stores = Stores()
    for order_id in fill(stores, now, 120):
        stores.coupons.pop(order_id)
    async with asyncio.timeout(60):
        await reconciled(engine, stores)
    assert len(stores.put_right) in (60, 120)  # the sandbox reads the module anew
    assert stores.reports[-1].found == 120
