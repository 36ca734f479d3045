"""What each team says of a stretch of orders, what is put right, and how long reports are kept; on both databases."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.marketing.coupons import Coupons
from services.order.book import OrderBook
from services.order.comparison import Code, Difference, Handled, Outcome
from services.order.housekeeping import Housekeeping
from services.order.provider import PaymentProvider
from services.order.reconciliation import Journal, Reconciler, Standing
from services.order.reconciliation_reports import ReconciliationReports
from services.order.statuses import EventType, OrderState, OrderStatus, TimelineEntry
from services.order.tables import Order, OrderEvent, OrderView, Payment, ReconciliationDifference
from services.shared.database import Database, change
from services.shared.errors import Unavailable
from services.shared.ids import reconciliation_id
from services.shared.summaries import DeliverySummary, Part, RunSummary
from tests.database.orders import HeldClock
from tests.orders import an_order

IDS = [f"order_{number:02}" for number in range(10)]
EVERYTHING = {"after": "", "until": "order_99"}


@dataclass
class FakeWorkflows:
    """The engine: what its workflows know, and what it was told to do. Or it is away."""

    journals: dict[str, Journal] = field(default_factory=dict[str, Journal])
    shown: list[RunSummary] = field(default_factory=list[RunSummary])
    told: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    away: bool = False
    broken: bool = False

    async def runs(self, *, after: str, until: str, limit: int) -> Part[RunSummary]:
        return Part([], until)

    async def runs_of(self, order_ids: Collection[str]) -> Sequence[RunSummary]:
        return [run for run in self.shown if run.order_id in order_ids]

    async def journal(self, order_id: str) -> Journal | None:
        self._be_there()
        return self.journals.get(order_id)

    async def resume(self, order: Order, standing: Standing, *, undo: bool) -> None:
        self._be_there()
        self.told.append(("resume", order.order_id, *_told(standing), undo))

    async def flag(self, order: Order, standing: Standing, *, about: str, detail: str) -> None:
        self._be_there()
        self.told.append(("flag", order.order_id, *_told(standing), about, detail))

    def _be_there(self) -> None:
        if self.away:
            raise Unavailable("away")
        if self.broken:
            raise ZeroDivisionError("nobody has thought of it")


def _told(standing: Standing) -> tuple[Any, ...]:
    return (standing.version, standing.state.order_status, standing.done, standing.skipped)


class NoProvider(PaymentProvider):
    """Nobody asks it here."""


@pytest.fixture
def workflows() -> FakeWorkflows:
    return FakeWorkflows()


@pytest.fixture
def book(order_database: Database) -> OrderBook:
    return OrderBook(order_database)


@pytest.fixture
def reconciler(order_database: Database, book: OrderBook, workflows: FakeWorkflows) -> Reconciler:
    return Reconciler(order_database, book, NoProvider(), workflows)  # pyright: ignore[reportAbstractUsage]


async def put_in(database: Database, *rows: SQLModel) -> None:
    async def work(session: AsyncSession) -> None:
        for row in rows:
            await change(session, insert(type(row)), row.model_dump())

    await database.write(work)


async def an_open_order(
    database: Database, clock: HeldClock, order_id: str = "order_01", *events: EventType, **view: Any
) -> None:
    """An order that was received, with these events after that, and such a view."""
    now = clock()
    timeline = (EventType.ORDER_RECEIVED, *events)
    usual: dict[str, Any] = {
        "order_status": "OrderPlaced",
        "pay_status": "Paid",
        "delivery_status": "None",
        "version": len(timeline),
    }
    await put_in(
        database,
        an_order(order_id, now, started_at=now),
        OrderView(order_id=order_id, user_id="u1", updated_at=now, **{**usual, **view}),
        *(
            OrderEvent(order_id=order_id, version=version, type=type, at=now, detail={"undo": "revoke_coupon"})
            for version, type in enumerate(timeline, start=1)
        ),
    )


# What is said


async def test_orders_are_told_with_their_payments_as_far_as_was_asked(
    order_database: Database, reconciler: Reconciler, clock: HeldClock
) -> None:
    for order_id in IDS:
        await an_open_order(order_database, clock, order_id)
    payment = Payment(
        order_id=IDS[3], state="Paid", amount=1000, currency="KRW", intent_id="pi_1", updated_at=clock()
    )  # fmt: skip
    await put_in(order_database, payment)
    part = await reconciler.summaries(after=IDS[1], until="order_99", limit=3)
    assert [order.order_id for order in part.rows] == IDS[2:5]
    assert part.until == IDS[4]
    first, paid, _ = part.rows
    assert (paid.payment_state, paid.intent_id, first.payment_state) == ("Paid", "pi_1", None)
    assert (first.qty, first.amount, first.order_status, first.version) == (1, 1000, "OrderPlaced", 1)
    assert (first.updated_at, first.started, first.needs_attention) == (clock(), True, False)
    last = await reconciler.summaries(after=IDS[7], until="order_99", limit=3)
    assert ([order.order_id for order in last.rows], last.until) == (IDS[8:], "order_99")
    assert {order.order_id for order in await reconciler.summaries_of([IDS[0], IDS[9], "nobody's"])} == {IDS[0], IDS[9]}


async def test_excuses_are_told_of_those_that_may_have_one(
    order_database: Database, reconciler: Reconciler, clock: HeldClock
) -> None:
    skipped, waived = EventType.COMPENSATION_SKIPPED, EventType.COUPON_WAIVED
    await an_open_order(order_database, clock, IDS[0], skipped, order_status="OrderCanceled")
    await an_open_order(order_database, clock, IDS[1], waived, order_status="DeliveryStarted")
    await an_open_order(order_database, clock, IDS[2], waived, order_status="DeliveryStarted", coupon_id="c")
    found = {order.order_id: order.excused for order in (await reconciler.summaries(**EVERYTHING, limit=9)).rows}
    assert found == {IDS[0]: ("revoke_coupon",), IDS[1]: ("issue_coupon",), IDS[2]: ()}
    assert {order.order_id: order.excused for order in await reconciler.summaries_of(IDS)} == found


async def test_goods_are_told_as_far_as_both_tables_were_read(delivery_database: Database) -> None:
    deliveries, warehouse = Deliveries(delivery_database), Warehouse(delivery_database)
    await warehouse.open_if_new("tea", 100)
    for order_id in IDS:
        await deliveries.start(order_id=order_id, product_id="tea", qty=2)
    for order_id in IDS[:5]:
        await warehouse.sell(order_id=order_id, product_id="tea", qty=2)
    await warehouse.restore(order_id=IDS[1], product_id="tea")
    await warehouse.restore(order_id=IDS[7], product_id="tea")  # a tombstone
    await warehouse.sell(order_id="order_05x", product_id="tea", qty=1)  # which no delivery was started for
    part = await deliveries.summaries(after=IDS[0], until="order_99", limit=3)
    assert part.until == IDS[3]
    assert part.rows == [
        DeliverySummary(order_id, "Started", "tea", 2, sold) for order_id, sold in zip(IDS[1:4], (0, 2, 2), strict=True)
    ]
    for place in "yz":
        await warehouse.sell(order_id=f"order_05{place}", product_id="tea", qty=1)
    crowded = await deliveries.summaries(after=IDS[4], until="order_99", limit=3)
    assert (crowded.until, [one.order_id for one in crowded.rows]) == (
        "order_05z",
        [IDS[5], "order_05x", "order_05y", "order_05z"],
    )
    for place in "yz":
        await warehouse.restore(order_id=f"order_05{place}", product_id="tea")
    ghost = await deliveries.summaries(after=IDS[5], until=IDS[6], limit=9)
    assert [one for one in ghost.rows if one.sold or one.state] == [
        DeliverySummary("order_05x", None, None, 0, 1),
        DeliverySummary(IDS[6], "Started", "tea", 2, 0),
    ]
    assert sorted(await deliveries.summaries_of([IDS[2], "order_05x"])) == [
        DeliverySummary(IDS[2], "Started", "tea", 2, 2),
        DeliverySummary("order_05x", None, None, 0, 1),
    ]


async def test_stock_is_told_with_the_sum_of_its_movements(delivery_database: Database) -> None:
    warehouse = Warehouse(delivery_database)
    for product_id in ("coffee", "milk", "tea"):
        await warehouse.open_if_new(product_id, 10)
    await warehouse.sell(order_id="o1", product_id="tea", qty=3)
    await warehouse.move(product_id="tea", qty=5, reason="restock", reference="r1")
    assert await warehouse.products(after="coffee", limit=1) == ["milk"]
    assert await warehouse.products(after="coffee", limit=9) == ["milk", "tea"]
    assert await warehouse.summaries_of(["milk", "tea", "nothing"]) == [("milk", 10, 10), ("tea", 12, 12)]


async def test_coupons_are_told_and_whether_they_stand(marketing_database: Database) -> None:
    coupons = Coupons(marketing_database, new_id=iter(f"coupon_{number}" for number in range(99)).__next__)
    for order_id in IDS[:4]:
        await coupons.issue(order_id=order_id, user_id="u", amount=1)
    await coupons.revoke(order_id=IDS[1], user_id="u", amount=1)
    await coupons.revoke(order_id=IDS[4], user_id="u", amount=1)  # a tombstone
    part = await coupons.summaries(after=IDS[0], until="order_99", limit=2)
    assert ([(one.order_id, one.stands) for one in part.rows], part.until) == (
        [(IDS[1], False), (IDS[2], True)],
        IDS[2],
    )
    assert {one.order_id: one.stands for one in await coupons.summaries_of(IDS)} == dict(
        zip(IDS[:5], (True, False, True, True, False), strict=True)
    )


# What is put right


def of(code: Code, order_id: str = "order_01", *, version: int = 2) -> Difference:
    return Difference(code, order_id, "so it is", version)


def journal(clock: HeldClock, status: OrderStatus, *types: EventType, first: int = 2) -> Journal:
    timeline = [TimelineEntry(version=first + place, type=type, at=clock()) for place, type in enumerate(types)]
    return Journal(OrderState(order_status=status), timeline)


PLACED, ISSUED = EventType.ORDER_PLACED, EventType.COUPON_ISSUED


async def test_a_view_that_is_behind_is_brought_to_what_its_workflow_knows(
    order_database: Database, reconciler: Reconciler, workflows: FakeWorkflows, book: OrderBook, clock: HeldClock
) -> None:
    await an_open_order(order_database, clock, "order_01", PLACED)
    workflows.journals["order_01"] = journal(clock, OrderStatus.COUPON_ISSUED, PLACED, ISSUED)
    for _ in range(2):  # as when the answer of the first attempt was lost
        handled = await reconciler.put_right(of(Code.VIEW_BEHIND))
        assert handled.outcome is Outcome.REPAIRED
    view = (await book.get("order_01")).view
    assert (view.order_status, view.version) == (OrderStatus.COUPON_ISSUED, 3)
    assert [event.type for event in await book.timeline("order_01")] == [EventType.ORDER_RECEIVED, PLACED, ISSUED]


@pytest.mark.parametrize(
    ("types", "outcome", "code"),
    [
        ((PLACED, ISSUED), None, Code.VIEW_BEHIND),  # the engine's list was behind, not the view
        ((), None, Code.VIEW_BEHIND),  # it was taken up again, and nothing has happened since
        ((PLACED,), Outcome.REPORTED, Code.VIEW_AHEAD),
    ],
)
async def test_a_view_that_is_not_behind_is_left_as_it_is(
    order_database: Database,
    reconciler: Reconciler,
    workflows: FakeWorkflows,
    clock: HeldClock,
    types: tuple[EventType, ...],
    outcome: Outcome | None,
    code: Code,
) -> None:
    await an_open_order(order_database, clock, "order_01", PLACED, ISSUED)
    workflows.journals["order_01"] = journal(clock, OrderStatus.ORDER_PLACED, *types)
    handled = await reconciler.put_right(of(Code.VIEW_BEHIND, version=3))
    assert (handled.difference.code, handled.outcome) == (code, outcome)


async def test_a_view_that_lags_behind_where_its_workflow_was_taken_up_is_reported(
    order_database: Database, reconciler: Reconciler, workflows: FakeWorkflows, clock: HeldClock
) -> None:
    """The database was restored to before that: what came in between, this workflow never knew."""
    await an_open_order(order_database, clock, "order_01", PLACED)
    workflows.journals["order_01"] = journal(clock, OrderStatus.DELIVERED)
    handled = await reconciler.put_right(of(Code.VIEW_BEHIND, version=2))
    assert (handled.difference.code, handled.outcome) == (Code.VIEW_BEHIND, Outcome.REPORTED)


async def test_a_workflow_that_is_gone_goes_on_from_the_timeline(
    order_database: Database, reconciler: Reconciler, workflows: FakeWorkflows, clock: HeldClock
) -> None:
    await an_open_order(order_database, clock, "order_01", PLACED)
    handled = await reconciler.put_right(of(Code.WORKFLOW_MISSING))
    assert handled.outcome is Outcome.REPAIRED
    done = [EventType.ORDER_RECEIVED, PLACED]
    assert workflows.told == [("resume", "order_01", 2, OrderStatus.ORDER_PLACED, done, [], False)]


async def test_what_a_stopped_workflow_did_is_undone_from_where_it_really_was(
    order_database: Database, reconciler: Reconciler, workflows: FakeWorkflows, clock: HeldClock
) -> None:
    await an_open_order(order_database, clock, "order_01", PLACED)
    workflows.journals["order_01"] = journal(clock, OrderStatus.COUPON_ISSUED, PLACED, ISSUED)
    handled = await reconciler.put_right(of(Code.WORKFLOW_STOPPED))
    assert handled.outcome is Outcome.REPAIRED
    done = [EventType.ORDER_RECEIVED, PLACED, ISSUED]
    assert workflows.told == [("resume", "order_01", 3, OrderStatus.COUPON_ISSUED, done, [], True)]


async def test_a_stopped_workflow_that_had_come_to_the_end_has_nothing_to_undo(
    order_database: Database, reconciler: Reconciler, workflows: FakeWorkflows, book: OrderBook, clock: HeldClock
) -> None:
    await an_open_order(order_database, clock, "order_01", PLACED)
    workflows.journals["order_01"] = journal(clock, OrderStatus.DELIVERED, PLACED, EventType.DELIVERED)
    handled = await reconciler.put_right(of(Code.WORKFLOW_STOPPED))
    assert (handled.outcome, workflows.told) == (Outcome.REPAIRED, [])
    assert (await book.get("order_01")).view.order_status == OrderStatus.DELIVERED


@pytest.mark.parametrize(("shown", "undone"), [("Delivered", False), ("OrderPlaced", True), ("OrderCanceled", True)])
async def test_what_arrived_is_not_undone_though_its_workflow_cannot_be_asked(
    order_database: Database,
    reconciler: Reconciler,
    workflows: FakeWorkflows,
    clock: HeldClock,
    shown: str,
    undone: bool,
) -> None:
    await an_open_order(order_database, clock, "order_01", PLACED)
    workflows.shown = [RunSummary("order_01", "TERMINATED", shown, False)]
    handled = await reconciler.put_right(of(Code.WORKFLOW_STOPPED))
    assert (handled.outcome, len(workflows.told)) == ((Outcome.REPAIRED, 1) if undone else (Outcome.REPORTED, 0))


@pytest.mark.parametrize("code", [Code.WORKFLOW_MISSING, Code.WORKFLOW_STOPPED])
async def test_an_order_that_has_ended_and_waits_for_a_person_is_taken_up_for_that(
    order_database: Database, reconciler: Reconciler, workflows: FakeWorkflows, clock: HeldClock, code: Code
) -> None:
    view = {"order_status": "OrderCanceled", "needs_attention": True}
    await an_open_order(order_database, clock, "order_01", PLACED, **view)
    handled = await reconciler.put_right(of(code))
    assert (handled.outcome, handled.done) == (Outcome.REPAIRED, "a new workflow waits for a person")
    assert [told[:4] for told in workflows.told] == [("resume", "order_01", 2, OrderStatus.ORDER_CANCELED)]


async def test_a_person_is_called_once_about_each_thing(
    order_database: Database, reconciler: Reconciler, workflows: FakeWorkflows, book: OrderBook, clock: HeldClock
) -> None:
    skipped = EventType.COMPENSATION_SKIPPED
    await an_open_order(order_database, clock, "order_01", PLACED, skipped)
    assert (await reconciler.put_right(of(Code.CHARGED_TWICE, version=3))).outcome is Outcome.FLAGGED
    [told] = workflows.told
    assert told == (
        *("flag", "order_01", 3, OrderStatus.ORDER_PLACED, [EventType.ORDER_RECEIVED, PLACED, skipped]),
        *(["revoke_coupon"], "charged-twice", "so it is"),
    )
    raised = TimelineEntry(
        version=4, type=EventType.ATTENTION_RAISED, at=clock(), detail={"about": str(Code.CHARGED_TWICE)}
    )
    cleared = replace(raised, version=5, type=EventType.ATTENTION_CLEARED)
    await book.record(order_id="order_01", state=OrderState(), timeline=[raised, cleared])
    assert (await reconciler.put_right(of(Code.CHARGED_TWICE, version=3))).outcome is Outcome.KNOWN
    assert (await reconciler.put_right(of(Code.COUPON_MISSING, version=3))).outcome is Outcome.FLAGGED
    assert len(workflows.told) == 2


async def test_nobody_is_called_about_what_a_view_read_that_the_same_run_has_brought_up_to_date(
    order_database: Database, reconciler: Reconciler, workflows: FakeWorkflows, clock: HeldClock
) -> None:
    await an_open_order(order_database, clock, "order_01", PLACED)
    workflows.journals["order_01"] = journal(clock, OrderStatus.ORDER_CANCELED, PLACED, EventType.ORDER_CANCELED)
    assert (await reconciler.put_right(of(Code.VIEW_BEHIND))).outcome is Outcome.REPAIRED
    assert (await reconciler.put_right(of(Code.REFUNDED_THOUGH_STANDING))).outcome is None  # it does not stand
    assert workflows.told == []
    assert (await reconciler.put_right(of(Code.PAYMENT_DISAGREES, version=3))).outcome is Outcome.FLAGGED


@pytest.mark.parametrize("code", [Code.VIEW_BEHIND, Code.WORKFLOW_MISSING, Code.WORKFLOW_STOPPED, Code.CHARGED_TWICE])
async def test_what_cannot_be_put_right_now_is_reported(
    order_database: Database, reconciler: Reconciler, workflows: FakeWorkflows, clock: HeldClock, code: Code
) -> None:
    await an_open_order(order_database, clock, "order_01", PLACED)
    workflows.away = True
    handled = await reconciler.put_right(of(code))
    assert handled == Handled(of(code), Outcome.REPORTED, "not put right: unavailable")


async def test_one_that_breaks_down_does_not_keep_the_others_from_being_put_right(
    order_database: Database, reconciler: Reconciler, workflows: FakeWorkflows, clock: HeldClock
) -> None:
    await an_open_order(order_database, clock, "order_01", PLACED)
    workflows.broken = True
    handled = await reconciler.put_right(of(Code.CHARGED_TWICE))
    assert handled == Handled(of(Code.CHARGED_TWICE), Outcome.REPORTED, "not put right: ZeroDivisionError")


async def test_what_belongs_to_no_order_is_reported(reconciler: Reconciler, workflows: FakeWorkflows) -> None:
    for code in (Code.CHARGE_WITHOUT_ORDER, Code.WORKFLOW_WITHOUT_ORDER, Code.STOCK_NOT_THE_SUM):
        assert (await reconciler.put_right(of(code, "nobody's"))).outcome is Outcome.REPORTED
    assert (await reconciler.put_right(of(Code.CHARGED_TWICE, "nobody's"))).outcome is Outcome.REPORTED
    assert workflows.told == []


# How long reports are kept


async def test_reports_are_kept_for_their_time_and_then_go_with_all_that_they_hold(
    order_database: Database, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.order.housekeeping._BATCH", 2)
    monkeypatch.setattr("services.order.housekeeping._PAUSE_SECONDS", 0)
    reports = ReconciliationReports(order_database)
    made: list[str] = []
    for days in (91, 90.5, 89):
        at = clock() - timedelta(days=days)
        made.append(reconciliation_id(at, 1))
        await reports.begin(made[-1], at)
        await reports.note(
            [
                ReconciliationDifference(
                    reconciliation_id=made[-1], number=number, code="c", detail="", outcome="known", at=at
                )
                for number in range(1, 6)
            ]
        )
    keys = timedelta(hours=48)
    await Housekeeping(order_database, keep_keys=keys, keep_reports=timedelta(days=90), clock=clock).tidy()
    assert [run.reconciliation_id for run in await reports.list(limit=9)] == made[2:]
    assert [len(await reports.differences(run_id, limit=9)) for run_id in made] == [0, 0, 5]
