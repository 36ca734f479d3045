"""How rounds are timed, taken in turn, and held against each other."""

import asyncio
import math

import pytest

from tests.bench.rounds import Round, cpu_ms, percentile, ratios, run_round, side_by_side, spread, taking_turns


class Silence:
    """Tells nobody."""

    def doing(self, what: str) -> None: ...

    def done(self, what: str) -> None: ...


def a_round(count: int, seconds: float, **cpu: float) -> Round:
    return Round(count, seconds, cpu, [1.0] * count)


@pytest.mark.parametrize(("share", "took"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_what_that_share_took_at_most(share: float, took: float) -> None:
    assert percentile([*range(100, 0, -1)], share) == took


def test_a_percentile_of_few_is_one_of_them() -> None:
    assert percentile([2.0, 1.0, 4.0], 0.5) == 2.0
    assert percentile([2.0, 1.0, 4.0], 0.99) == 4.0


def test_a_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 0.5))


def test_a_ratio_is_that_of_rounds_that_were_made_one_after_the_other() -> None:
    of, to = [a_round(10, 1), a_round(10, 2)], [a_round(10, 2), a_round(10, 1)]
    assert ratios(of, to) == [2.0, 0.5]


def test_rounds_without_a_counterpart_are_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        ratios([a_round(1, 1)], [a_round(1, 1), a_round(1, 1)])


def test_a_spread_names_the_median_and_both_ends() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00 … 3.00)"
    assert spread([1.5]) == "1.50"


def test_cpu_is_told_of_each_and_idle_processes_are_left_out() -> None:
    assert cpu_ms([a_round(10, 1, api=0.1, idle=0.0), a_round(30, 1, api=0.1)]) == {"api": 5.0}


async def test_a_round_does_all_its_work_and_no_more_at_once_than_asked() -> None:
    now, most = 0, 0

    async def work() -> float:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return 7.0

    done = await run_round(lambda: {"api": 1.0}, [work] * 10, in_flight=3)
    assert (done.count, done.took, most) == (10, [7.0] * 10, 3)
    assert done.cpu == {"api": 0.0}


async def test_a_round_counts_the_cpu_that_was_used_meanwhile() -> None:
    used = {"api": 5.0}

    async def work() -> float:
        used["api"] += 2.0
        return 1.0

    assert (await run_round(lambda: dict(used), [work] * 2, in_flight=1)).cpu == {"api": 4.0}


async def test_everybody_comes_first_in_turn_and_the_round_that_warms_up_is_not_counted() -> None:
    calls: list[str] = []

    async def of(kind: str) -> Round:
        calls.append(kind)
        return a_round(len(calls), 1)

    kinds = {kind: (lambda kind=kind: of(kind)) for kind in ("shop", "bare")}
    measured = await taking_turns(Silence(), "a test", 2, kinds)
    assert calls == ["shop", "bare", "bare", "shop", "shop", "bare"]
    assert [one.count for one in measured["shop"]] == [4, 5]
    assert [one.count for one in measured["bare"]] == [3, 6]


def test_kinds_side_by_side_are_held_against_the_one_that_is_named() -> None:
    kinds = {"shop": [a_round(10, 2, api=1.0), a_round(10, 1)], "bare": [a_round(10, 1), a_round(10, 1)]}
    table, figures = side_by_side("a title", kinds, against="bare")
    assert figures["ratio: shop"] == [0.5, 1.0]
    assert figures["CPU ms: shop: api"] == [50.0]
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.columns == ["", "shop", "bare"]
    assert rows["… of bare"] == ["0.75 (0.50 … 1.00)", "1"]
    assert rows["CPU ms each: api"] == ["50.0", "0.00"]
