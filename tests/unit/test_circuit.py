"""The circuit breaker's rules: when it opens, who may try, when it closes, and what the refused are told."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.order.circuit import MEASURED, AdmissionRules, Circuit, Intake, Pending, Standing

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RULES = AdmissionRules(max_pending=3, slow=timedelta(milliseconds=610), cooldown=timedelta(seconds=5))
LIMIT = RULES.slow
SLOWER = RULES.slow + timedelta(milliseconds=1)


def after(circuit: Circuit, *took: timedelta, order_id: str = "o", at: datetime = NOON) -> Circuit:
    for one in took:
        circuit = circuit.settled(RULES, order_id, took=one, at=at)
    return circuit


def standing(circuit: Circuit, pending: int = 0, *, at: datetime = NOON, waited: float | None = None) -> Standing:
    oldest = None if waited is None else Pending(order_id="stuck", since=at - timedelta(seconds=waited))
    return Standing(rules=RULES, circuit=circuit, pending=pending, at=at, oldest=oldest)


OPEN = after(Circuit(), *[SLOWER] * MEASURED)
COOL = NOON + RULES.cooldown
TRIED = OPEN.tried_by("trial")


@pytest.mark.parametrize(("pending", "room"), [(0, 3), (2, 1), (3, 0), (7, 0)])
def test_so_many_payments_may_be_in_flight(pending: int, room: int) -> None:
    now = standing(Circuit(), pending)
    assert now.room == room
    assert now.intake == (Intake.OPEN if room else Intake.PAYMENTS_PENDING)


def test_the_circuit_opens_when_the_median_of_ten_payments_is_over_the_limit() -> None:
    assert after(Circuit(), *[SLOWER] * (MEASURED - 1)).open_since is None
    assert OPEN.open_since == NOON
    assert after(Circuit(), *[LIMIT] * MEASURED).open_since is None
    half = after(Circuit(), *[timedelta()] * 5, *[SLOWER] * 5)
    assert half.open_since is None
    assert after(half, SLOWER).open_since == NOON  # six of the last ten


def test_only_the_last_ten_count() -> None:
    recovered = after(Circuit(), *[SLOWER] * 4, *[timedelta()] * MEASURED)
    assert recovered.median == timedelta()
    assert len(recovered.recent) == MEASURED


def test_an_open_circuit_takes_nobody_until_it_has_cooled_down() -> None:
    almost = standing(OPEN, at=COOL - timedelta(microseconds=1))
    assert (almost.room, almost.intake) == (0, Intake.PAYMENTS_SLOW)
    assert standing(OPEN, at=COOL).room == 1


def test_a_cooldown_by_a_clock_that_is_ahead_is_not_waited_for() -> None:
    assert standing(OPEN, at=NOON - timedelta(microseconds=1)).room == 1
    assert standing(OPEN, at=NOON).room == 0


def test_one_trial_goes_through_and_none_beside_it() -> None:
    assert standing(TRIED, 1, at=COOL + timedelta(days=1)).room == 0
    assert standing(OPEN, 2, at=COOL).room == 1
    assert standing(OPEN, 3, at=COOL).room == 0  # never more in flight, not even for a trial


def test_a_fast_trial_closes_the_circuit_and_forgets_the_past() -> None:
    assert after(TRIED, LIMIT, order_id="trial") == Circuit()


def test_a_slow_trial_opens_it_for_another_cooldown_and_since_when_stays() -> None:
    later = NOON + timedelta(minutes=1)
    again = after(TRIED, SLOWER, order_id="trial", at=later)
    assert again.open_since == NOON
    assert again.trial_at == later + RULES.cooldown
    assert again.trial_order_id is None


def test_other_payments_neither_close_an_open_circuit_nor_prolong_it() -> None:
    for circuit in (OPEN, TRIED):
        assert replace(after(circuit, timedelta(), SLOWER, order_id="other"), recent=circuit.recent) == circuit


def test_a_trial_without_an_outcome_makes_room_for_another() -> None:
    assert standing(TRIED.tried_by(None), at=COOL).room == 1


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (standing(Circuit(), 3), 1),  # nothing is known
        (standing(after(Circuit(), timedelta(seconds=0.3)), 3, waited=0.1), 1),
        (standing(after(Circuit(), timedelta(seconds=30)), 3, waited=1), 10),  # every 10 s one of three finishes
        (standing(after(Circuit(), timedelta(seconds=0.3)), 3, waited=17.2), 18),  # stuck: as long again
        (standing(after(Circuit(), timedelta(seconds=0.3)), 3, waited=4000), 60),
        (standing(OPEN, at=NOON + timedelta(seconds=1)), 4),  # what is left of the cooldown
        (standing(TRIED, 1, at=COOL + timedelta(seconds=9), waited=9), 9),  # the trial is under way
    ],
)
def test_the_refused_are_told_when_to_come_back(now: Standing, seconds: int) -> None:
    assert now.retry_after_seconds == seconds
