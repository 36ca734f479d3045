"""Every write has its effect once, wherever the wire breaks: before a statement, or before the reply to it.

Each scenario runs undisturbed first, which tells how many statements it sends, and what it answers and leaves; then
once for each of its statements and each fault, on a fresh state.
"""

import ast
import inspect
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import MetaData, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.exceptions import ApplicationError

from activities.contract import AdjustStock, IssueCoupon, PayOrder, RecordStatus, StartDelivery
from activities.delivery import DeliveryActivities
from activities.marketing import MarketingActivities
from activities.order import OrderActivities
from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.delivery.tables import DeliveryTable
from services.marketing.coupons import Coupons
from services.marketing.tables import MarketingTable
from services.order.acceptance import Acceptance, NewOrder
from services.order.book import OrderBook
from services.order.catalogue import Catalogue
from services.order.dispatch import Inbox
from services.order.payments import Payments
from services.order.provider import PaymentProvider, StripeProvider
from services.order.statuses import EventType, OrderState, OrderStatus, PayStatus, TimelineEntry
from services.order.tables import OrderTable
from services.shared.database import Database, Work
from services.shared.errors import ShopError
from services.shared.settings import PaymentSettings, PoolSettings, Team
from tests.database.proxy import Fault, Proxy, Statement, running_proxy
from tests.payments import ledger_of, running_simulator
from workflows.steps import SAGA

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
LEASE = timedelta(seconds=10)
TEA, CUP, AMOUNT = "tea", "cup", 3000
TABLES: dict[Team, MetaData] = {
    "order": OrderTable.metadata,
    "delivery": DeliveryTable.metadata,
    "marketing": MarketingTable.metadata,
}
UNTOLD = ("movement_id", "updated_at")
"""Columns that tell of attempts, not of effects."""
REPEAT, REFUSED = "to be repeated", "for good"
UNAVAILABLE = f"database-unavailable, {REPEAT}"

_number = count(1)


class Shop:
    """All that writes to a team's database, for one order, at noon or somewhat `later`."""

    def __init__(self, database: Database, provider: PaymentProvider, order_id: str, new_id: Callable[[], str]) -> None:
        self.order_id = order_id
        self.later = timedelta()
        self.acceptance = Acceptance(database, lease=LEASE, clock=self.now, new_id=new_id)
        self.inbox = Inbox(database, lease=LEASE, clock=lambda: self.now() + LEASE)
        self.catalogue = Catalogue(database, clock=self.now)
        self.warehouse = Warehouse(database, clock=self.now)
        self.order = OrderActivities(Payments(database, provider, clock=self.now), OrderBook(database))
        self.delivery = DeliveryActivities(Deliveries(database, clock=self.now), self.warehouse)
        self.marketing = MarketingActivities(Coupons(database, clock=self.now, new_id=new_id))

    def now(self) -> datetime:
        return NOON + self.later


Act = Callable[[Shop], Awaitable[object]]


def payment(shop: Shop, payment_method: str = "pm_card_visa") -> PayOrder:
    return PayOrder(order_id=shop.order_id, amount=AMOUNT, currency="KRW", payment_method=payment_method)


def coupon(shop: Shop) -> IssueCoupon:
    return IssueCoupon(order_id=shop.order_id, user_id="minji", amount=AMOUNT, currency="KRW")


def parcel(shop: Shop, qty: int = 3, product_id: str = TEA) -> StartDelivery:
    return StartDelivery(order_id=shop.order_id, product_id=product_id, qty=qty)


def pieces(shop: Shop, qty: int = 3, product_id: str = TEA) -> AdjustStock:
    return AdjustStock(order_id=shop.order_id, product_id=product_id, qty=qty)


async def stock_tea(shop: Shop) -> None:
    await shop.warehouse.open_if_new(TEA, 10)


async def sell_tea(shop: Shop) -> None:
    await shop.catalogue.put_if_new(product_id=TEA, product_name="녹차", product_price=1000)


async def accept(shop: Shop) -> object:
    request = NewOrder(
        product_id=TEA,
        qty=3,
        username="김하늘",
        address="서울",
        phone_no="010-0000-0000",
        payment_method="pm_card_visa",
    )
    accepted = await shop.acceptance.accept(user_id="minji", idempotency_key="k1", request=request)
    return sorted(accepted.order.model_dump().items()), accepted.replayed


