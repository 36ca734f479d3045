"""What a run must show: each broken promise is told, and a run that kills must show that something breaks."""

from dataclasses import replace
from typing import Any

import pytest

from services.order.statuses import OrderStatus
from tests.audit.confirm import Verdict
from tests.audit.findings import Breach, Finding
from tests.audit.invariants import INVARIANTS
from tests.faults.window import Standing
from tests.rollout.balancer import configuration
from tests.rollout.customers import Request
from tests.rollout.deployment import Replaced
from tests.rollout.histories import Told
from tests.rollout.run import Outcome, Plan, broken_promises, unseen

STANDING = Standing(order_id="order_1", pay="pm_card_visa", status=OrderStatus.DELIVERY_STARTED, needs_attention=False)
REQUEST = Request(at=1.0, seconds=0.1, failure="", waits=False)
REPLACED = Replaced(name="api", began=1.0, ended=2.0, took=0.5, status=0)
BREACH = Finding(
    invariant=INVARIANTS[0], looked_at=1, breaches=[Breach(subject="order_1", wrong="was charged twice")], excused=[]
)
WELL = Outcome(
    plan=Plan(),
    kind="sqlite",
    requests=[REQUEST],
    orders=1,
    unanswered=[],
    standings=[STANDING],
    replaced=[REPLACED],
    wall=0.0,
    settled_within=1.0,
    told=Told(orders=1),
    verdict=Verdict(findings=[], moving=[]),
)
LOST_OR_TWICE: list[dict[str, Any]] = [
    {"unanswered": ["rollout-7"]},
    {"orders": 2},
    {"standings": []},
    {"standings": [replace(STANDING, status=OrderStatus.ORDER_RECEIVED)]},
    {"standings": [replace(STANDING, needs_attention=True)]},
    {"told": Told(orders=2)},
    {"verdict": Verdict(findings=[BREACH], moving=[])},
]
CUT_OFF: list[dict[str, Any]] = [
    {"requests": [replace(REQUEST, failure="503")]},
    {"told": Told(orders=1, redone=["order_1: pay_order, attempt 2"])},
    {"told": Told(orders=1, failed=["order_1: event 4"])},
    {"replaced": [replace(REPLACED, status=1)]},
]


def test_a_run_that_went_well_broke_nothing() -> None:
    assert broken_promises(WELL) == []


@pytest.mark.parametrize("wrong", [*LOST_OR_TWICE, *CUT_OFF])
def test_each_promise_that_was_not_kept_is_told(wrong: dict[str, Any]) -> None:
    assert len(broken_promises(replace(WELL, **wrong))) == 1


@pytest.mark.parametrize("wrong", LOST_OR_TWICE)
def test_no_order_may_be_lost_or_done_twice_when_processes_are_killed(wrong: dict[str, Any]) -> None:
    assert len(broken_promises(replace(WELL, plan=Plan(kill=True), **wrong))) == 1


@pytest.mark.parametrize("cut_off", CUT_OFF)
def test_what_is_cut_off_is_expected_when_processes_are_killed(cut_off: dict[str, Any]) -> None:
    assert broken_promises(replace(WELL, plan=Plan(kill=True), **cut_off)) == []


def test_a_run_that_kills_must_show_both() -> None:
    assert unseen(WELL) == ["no request failed", "no activity was redone"]
    assert unseen(replace(WELL, **CUT_OFF[0])) == ["no activity was redone"]
    assert unseen(replace(WELL, **CUT_OFF[1])) == ["no request failed"]


def test_the_balancer_sends_no_request_a_second_time_and_ends_none_that_is_under_way() -> None:
    lines = {line.strip() for line in configuration(1, [2, 3]).splitlines()}
    assert {"retries 0", "option httpchk GET /readyz", "default-server check inter 200ms fall 1 rise 1"} <= lines
    assert {"server api-0 127.0.0.1:2", "server api-1 127.0.0.1:3"} <= lines
    assert not [line for line in lines if line.startswith(("option redispatch", "retry-on", "on-marked-down"))]
