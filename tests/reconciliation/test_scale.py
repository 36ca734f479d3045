"""A hundred thousand orders are compared in the memory that a few pages take."""

import asyncio
import gc
import json
import resource
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.contract import DELIVERY_QUEUE, MARKETING_QUEUE, ORDER_QUEUE
from activities.delivery import DeliveryActivities
from activities.marketing import MarketingActivities
from activities.reconciliation import ReconciliationActivities
from deploy.payment_ledger import Ledger
from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.marketing.coupons import Coupons
from services.order.book import OrderBook
from services.order.provider import StripeProvider
from services.order.reconciliation import Reconciler, Standing
from services.order.reconciliation_reports import ReconciliationReports
from services.order.tables import Order
from services.shared.clock import utc_now
from services.shared.database import Database
from services.shared.ids import first_order_id
from services.shared.migrations import upgrade
from services.shared.settings import TEAMS, PaymentSettings, PoolSettings
from services.shared.summaries import Part, RunSummary, cut, end_of
from tests.engines import skipping_engine
from tests.payments import running_simulator
from workflows.reconciliation import Reconcile, ReconciliationWorkflow

ORDERS = 100_000
STEP = timedelta(seconds=20)
"""Between two orders: they fill 23 days."""
LOST = 54_321
"""The order whose coupon is missing."""
MOST_BYTES = 64 * 2**20
"""A fifth of the orders takes as much as all of them, half of this. To hold all summaries takes several times this."""
PATIENT = PoolSettings(transaction_seconds=30)

AT = "2026-11-01 00:00:00.000000"


class ManyRuns:
    """The engine's list of as many workflows as there are orders. Nothing else is asked of it but of the lost one."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids
        self.flagged: list[tuple[str, str]] = []

    async def runs(self, *, after: str, until: str, limit: int) -> Part[RunSummary]:
        first = bisect_right(self._ids, after)
        ids = self._ids[first : min(first + limit, bisect_right(self._ids, until))]
        return cut([_run(order_id) for order_id in ids], until, end_of(ids, limit))

    async def runs_of(self, order_ids: Collection[str]) -> list[RunSummary]:
        return [_run(order_id) for order_id in order_ids]

    async def flag(self, order: Order, standing: Standing, *, about: str, detail: str) -> None:
        self.flagged.append((order.order_id, about))

    async def journal(self, order_id: str) -> None:
        raise NotImplementedError

    async def resume(self, order: Order, standing: Standing, *, undo: bool) -> None:
        raise NotImplementedError


def resident() -> int:
    """The memory that this process holds, in bytes. (tracemalloc makes all of this ten times as slow.)"""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def highest_resident() -> int:
    """The highest that it holds, until cancelled."""
    highest = resident()
    try:
        while True:
            await asyncio.sleep(0.05)
            highest = max(highest, resident())
    except asyncio.CancelledError:
        return highest


def _run(order_id: str) -> RunSummary:
    return RunSummary(order_id, "RUNNING", "DeliveryStarted", False)


def fill(directory: Path, ids: list[str], began: datetime) -> None:
    """Orders that are on their way, in everybody's books."""
    n = len(ids)
    tables: dict[str, list[tuple[str, list[str], Iterator[tuple[Any, ...]]]]] = {
        "order": [
            (
                "orders",
                [
                    "order_id",
                    "user_id",
                    "product_id",
                    "product_name",
                    "product_price",
                    "qty",
                    "amount",
                    "currency",
                    "username",
                    "address",
                    "phone_no",
                    "payment_method",
                    "order_date",
                    "started_at",
                    "claimed_until",
                ],
                ((i, "u", "tea", "차", 1000, 1, 1000, "KRW", "김", "서울", "010", "pm", AT, AT, AT) for i in ids),
            ),
            (
                "order_views",
                [
                    "order_id",
                    "user_id",
                    "order_status",
                    "pay_status",
                    "delivery_status",
                    "needs_attention",
                    "coupon_id",
                    "version",
                    "updated_at",
                ],
                ((i, "u", "DeliveryStarted", "Paid", "Started", 0, f"c{i}", 5, AT) for i in ids),
            ),
            (
                "payments",
                ["order_id", "state", "amount", "currency", "intent_id", "updated_at"],
                ((i, "Paid", 1000, "KRW", f"pi_{i}", AT) for i in ids),
            ),
        ],
        "delivery": [
            ("stock", ["product_id", "on_hand", "updated_at"], iter([("tea", 5, AT)])),
            (
                "stock_movements",
                ["reference", "kind", "product_id", "qty", "reason", "at"],
                (
                    (i, kind, "tea", qty, "", AT)
                    for i, kind, qty in [("tea", "opening", n + 5), *((i, "sale", -1) for i in ids)]
                ),
            ),
            (
                "deliveries",
                ["order_id", "product_id", "qty", "state", "started_at", "updated_at"],
                ((i, "tea", 1, "Started", AT, AT) for i in ids),
            ),
        ],
        "marketing": [
            (
                "coupons",
                ["order_id", "coupon_id", "user_id", "coupon_kind", "used", "issued_at"],
                ((i, f"c{i}", "u", "Bronze", 0, AT) for place, i in enumerate(ids) if place != LOST),
            )
        ],
    }
    for team in TEAMS:
        upgrade(f"sqlite+aiosqlite:///{directory / team}.db", team)
        books = sqlite3.connect(directory / f"{team}.db")
        with books:
            for table, columns, rows in tables[team]:
                marks = ", ".join("?" * len(columns))
                books.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)
        books.close()
    Ledger(directory / "ledger.db").close()
    books = sqlite3.connect(directory / "ledger.db")
    with books:
        books.executemany(
            "INSERT INTO intents VALUES (?, ?, ?, 1000, 'krw', 'succeeded', 'pm', ?, 1000, 0)",
            (
                (f"pi_{i}", i, json.dumps({"order_id": i}), int((began + place * STEP).timestamp()))
                for place, i in enumerate(ids)
            ),
        )
    books.close()


