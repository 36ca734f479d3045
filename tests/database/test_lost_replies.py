"""Every write has its effect once, wherever the wire breaks: before a statement, or before the reply to it.

Each scenario runs undisturbed first, which tells how many statements it sends, and what it answers and leaves; then
once for each of its statements and each fault, on a fresh state.
"""

import ast
import inspect
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain, count
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import MetaData, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession
from temporalio.exceptions import ApplicationError

from activities.delivery import DeliveryActivities
from activities.marketing import MarketingActivities
from activities.order import OrderActivities
from services.delivery.tables import DeliveryTable
from services.marketing.tables import MarketingTable
from services.order.provider import PaymentProvider, StripeProvider
from services.order.tables import OrderTable
from services.shared.database import Database, Work
from services.shared.errors import ShopError
from services.shared.settings import PaymentSettings, PoolSettings, Team
from tests.database.orders import LEASE
from tests.database.proxy import Fault, Proxy, Statement, running_proxy
from tests.database.servers import on_mysql, reopened
from tests.database.writes import SCENARIOS, Scenario, Shop
from tests.payments import ledger_of, running_simulator
from workflows.steps import SAGA

ROOT = Path(__file__).parents[2]
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


def test_every_activity_has_a_scenario_and_every_undo_both() -> None:
    defined = [
        definition.name
        for activities in (OrderActivities, DeliveryActivities, MarketingActivities)
        for _, method in inspect.getmembers(activities, inspect.isfunction)
        if (definition := getattr(method, "__temporal_activity_definition", None))
    ]
    names = {scenario.name for scenario in SCENARIOS}
    assert len(names) == len(SCENARIOS)
    writing = {name for name in defined if name != "take_turn" and not name.startswith("summarise_")}
    assert writing <= {name.split()[0] for name in names}
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
    one = PoolSettings(size=1, overflow=0, attempts=2, transaction_seconds=20)
    return reopened(database, one, host=proxy.host, port=proxy.port)


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
    async with running_proxy(direct) as proxy:
        stage = Stage(scenario, direct, proxy, *provider)
        yield stage
        await stage.database.close()


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
    assert commits or not scenario.writes or undisturbed.answers[0].endswith(REFUSED)  # a refusal commits nothing
    for number in commits:
        with subtests.test(commit=number):
            outcome = await stage.run(Fault.REPLY_LOST, commits_from(number), again=LEASE / 10)
            if stage.proxy.struck == 1:  # the second attempt at the transaction found nothing left to commit
                assert outcome.answers[0] == (scenario.answer_lost or undisturbed.answers[0])
            else:
                assert (stage.proxy.struck, outcome.answers[0]) == (2, UNAVAILABLE)
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