def recorded(*versions: int) -> Act:
    """The order's status after what happened at these versions."""

    async def record(shop: Shop) -> None:
        state = OrderState(order_status=OrderStatus.ORDER_PLACED, pay_status=PayStatus.PAID)
        timeline = [TimelineEntry(version=version, type=EventType.ORDER_PLACED, at=NOON) for version in versions]
        await shop.order.record_status(RecordStatus(order_id=shop.order_id, state=state, timeline=timeline))

    return record


def put(name: str, price: int) -> Act:
    async def put(shop: Shop) -> object:
        product = await shop.catalogue.put(product_id=TEA, product_name=name, product_price=price)
        return sorted(product.model_dump(exclude={"updated_at"}).items())

    return put


def moved(qty: int, product_id: str = TEA) -> Act:
    return lambda shop: shop.warehouse.move(product_id=product_id, qty=qty, reason="recount", reference="m1")


async def claimed(shop: Shop) -> object:
    return [order.order_id for order in await shop.inbox.claim(5)]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A write, and what was done before it."""

    name: str
    """Begins with the activity's name, if it is one's."""
    team: Team
    writes: set[str]
    """The methods that hand over the transactions."""
    write: Act
    before: Sequence[Act] = ()
    charged: int = 0
    refunded: int = 0
    same_again: bool = True
    """Whether a second call gives the same answer. One that claims, or that tells a replay, does not."""
    answer_lost: str = ""
    """What is answered when the reply to the last commit is lost, where that is not the same."""


PAYING = {"Payments._begin", "Payments._with_intent", "Payments._move"}
SCENARIOS = (
    Scenario(
        name="pay_order",
        team="order",
        writes=PAYING,
        write=lambda shop: shop.order.pay_order(payment(shop)),
        charged=AMOUNT,
    ),
    Scenario(
        name="pay_order declined",
        team="order",
        writes=PAYING,
        write=lambda shop: shop.order.pay_order(payment(shop, "pm_card_chargeDeclined")),
    ),
    Scenario(
        name="refund_payment after pay_order",
        team="order",
        before=[lambda shop: shop.order.pay_order(payment(shop))],
        writes={"Payments._call_off", "Payments._move"},
        write=lambda shop: shop.order.refund_payment(payment(shop)),
        charged=AMOUNT,
        refunded=AMOUNT,
    ),
    Scenario(
        name="refund_payment before pay_order",
        team="order",
        writes={"Payments._call_off"},
        write=lambda shop: shop.order.refund_payment(payment(shop)),
    ),
    Scenario(
        name="record_status",
        team="order",
        before=[sell_tea, accept],
        writes={"OrderBook.record"},
        write=recorded(2, 3),
    ),
    Scenario(
        name="record_status of what is partly there",
        team="order",
        before=[sell_tea, accept, recorded(2)],
        writes={"OrderBook.record"},
        write=recorded(2, 3),
    ),
    Scenario(
        name="issue_coupon",
        team="marketing",
        writes={"Coupons.issue"},
        write=lambda shop: shop.marketing.issue_coupon(coupon(shop)),
    ),
    Scenario(
        name="revoke_coupon after issue_coupon",
        team="marketing",
        before=[lambda shop: shop.marketing.issue_coupon(coupon(shop))],
        writes={"Coupons.revoke"},
        write=lambda shop: shop.marketing.revoke_coupon(coupon(shop)),
    ),
    Scenario(
        name="revoke_coupon before issue_coupon",
        team="marketing",
        writes={"Coupons.revoke"},
        write=lambda shop: shop.marketing.revoke_coupon(coupon(shop)),
    ),
    Scenario(
        name="start_delivery",
        team="delivery",
        before=[stock_tea],
        writes={"Deliveries.start"},
        write=lambda shop: shop.delivery.start_delivery(parcel(shop)),
    ),
    Scenario(
        name="start_delivery of more than there is",
        team="delivery",
        before=[stock_tea],
        writes={"Deliveries.start"},
        write=lambda shop: shop.delivery.start_delivery(parcel(shop, 11)),
    ),
    Scenario(
        name="cancel_delivery after start_delivery",
        team="delivery",
        before=[stock_tea, lambda shop: shop.delivery.start_delivery(parcel(shop))],
        writes={"Deliveries.cancel"},
        write=lambda shop: shop.delivery.cancel_delivery(parcel(shop)),
    ),
    Scenario(
        name="cancel_delivery before start_delivery",
        team="delivery",
        writes={"Deliveries.cancel"},
        write=lambda shop: shop.delivery.cancel_delivery(parcel(shop)),
    ),
    Scenario(
        name="complete_delivery",
        team="delivery",
        before=[stock_tea, lambda shop: shop.delivery.start_delivery(parcel(shop))],
        writes={"Deliveries.complete"},
        write=lambda shop: shop.delivery.complete_delivery(parcel(shop)),
    ),
    Scenario(
        name="adjust_stock",
        team="delivery",
        before=[stock_tea],
        writes={"Warehouse.sell"},
        write=lambda shop: shop.delivery.adjust_stock(pieces(shop)),
    ),
    Scenario(
        name="adjust_stock by more than there is",
        team="delivery",
        before=[stock_tea],
        writes={"Warehouse.sell"},
        write=lambda shop: shop.delivery.adjust_stock(pieces(shop, 11)),
    ),
    Scenario(
        name="adjust_stock of an unknown product",
        team="delivery",
        writes={"Warehouse.sell"},
        write=lambda shop: shop.delivery.adjust_stock(pieces(shop, 1, CUP)),
    ),
    Scenario(
        name="restore_stock after adjust_stock",
        team="delivery",
        before=[stock_tea, lambda shop: shop.delivery.adjust_stock(pieces(shop))],
        writes={"Warehouse.restore"},
        write=lambda shop: shop.delivery.restore_stock(pieces(shop)),
    ),
    Scenario(
        name="restore_stock before adjust_stock",
        team="delivery",
        before=[stock_tea],
        writes={"Warehouse.restore"},
        write=lambda shop: shop.delivery.restore_stock(pieces(shop)),
    ),
    Scenario(
        name="Acceptance.accept",
        team="order",
        before=[sell_tea],
        writes={"Acceptance.accept"},
        write=accept,
        same_again=False,
    ),
    Scenario(
        name="Acceptance.accept of a repeated request",
        team="order",
        before=[sell_tea, accept],
        writes={"Acceptance.accept"},
        write=accept,
    ),
    Scenario(
        name="Inbox.claim",
        team="order",
        before=[sell_tea, accept],
        writes={"Inbox.claim"},
        write=claimed,
        same_again=False,
        answer_lost="[]",  # they are claimed again when their lease has run out
    ),
    Scenario(
        name="Inbox.mark_started",
        team="order",
        before=[sell_tea, accept, claimed],
        writes={"Inbox.mark_started"},
        write=lambda shop: shop.inbox.mark_started(shop.order_id),
    ),
    Scenario(name="Catalogue.put of a new product", team="order", writes={"Catalogue.put"}, write=put("홍차", 1200)),
    Scenario(
        name="Catalogue.put of a known product",
        team="order",
        before=[sell_tea],
        writes={"Catalogue.put"},
        write=put("홍차", 1200),
    ),
    Scenario(name="Catalogue.put_if_new", team="order", writes={"Catalogue.put_if_new"}, write=sell_tea),
    Scenario(name="Warehouse.move in", team="delivery", before=[stock_tea], writes={"Warehouse.move"}, write=moved(5)),
    Scenario(
        name="Warehouse.move out", team="delivery", before=[stock_tea], writes={"Warehouse.move"}, write=moved(-4)
    ),
    Scenario(
        name="Warehouse.move out more than there is",
        team="delivery",
        before=[stock_tea],
        writes={"Warehouse.move"},
        write=moved(-11),
    ),
    Scenario(name="Warehouse.move in a new product", team="delivery", writes={"Warehouse.move"}, write=moved(5, CUP)),
    Scenario(name="Warehouse.open_if_new", team="delivery", writes={"Warehouse.open_if_new"}, write=stock_tea),
)


def test_every_activity_has_a_scenario_and_every_undo_both() -> None:
    defined = [
        definition.name
        for activities in (OrderActivities, DeliveryActivities, MarketingActivities)
        for _, method in inspect.getmembers(activities, inspect.isfunction)
        if (definition := getattr(method, "__temporal_activity_definition", None))
    ]
    names = {scenario.name for scenario in SCENARIOS}
    assert len(names) == len(SCENARIOS)
    assert set(defined) <= {name.split()[0] for name in names}
    assert {f"{step.undo} {when} {step.do}" for step in SAGA for when in ("after", "before")} <= names


def test_every_transaction_that_writes_has_a_scenario() -> None:
    found: set[str] = set()
    for file in (ROOT / "services").rglob("*.py"):
        for kind in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)):
            for method in (node for node in kind.body if isinstance(node, ast.AsyncFunctionDef)):
                if "self._database.write(" in ast.unparse(method):
                    found.add(f"{kind.name}.{method.name}")
    assert found == {method for scenario in SCENARIOS for method in scenario.writes}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run answered and left, the order called by no name and intents not either."""

    answers: list[str]
    rows: list[str]
    ledger: list[tuple[int, int]]
    """Charged and given back."""


