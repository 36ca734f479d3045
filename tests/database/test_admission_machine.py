"""Any sequence of orders, repetitions, payments, cancels, pauses and crashes, against a model of the intake."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from services.order import repository
from services.order.acceptance import Acceptance, Accepted
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.catalogue import Catalogue
from services.order.circuit import AdmissionRules, Intake
from services.order.errors import IdempotencyKeyReused, OrderIntakePaused
from services.order.statuses import EventType, OrderState, OrderStatus, TimelineEntry
from services.order.tables import AdmissionState
from services.shared.database import Database, Work
from services.shared.errors import DatabaseUnavailable
from services.shared.migrations import upgrade
from services.shared.settings import PoolSettings
from tests.database.orders import TEA, HeldClock, accept, accepting, rows

T = TypeVar("T")
RULES = AdmissionRules()
NOBODY: Any = multiple()  # pyright: ignore[reportUnknownVariableType]
PROCESSES = st.integers(0, 1)
TIMES = st.sampled_from([0.02, 0.2, 0.609, 0.61, 0.611, 3.0, 40.0]).map(lambda seconds: timedelta(seconds=seconds))


@dataclass
class Model:
    """The intake as one would tell it: who is in flight, what payments took, and how the door stands."""

    keys: dict[str, str] = field(default_factory=dict[str, str])
    in_flight: set[str] = field(default_factory=set[str])
    took: list[timedelta] = field(default_factory=list[timedelta])
    open_since: datetime | None = None
    trial_at: datetime | None = None
    trial: str | None = None

    def refusal(self, now: datetime) -> Intake | None:
        """Why a new order is refused, if it is."""
        if self.open_since is not None:
            assert self.trial_at is not None
            under_way = self.trial in self.in_flight
            if now < self.trial_at or under_way or len(self.in_flight) >= RULES.max_pending:
                return Intake.PAYMENTS_SLOW
        elif len(self.in_flight) >= RULES.max_pending:
            return Intake.PAYMENTS_PENDING
        return None

    def accepted(self, key: str, order_id: str) -> None:
        self.keys[key] = order_id
        self.in_flight.add(order_id)
        if self.open_since is not None:
            self.trial = order_id

    def settled(self, order_id: str, took: timedelta, now: datetime) -> None:
        self.took.append(took)
        slow = took > RULES.slow
        if self.open_since is None:
            last = [one.total_seconds() for one in self.took[-10:]]
            if len(last) == 10 and median(last) > RULES.slow.total_seconds():
                self.open_since, self.trial_at = now, now + RULES.cooldown
        elif order_id == self.trial and slow:
            self.trial_at, self.trial = now + RULES.cooldown, None
        elif order_id == self.trial:
            self.open_since = self.trial_at = self.trial = None
            self.took = []


class Breaking(Database):
    """A database whose process can die just before a commit, or just after it."""

    dies: str = ""

    async def write(self, work: Work[T]) -> T:
        how, self.dies = self.dies, ""
        if how == "before the commit":
            raise DatabaseUnavailable(how)
        answer = await super().write(work)
        if how == "after the commit":
            raise DatabaseUnavailable(how)
        return answer


class IntakeMachine(RuleBasedStateMachine):
    """Two processes take orders; `template` is a migrated database."""

    template: Path
    unsettled = Bundle[Accepted]("unsettled")
    settled = Bundle[Accepted]("settled")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        file = Path(self.directory.name) / "order.db"
        shutil.copy(self.template, file)
        self.database = Breaking(f"sqlite+aiosqlite:///{file}", PoolSettings(transaction_seconds=30))
        self.clock = HeldClock()
        self.admission = Admission(RULES, self.clock)
        self.book = OrderBook(self.database)
        self.processes = [self.process(), self.process()]
        self.model = Model()
        self.number = 0
        self.run(Catalogue(self.database).put(product_id="tea", product_name="녹차", product_price=1000))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def process(self) -> Acceptance:
        return accepting(self.database, self.clock, rules=RULES)

    def new_key(self) -> str:
        self.number += 1
        return f"key-{self.number}"

    @rule(target=unsettled, process=PROCESSES)
    def order(self, process: int) -> Any:
        return self.order_with(self.new_key(), process)

    def order_with(self, key: str, process: int) -> Any:
        """Order under a new key; the order, if the model lets it in."""
        expected = self.model.refusal(self.clock.now)
        if expected is not None:
            with pytest.raises(OrderIntakePaused) as refusal:
                self.run(accept(self.processes[process], key))
            assert refusal.value.reason == expected
            assert 1 <= refusal.value.retry_after_seconds <= 60
            return NOBODY
        order = self.run(accept(self.processes[process], key))
        assert not order.replayed
        self.model.accepted(key, order.order.order_id)
        return order

    @rule(target=unsettled, process=PROCESSES, dies=st.sampled_from(["before the commit", "after the commit"]))
    def crash(self, process: int, dies: str) -> Any:
        """The process dies while it takes an order; another takes its place, and the customer asks again."""
        key = self.new_key()
        if self.model.refusal(self.clock.now) is not None:
            return NOBODY
        self.database.dies = dies
        with pytest.raises(DatabaseUnavailable):
            self.run(accept(self.processes[process], key))
        self.processes[process] = self.process()
        order = self.run(accept(self.processes[process], key))
        assert order.replayed == (dies == "after the commit")
        self.model.accepted(key, order.order.order_id)
        return order

    @precondition(lambda self: self.model.keys)
    @rule(data=st.data(), process=PROCESSES, other=st.booleans())
    def retry(self, data: st.DataObject, process: int, other: bool) -> None:
        """Ask again, whatever became of the order and of the intake."""
        key = data.draw(st.sampled_from(sorted(self.model.keys)))
        if other:
            with pytest.raises(IdempotencyKeyReused):
                self.run(accept(self.processes[process], key, request=replace(TEA, qty=1)))
            return
        again = self.run(accept(self.processes[process], key))
        assert (again.replayed, again.order.order_id) == (True, self.model.keys[key])

    @rule(target=settled, order=consumes(unsettled), took=TIMES)
    def payment_is_known(self, order: Accepted, took: timedelta) -> Accepted:
        """Paid or declined, fast or slowly: the place is free when the order's workflow has said so."""
        order_id = order.order.order_id
        self.run(self.database.write(lambda session: self.admission.settled(session, order_id, took=took)))
        self.model.settled(order_id, took, self.clock.now)
        return order

    @rule(order=consumes(settled), status=st.sampled_from([OrderStatus.ORDER_PLACED, OrderStatus.PAYMENT_DECLINED]))
    def status_is_written(self, order: Accepted, status: OrderStatus) -> None:
        self.moves_on(order, status)

    @rule(order=consumes(unsettled))
    def cancel_before_the_payment_is_known(self, order: Accepted) -> None:
        self.moves_on(order, OrderStatus.ORDER_CANCELING)

    def moves_on(self, order: Accepted, status: OrderStatus) -> None:
        entry = TimelineEntry(version=2, type=EventType.ORDER_PLACED, at=self.clock.now)
        self.run(
            self.book.record(order_id=order.order.order_id, state=OrderState(order_status=status), timeline=[entry])
        )
        self.model.in_flight.discard(order.order.order_id)

    @rule(seconds=st.sampled_from([0.5, 2.5, 5.0, 90.0]))
    def cool_down(self, seconds: float) -> None:
        self.clock.now += timedelta(seconds=seconds)

    @rule(took=TIMES, count=st.integers(1, 10))
    def weather(self, took: timedelta, count: int) -> None:
        """Payments of orders that came before take so long."""
        for _ in range(count):
            self.run(self.database.write(lambda session: self.admission.settled(session, "earlier", took=took)))
            self.model.settled("earlier", took, self.clock.now)

    @invariant()
    def as_many_are_in_flight_as_the_model_says(self) -> None:
        assert (
            self.run(self.database.read(repository.pending_payments)) == len(self.model.in_flight) <= RULES.max_pending
        )

    @invariant()
    def the_circuit_stands_as_the_model_says(self) -> None:
        states = self.run(rows(self.database, AdmissionState))
        found = [(state.open_since, state.trial_at) for state in states] or [(None, None)]
        assert found == [(self.model.open_since, self.model.trial_at)]

    def teardown(self) -> None:
        self.run(self.database.close())
        self.runner.close()
        self.directory.cleanup()


async def test_the_intake_is_what_the_model_says_whatever_happens(tmp_path: Path) -> None:
    template = tmp_path / "order.db"
    await asyncio.to_thread(upgrade, f"sqlite+aiosqlite:///{template}", "order")
    IntakeMachine.template = template
    # In a thread, because the machine has an event loop of its own.
    machine_settings = settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, database=None)
    await asyncio.to_thread(run_state_machine_as_test, IntakeMachine, settings=machine_settings)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
