"""How a crowd's answers are put together."""

from tests.bench.load import Served, merged


def test_answers_are_put_together_by_their_status() -> None:
    assert merged([{202: [1.0], 503: [2.0]}, {}, {202: [3.0]}]) == {202: [1.0, 3.0], 503: [2.0]}


def test_how_long_answers_took_is_told_by_their_status() -> None:
    served = Served(count=3, seconds=1.0, cpu={}, took=[], answers={202: [1.0, 9.0], 503: [2.0]})
    assert (served.within(202, 0.99), served.within(503, 0.99)) == (9.0, 2.0)