class Stage:
    """Runs a scenario through a proxy, each time on a fresh state."""

    def __init__(
        self, scenario: Scenario, direct: Database, proxy: Proxy, provider: PaymentProvider, simulator: str
    ) -> None:
        self.proxy = proxy
        self.database = through(proxy, direct)
        self._scenario = scenario
        self._direct = direct
        self._provider = provider
        self._simulator = simulator

    async def run(
        self,
        fault: Fault | None = None,
        strikes: Callable[[Statement], bool] = lambda _: False,
        *,
        again: timedelta | None = None,
        fresh: bool = False,
    ) -> Outcome:
        """Run it, and so much later `again` when nothing is disturbed; on the one connection, or on a `fresh` one."""
        order_id = f"order-{next(_number)}"
        new_id = chain((order_id,), (f"{order_id}-{number}" for number in count(2))).__next__
        await self._forget()
        before = Shop(self._direct, self._provider, order_id, new_id)
        for act in self._scenario.before:
            await act(before)
        if fresh:
            await self.database.close()
            self.database = through(self.proxy, self._direct)
        else:
            await self.database.ping()  # the connection is there: what is counted is the write alone
        shop = Shop(self.database, self._provider, order_id, new_id)
        self.proxy.count()
        if fault is not None:
            self.proxy.disturb(fault, strikes)
        try:
            answers = [await answered(self._scenario.write(shop))]
        finally:
            self.proxy.heal()
        if again is not None:
            shop.later = again
            answers.append(await answered(self._scenario.write(shop)))
        return Outcome(
            answers=[_unnamed(answer, order_id) for answer in answers],
            rows=sorted(_unnamed(row, order_id) for row in await self._rows()),
            ledger=[
                (entry["charged"], entry["refunded"])
                for entry in await ledger_of(self._simulator)
                if entry["orderId"] == order_id
            ],
        )

    async def _forget(self) -> None:
        async def work(session: AsyncSession) -> None:
            for table in TABLES[self._scenario.team].sorted_tables:
                await (await session.connection()).execute(delete(table))

        await self._direct.write(work)

    async def _rows(self) -> list[str]:
        async def work(session: AsyncSession) -> list[str]:
            found: list[str] = []
            for table in TABLES[self._scenario.team].sorted_tables:
                columns = [column for column in table.columns if column.name not in UNTOLD]
                rows = await (await session.connection()).execute(select(*columns))
                found.extend(f"{table.name} {dict(row)}" for row in rows.mappings())
            return found

        return await self._direct.read(work)


