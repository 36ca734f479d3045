"""Small rules without a database: money, kinds of coupons, ids."""

import pytest

from services.marketing.coupons import coupon_kind
from services.shared.ids import new_coupon_id, new_order_id
from services.shared.money import format_amount


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (0, "KRW", "0원"),
        (999, "KRW", "999원"),
        (9_000_000, "KRW", "9,000,000원"),
        (-4500, "KRW", "-4,500원"),
        (10**15, "KRW", "1,000,000,000,000,000원"),
        (1250, "USD", "12.50 USD"),
        (5, "USD", "0.05 USD"),
        (123_456_789, "EUR", "1,234,567.89 EUR"),
        (10**17 + 1, "USD", "1,000,000,000,000,000.01 USD"),
        (1250, "JPY", "1,250 JPY"),
    ],
)
def test_an_amount_is_told_in_its_currency(amount: int, currency: str, text: str) -> None:
    assert format_amount(amount, currency) == text


@pytest.mark.parametrize(
    ("amount", "kind"),
    [
        (0, "Bronze"),
        (1, "Bronze"),
        (999_999, "Bronze"),
        (1_000_000, "Silver"),
        (4_999_999, "Silver"),
        (5_000_000, "Gold"),
        (10**14, "Gold"),
    ],
)
def test_the_kind_of_a_coupon_follows_the_amount(amount: int, kind: str) -> None:
    assert coupon_kind(amount) == kind


@pytest.mark.parametrize(("new", "prefix"), [(new_order_id, "order_"), (new_coupon_id, "coupon_")])
def test_ids_say_what_they_name_and_are_never_the_same(new: type[str], prefix: str) -> None:
    ids = {new() for _ in range(1000)}
    assert len(ids) == 1000
    for made in ids:
        assert made.startswith(prefix)
        assert len(made) == len(prefix) + 26
        assert made == made.lower()
        assert len(made) <= 64


def test_later_ids_sort_after_earlier_ones() -> None:
    ids = [new_order_id() for _ in range(1000)]
    assert ids == sorted(ids)