async def test_a_hundred_thousand_orders_are_compared_in_bounded_memory(tmp_path: Path) -> None:
    began = utc_now() - ORDERS * STEP - timedelta(hours=1)
    ids = [first_order_id(began + place * STEP) for place in range(ORDERS)]
    await asyncio.to_thread(fill, tmp_path, ids, began)
    async with AsyncExitStack() as stack:
        environment = await stack.enter_async_context(skipping_engine())
        orders, delivery, marketing = (Database(f"sqlite+aiosqlite:///{tmp_path / team}.db", PATIENT) for team in TEAMS)
        simulator = await stack.enter_async_context(running_simulator(tmp_path / "ledger.db"))
        provider = StripeProvider(PaymentSettings(url=simulator, key=SecretStr("sk_test_street12")))
        for closing in (orders.close, delivery.close, marketing.close, provider.close):
            stack.push_async_callback(closing)
        runs, reports = ManyRuns(ids), ReconciliationReports(orders)
        reconciler = Reconciler(orders, OrderBook(orders), provider, runs)
        goods = DeliveryActivities(Deliveries(delivery), Warehouse(delivery))
        workers: list[tuple[str, list[Callable[..., Any]], dict[str, Any]]] = [
            (
                ORDER_QUEUE,
                ReconciliationActivities(reconciler, reports).all,
                {"workflows": [ReconciliationWorkflow], "workflow_runner": UnsandboxedWorkflowRunner()},
            ),
            (DELIVERY_QUEUE, [goods.summarise_deliveries, goods.summarise_stock], {}),
            (MARKETING_QUEUE, [MarketingActivities(Coupons(marketing)).summarise_coupons], {}),
        ]
        for queue, activities, options in workers:
            worker = Worker(environment.client, task_queue=queue, activities=activities, **options)
            await stack.enter_async_context(worker)
        gc.collect()
        started, at_first = time.monotonic(), resident()
        highest = asyncio.create_task(highest_resident())
        run_id = await environment.client.execute_workflow(
            ReconciliationWorkflow.run, Reconcile(days=60), id="reconciliation", task_queue=ORDER_QUEUE
        )
        seconds = time.monotonic() - started
        highest.cancel()
        peak = await highest - at_first
        run, found = await reports.get(run_id), await reports.differences(run_id, limit=10)
    print(f"{run.compared} orders in {seconds:.1f} s, at most {peak / 2**20:.1f} MB")  # noqa: T201  (for the reader)
    assert (run.compared, run.found, run.not_compared) == (ORDERS, 1, [])
    assert [(one.order_id, one.code, one.outcome) for one in found] == [(ids[LOST], "coupon-missing", "flagged")]
    assert runs.flagged == [(ids[LOST], "coupon-missing")]
    assert peak < MOST_BYTES
