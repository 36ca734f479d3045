"""An order as it was accepted, for tests that need one without accepting it."""

from datetime import datetime

from services.order.tables import Order
from services.shared.clock import utc_now


def an_order(order_id: str, at: datetime | None = None, **changes: object) -> Order:
    """Tea for 1000 won, ordered at that moment or now, with these changes."""
    at = at or utc_now()
    usual: dict[str, object] = {
        "user_id": "u1",
        "product_id": "tea",
        "product_name": "녹차 🍵",
        "product_price": 1000,
        "qty": 1,
        "amount": 1000,
        "currency": "KRW",
        "username": "김하늘",
        "address": "서울시 12번가 12",
        "phone_no": "010-0000-0000",
        "payment_method": "pm_card_visa",
        "claimed_until": at,
    }
    return Order.model_validate({"order_id": order_id, "order_date": at, **usual, **changes})
