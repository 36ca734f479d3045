"""How a crowd's answers are put together."""

import math

import pytest

from tests.bench.load import merged, percentile


@pytest.mark.parametrize(("share", "took"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_what_that_share_took_at_most(share: float, took: float) -> None:
    assert percentile([*range(100, 0, -1)], share) == took


def test_a_percentile_of_few_is_one_of_them() -> None:
    assert percentile([2.0, 1.0, 4.0], 0.5) == 2.0
    assert percentile([2.0, 1.0, 4.0], 0.99) == 4.0


def test_a_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 0.5))


def test_answers_are_put_together_by_their_status() -> None:
    assert merged([{202: [1.0], 503: [2.0]}, {}, {202: [3.0]}]) == {202: [1.0, 3.0], 503: [2.0]}
