"""Nobody is told what the engine then forgets: what is written down was decided for good before.

A decision that an update brings stands in the engine's history once the worker's task is over, and not before. An
engine that dies in between knows nothing of the update; whatever was told of it by then would be a lie.
"""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.contract import DELIVERY_QUEUE, MARKETING_QUEUE, ORDER_QUEUE, Coupon, RecordStatus, Undone
from deploy.local import Shop
from deploy.stack import HOST, StackSettings
from deploy.supervisor import Patience, Supervisor
from services.order.statuses import EventType
from services.shared.errors import Refused
from services.shared.settings import DatabaseSettings
from tests.e2e.shop import eventually
from tests.faults.wire import Wire, running_wire
from tests.orders import an_order
from workflows import steps
from workflows.client import EngineUnavailable, OrderEngine
from workflows.order import OrderWorkflow

ORDER_ID = "order-of-the-night"


@dataclass
class Teams:
    """Teams that do all that is asked of them, and the book in which the order team writes."""

    book: dict[int, EventType] = field(default_factory=dict[int, EventType])
    rewritten: list[str] = field(default_factory=list[str])
    """What was written as something else before."""
    doom: EventType | None = None
    """With this entry in the book, the engine dies, and whoever wrote it is cut off from it."""
    engine: int = 0
    wire: Wire | None = None
    dead: asyncio.Event = field(default_factory=asyncio.Event)

    async def under_way(self) -> bool:
        return EventType.STOCK_ADJUSTED in self.book.values()

    @activity.defn
    async def record_status(self, command: RecordStatus) -> None:
        for entry in command.timeline:
            known = self.book.setdefault(entry.version, entry.type)
            if known is not entry.type:
                self.rewritten.append(f"{entry.version}: {known}, then {entry.type}")
        if self.doom in self.book.values() and self.wire is not None and not self.dead.is_set():
            self.wire.silence()
            os.kill(self.engine, signal.SIGKILL)
            self.dead.set()

    @activity.defn(dynamic=True)
    async def other(self, _: Sequence[RawValue]) -> Coupon | Undone | None:
        name = activity.info().activity_type
        if name == "issue_coupon":
            return Coupon(coupon_id="coupon-1", coupon_kind="Bronze")
        return Undone(changed=True) if name.startswith(("refund", "revoke", "cancel", "restore")) else None


@asynccontextmanager
async def workers(client: Client, teams: Teams) -> AsyncGenerator[None]:
    """All workers of the shop, in this process."""
    async with (
        Worker(
            client,
            task_queue=ORDER_QUEUE,
            workflows=[OrderWorkflow],
            activities=[teams.record_status, teams.other],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ),
        Worker(client, task_queue=MARKETING_QUEUE, activities=[teams.other]),
        Worker(client, task_queue=DELIVERY_QUEUE, activities=[teams.other]),
    ):
        yield


async def tell(engine: OrderEngine, client: Client, what: str) -> bool:
    """Whether there was an answer, be it a refusal."""
    try:
        if what == "Request Cancellation":  # of the Web UI
            await client.get_workflow_handle(ORDER_ID).cancel()
        elif what == "cancel":
            await engine.cancel(ORDER_ID, by="customer", actor="u1")
        else:
            await engine.delivered(ORDER_ID)
    except (EngineUnavailable, RPCError):
        return False
    except Refused:
        return True
    return True


@pytest.mark.parametrize(
    ("told", "doom", "told_then"),
    [
        ("cancel", "OrderCanceling", "delivered"),
        ("delivered", "Delivered", "cancel"),
        # What a step came to is written beside the task that learns of it. The repetition learns of the cancel first.
        (None, "StockAdjusted", "cancel"),
        (None, "StockAdjusted", "Request Cancellation"),
        (None, "StockAdjusted", "delivered"),
    ],
)
async def test_what_is_written_down_is_decided_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, doom: str, told_then: str
) -> None:
    monkeypatch.setattr(steps, "STATUS_ATTEMPT", timedelta(seconds=2))  # who is cut off is soon given up
    (tmp_path / "run").mkdir()
    settings = StackSettings(api_port=0, temporal_port=0, temporal_ui_port=0, payment_port=0, codec_port=0)
    shop = Shop(settings, DatabaseSettings(data_dir=tmp_path), tmp_path)
    said: list[str] = []
    supervisor = Supervisor(lambda tag, line: said.append(f"{tag}: {line}"), patience=Patience(first_pause=0.1))
    teams = Teams()
    try:
        await supervisor.start(shop.temporal())
        teams.engine = supervisor.pids["temporal"]
        port = int(shop.urls.temporal.rpartition(":")[2])
        async with running_wire(HOST, port) as wire:
            cut_off = await Client.connect(f"{HOST}:{wire.port}", data_converter=pydantic_data_converter)
            async with workers(cut_off, teams):
                direct = await Client.connect(shop.urls.temporal, data_converter=pydantic_data_converter)
                engine = OrderEngine(direct, payment_budget=timedelta(hours=1), delivery_deadline=timedelta(days=1))
                teams.doom, teams.wire = EventType(doom), wire
                await engine.start(an_order(ORDER_ID))
                await eventually(teams.under_way, "the order to be under way")
                telling = asyncio.create_task(tell(engine, direct, told)) if told else None
                await teams.dead.wait()
                if telling:
                    telling.cancel()  # whoever told it is gone, too, and does not repeat it
                # The same order, seen by another worker once the engine is back; somebody wants something else of it.
                async with workers(direct, teams):
                    await eventually(lambda: tell(engine, direct, told_then), f"an answer to {told_then}")
                    async with asyncio.timeout(60):  # nobody is asked again, so one who was refused waits for ever
                        ended = await direct.get_workflow_handle(ORDER_ID, result_type=str).result()
                wire.heal()
    finally:
        await supervisor.stop(asyncio.Event())
    assert teams.rewritten == []
    assert EventType(ended) in teams.book.values()
    assert sorted(teams.book) == [*range(2, len(teams.book) + 2)]
    assert len({*teams.book.values()}) == len(teams.book), "something is told twice"
