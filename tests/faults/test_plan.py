"""The plan of a run is a function of its seed, and leaves nothing out."""

import subprocess
import sys
from collections import Counter
from itertools import combinations

import pytest

from deploy.local import ROOT
from tests.faults.mix import PAYMENTS
from tests.faults.plan import TIERS, Plan, Tier
from tests.faults.schedule import DISK, TARGETS, Kind

SEEDS = range(300)
PAIRS = {(kind, target) for kind in Kind for target in TARGETS[kind]}
_SAME = "from tests.faults.plan import Plan; plan = Plan.of(7, 'long'); print(plan.schedule, plan.errands, plan.strict)"


def plans(tier: Tier) -> list[Plan]:
    return [Plan.of(seed, tier) for seed in SEEDS]


def test_the_same_seed_gives_the_same_plan_in_any_process() -> None:
    another = subprocess.run(
        [sys.executable, "-c", _SAME],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "12"},
        capture_output=True,
        text=True,
        check=True,
    )
    plan = Plan.of(7, "long")
    assert another.stdout == f"{plan.schedule} {plan.errands} {plan.strict}\n"


@pytest.mark.parametrize("tier", TIERS)
def test_another_seed_gives_another_plan(tier: Tier) -> None:
    one, other = Plan.of(1, tier), Plan.of(2, tier)
    assert one.schedule != other.schedule
    assert one.errands != other.errands


@pytest.mark.parametrize("tier", TIERS)
def test_a_plan_is_as_large_as_its_tier_promises(tier: Tier) -> None:
    least = {"smoke": (30, 6), "long": (300, 30), "soak": (2000, 100)}[tier]
    for plan in plans(tier)[:5]:
        assert len(plan.errands) == plan.orders >= least[0]
        assert len(plan.schedule) == plan.faults >= least[1]


def test_a_plan_can_be_made_larger_and_smaller_without_another_seed() -> None:
    plan = Plan.of(1, "smoke", orders=5, faults=2)
    assert (len(plan.errands), len(plan.schedule)) == (5, 2)
    assert Plan.of(1, "smoke", orders=5, faults=0).schedule == ()


def test_every_kind_of_fault_can_hit_every_target_even_in_a_short_run() -> None:
    assert {(fault.kind, fault.target) for plan in plans("smoke") for fault in plan.schedule} == PAIRS


@pytest.mark.parametrize("tier", TIERS)
def test_every_run_sees_every_kind_of_fault(tier: Tier) -> None:
    for plan in plans(tier)[:100]:
        assert {fault.kind for fault in plan.schedule} == set(Kind), plan.seed


def test_faults_overlap_but_never_on_one_target() -> None:
    overlaps = 0
    for plan in plans("long")[:100]:
        for one, other in combinations(plan.schedule, 2):
            assert one.at <= other.at
            if other.at < one.until:
                assert one.target != other.target, (plan.seed, one, other)
                assert {one.target, other.target} != {DISK, "mariadb"}, (plan.seed, one, other)
                overlaps += 1
    assert overlaps > 100


def test_a_fault_is_short_and_falls_into_the_time_when_orders_come() -> None:
    for plan in plans("long")[:100]:
        for fault in plan.schedule:
            assert 0 <= fault.at <= plan.span
            at_once = fault.kind in (Kind.KILLED, Kind.RESET)
            assert fault.seconds == 0 if at_once else 0.5 <= fault.seconds <= 8


def test_the_mix_has_everything_that_can_become_of_an_order() -> None:
    plan = Plan.of(1, "long")
    errands, on_hand = plan.errands, {one.product_id: one.on_hand for one in plan.goods}
    wanted = Counter[str]()
    for errand in errands:
        wanted[errand.wish.product_id] += errand.wish.qty
    assert {errand.wish.pay for errand in errands} == set(PAYMENTS)
    assert len({errand.wish.user for errand in errands}) > 5
    assert len({errand.wish.key for errand in errands}) == len(errands)
    assert {errand.canceler for errand in errands if errand.cancel_after is not None} == {"customer", "operator"}
    assert any(errand.wish.qty > on_hand[errand.wish.product_id] for errand in errands)
    assert {product_id for product_id in wanted if wanted[product_id] > on_hand[product_id]} == {"vase", "clock"}
    happens = {
        "asked for several times at once": sum(errand.copies > 1 for errand in errands),
        "asked for again": sum(errand.again_after is not None for errand in errands),
        "waited for": sum(errand.wait > 0 for errand in errands),
        "delivered or cancelled": sum(errand.delivers and errand.cancel_after is not None for errand in errands),
        "delivered": sum(errand.delivers and errand.cancel_after is None for errand in errands),
        "looked at several times": sum(len(errand.looks) > 1 for errand in errands),
    }
    assert not [what for what, times in happens.items() if not 5 < times < len(errands) - 5], happens


def test_some_shops_have_limits_and_most_have_none() -> None:
    assert 0.1 < sum(plan.strict for plan in plans("smoke")) / len(SEEDS) < 0.4
