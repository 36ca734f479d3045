"""The saga and the teams fit together, and imports point one way."""

import ast
import inspect
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.contract import RecordStatus, StartDelivery, Undone
from activities.delivery import DeliveryActivities
from activities.marketing import MarketingActivities
from activities.order import OrderActivities
from activities.reconciliation import ReconciliationActivities
from services.shared.settings import TEAMS
from workflows.messages import PlaceOrder
from workflows.steps import COMPENSATION_ORDER, SAGA, Step

ROOT = Path(__file__).parents[2]
DEFINITION = "__temporal_activity_definition"
OF_TEAM = {"order": OrderActivities, "delivery": DeliveryActivities, "marketing": MarketingActivities}
ORDER = PlaceOrder(
    order_id="order_1",
    user_id="minji",
    product_id="tea",
    product_name="녹차",
    qty=2,
    amount=9000,
    currency="KRW",
    payment_method="pm_card_visa",
    deliver_within=timedelta(days=7),
)


SUMMARIES = ("summarise_coupons", "summarise_deliveries", "summarise_stock")


def activities_of(team: str) -> dict[str, Any]:
    """A team's activities by their names: the SDK's definitions."""
    return _activities(OF_TEAM[team])


def _activities(of: type) -> dict[str, Any]:
    methods = [method for _, method in inspect.getmembers(of, inspect.isfunction)]
    definitions = [getattr(method, DEFINITION) for method in methods if hasattr(method, DEFINITION)]
    return {definition.name: definition for definition in definitions}


@pytest.mark.parametrize("step", SAGA, ids=lambda step: step.do)
def test_a_step_and_its_undo_are_activities_of_the_team_of_its_queue(step: Step) -> None:
    known = activities_of(step.queue)
    command: object = step.command(ORDER)
    assert known[step.do].arg_types == [type(command)]
    assert known[step.do].ret_type == (step.result or type(None))
    assert known[step.undo].arg_types == [type(command)]
    assert known[step.undo].ret_type is Undone


def test_what_is_no_step_is_an_activity_too() -> None:
    record_status, take_turn, complete_delivery = (
        activities_of("order")["record_status"],
        activities_of("order")["take_turn"],
        activities_of("delivery")["complete_delivery"],
    )
    assert record_status.arg_types == [RecordStatus]
    assert take_turn.arg_types == []
    assert complete_delivery.arg_types == [StartDelivery]
    assert {record_status.ret_type, take_turn.ret_type, complete_delivery.ret_type} == {type(None)}


def test_no_activity_is_left_over_and_a_worker_serves_each() -> None:
    known = [name for team in TEAMS for name in activities_of(team)]
    asked = [name for step in SAGA for name in (step.do, step.undo)]
    assert sorted(known) == sorted([*asked, "record_status", "take_turn", "complete_delivery", *SUMMARIES])
    tree = ast.parse((ROOT / "worker.py").read_text())
    assert set(known) <= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_what_the_reconciliation_asks_for_is_served_and_nothing_else() -> None:
    own = _activities(ReconciliationActivities)
    tree = ast.parse((ROOT / "workflows" / "reconciliation.py").read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert {*own, *SUMMARIES} <= texts
    served = ReconciliationActivities.all.fget
    assert served is not None
    assert {*own} <= {*served.__code__.co_names}


def test_every_step_is_compensated_and_the_money_comes_last() -> None:
    assert sorted(step.do for step in COMPENSATION_ORDER) == sorted(step.do for step in SAGA)
    undos = [step.undo for step in COMPENSATION_ORDER]
    assert undos == ["revoke_coupon", "cancel_delivery", "restore_stock", "refund_payment"]


def imports_of(file: Path) -> set[str]:
    """The full names of what a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def modules_of(directory: str) -> Iterator[Path]:
    files = sorted((ROOT / directory).rglob("*.py"))
    assert files
    yield from files


@pytest.mark.parametrize("process", ["api.py", "worker.py"])
def test_a_process_reaches_no_teams_tables(process: str) -> None:
    for name in imports_of(ROOT / process):
        assert not any(within(name, f"services.{team}.{part}") for team in TEAMS for part in ("repository", "tables"))
        assert not within(name, "sqlalchemy")
        assert not within(name, "sqlmodel")


def test_the_activities_hold_no_sql() -> None:
    for file in modules_of("activities"):
        for name in imports_of(file):
            assert not any(within(name, package) for package in ("sqlalchemy", "sqlmodel")), file
            assert not name.endswith((".tables", ".repository")), file


@pytest.mark.parametrize("team", TEAMS)
def test_a_team_imports_nothing_of_another(team: str) -> None:
    others = [f"services.{other}" for other in (*TEAMS, "gateway") if other != team]
    for file in modules_of(f"services/{team}"):
        for name in imports_of(file):
            assert not any(within(name, other) for other in others), file


def test_the_shared_package_imports_no_team() -> None:
    for file in modules_of("services/shared"):
        for name in imports_of(file):
            assert not within(name, "services") or within(name, "services.shared"), file