def through(proxy: Proxy, database: Database) -> Database:
    """The same database, on one connection through the proxy."""
    url = database.engine.url.set(host=proxy.host, port=proxy.port).render_as_string(hide_password=False)
    return Database(url, PoolSettings(size=1, overflow=0, attempts=2, transaction_seconds=20))


async def answered(call: Awaitable[object]) -> str:
    """What a call answers, be it an error that the shop has a name for."""
    try:
        return repr(await call)
    except ApplicationError as error:
        return f"{error.type}, {REFUSED if error.non_retryable else REPEAT}"
    except ShopError as error:
        return f"{error.code}, {REPEAT if error.retryable else REFUSED}"


def _unnamed(text: str, order_id: str) -> str:
    return re.sub(r"\bpi_\w+", "an intent", text.replace(order_id, "the order"))


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[tuple[PaymentProvider, str]]:
    """The payment provider, and where its books can be read."""
    async with running_simulator(tmp_path / "ledger.db") as url:
        provider = StripeProvider(PaymentSettings(url=url, key=SecretStr("sk_test_street12")))
        yield provider, url
        await provider.close()


@pytest.fixture
def direct(scenario: Scenario, request: pytest.FixtureRequest, new_database: object) -> Database:
    """The team's database, with nothing in between."""
    del new_database  # named so that its parameter can be given
    return request.getfixturevalue(f"{scenario.team}_database")


@pytest.fixture
async def stage(scenario: Scenario, direct: Database, provider: tuple[PaymentProvider, str]) -> AsyncIterator[Stage]:
    server = direct.engine.url
    assert server.host is not None
    assert server.port is not None
    async with running_proxy(server.host, server.port) as proxy:
        stage = Stage(scenario, direct, proxy, *provider)
        yield stage
        await stage.database.close()


