"""Amounts are integers in the currency's minor unit, next to its ISO 4217 code. KRW has no minor unit."""

from decimal import Decimal

KRW = "KRW"
_WITHOUT_MINOR_UNIT = frozenset({KRW, "JPY"})


def format_amount(amount: int, currency: str) -> str:
    """An amount for people: `9,000,000원`, or `12.50 USD`."""
    if currency == KRW:
        return f"{amount:,}원"
    if currency in _WITHOUT_MINOR_UNIT:
        return f"{amount:,} {currency}"
    return f"{Decimal(amount).scaleb(-2):,.2f} {currency}"