on_mysql = pytest.mark.parametrize("new_database", ["mysql"], indirect=True)
every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@on_mysql
@every_scenario
async def test_a_broken_connection_changes_nothing_about_the_effect(
    scenario: Scenario, stage: Stage, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers: set[str] = set()
    write = Database.write

    def noted(self: Database, work: Work[Any]) -> Awaitable[Any]:
        if self is stage.database:
            writers.add(sys._getframe(1).f_code.co_qualname)  # pyright: ignore[reportPrivateUsage]
        return write(self, work)

    monkeypatch.setattr(Database, "write", noted)
    undisturbed = await stage.run()
    statements = list(stage.proxy.statements)
    assert writers == scenario.writes
    assert "COMMIT" in statements or "ROLLBACK" in statements
    assert undisturbed.ledger == ([(scenario.charged, scenario.refunded)] if scenario.charged else [])
    for number, text in enumerate(statements, start=1):
        for fault in (Fault.RESET_BEFORE, Fault.REPLY_LOST):
            with subtests.test(fault=fault.name, number=number, statement=text[:60]):
                outcome = await stage.run(fault, lambda statement, number=number: statement.number == number)
                assert stage.proxy.struck == 1
                lost = scenario.answer_lost if fault is Fault.REPLY_LOST and number == len(statements) else ""
                assert outcome == (replace(undisturbed, answers=[lost]) if lost else undisturbed)


@on_mysql
@every_scenario
async def test_a_commit_whose_reply_never_comes_is_found_when_the_call_is_repeated(
    scenario: Scenario, stage: Stage, subtests: pytest.Subtests
) -> None:
    undisturbed, commits = await commits_of(stage)
    assert commits or undisturbed.answers[0].endswith(REFUSED)  # a refusal commits nothing
    for number in commits:
        with subtests.test(commit=number):
            outcome = await stage.run(Fault.REPLY_LOST, commits_from(number), again=LEASE / 10)
            assert stage.proxy.struck == 2  # once for each attempt at the transaction
            assert outcome.answers[0] == UNAVAILABLE
            assert (outcome.rows, outcome.ledger) == (undisturbed.rows, undisturbed.ledger)
            if scenario.same_again:
                assert outcome.answers[1:] == undisturbed.answers


@on_mysql
@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in SCENARIOS if any(method.startswith("Payments.") for method in scenario.writes)],
    ids=lambda scenario: scenario.name,
)
async def test_a_charge_or_a_refund_that_could_not_be_noted_is_known_when_the_call_is_repeated(
    stage: Stage, subtests: pytest.Subtests
) -> None:
    undisturbed, commits = await commits_of(stage)
    assert commits
    for number in commits:
        with subtests.test(commit=number):
            outcome = await stage.run(Fault.RESET_BEFORE, commits_from(number), again=timedelta())
            assert stage.proxy.struck == 2
            assert outcome.answers == [UNAVAILABLE, *undisturbed.answers]
            assert (outcome.rows, outcome.ledger) == (undisturbed.rows, undisturbed.ledger)


async def commits_of(stage: Stage) -> tuple[Outcome, list[int]]:
    """What comes of it undisturbed, and which of its statements commit something."""
    numbers: list[int] = []

    def note(statement: Statement) -> bool:
        if statement.commits:
            numbers.append(statement.number)
        return False

    return await stage.run(Fault.REPLY_LOST, note), numbers


def commits_from(number: int) -> Callable[[Statement], bool]:
    """This commit, and all that follow."""
    return lambda statement: statement.commits and statement.number >= number


@on_mysql
@pytest.mark.parametrize("scenario", [scenario for scenario in SCENARIOS if scenario.name == "adjust_stock"])
@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.REPLY_LOST], ids=lambda fault: fault.name)
async def test_a_connection_that_breaks_while_it_is_made_changes_nothing_about_the_effect(
    fault: Fault, stage: Stage, subtests: pytest.Subtests
) -> None:
    undisturbed = await stage.run(fresh=True)
    statements = list(stage.proxy.statements)
    for number in range(1, 1 + next(n for n, text in enumerate(statements) if text.startswith("INSERT"))):
        with subtests.test(number=number, statement=statements[number - 1][:60]):
            outcome = await stage.run(fault, lambda statement, number=number: statement.number == number, fresh=True)
            assert stage.proxy.struck == 1
            assert outcome == undisturbed
