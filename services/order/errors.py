"""What the order team refuses, its payments aside (those are in `provider`)."""

from typing import ClassVar

from services.shared.errors import NotFound, Refused, ShopError, Unavailable


class UnknownProduct(NotFound):
    """The catalogue does not hold the product."""

    code: ClassVar[str] = "unknown-product"


class PriceChanged(Refused):
    """The price that the customer saw is not the catalogue's."""

    code: ClassVar[str] = "price-changed"


class OutOfStock(Refused):
    """The warehouse is known not to hold as many pieces."""

    code: ClassVar[str] = "out-of-stock"


class IdempotencyKeyReused(Refused):
    """The caller's key stands for another request already."""

    code: ClassVar[str] = "idempotency-key-reused"
    status: ClassVar[int] = 422


class OrderIntakePaused(Unavailable):
    """No orders are taken right now: too many payments are in flight, or they have become slow. Nothing was stored."""

    code: ClassVar[str] = "order-intake-paused"

    def __init__(self, reason: str, retry_after_seconds: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class AmountMismatch(ShopError):
    """The provider charged something else than was asked: the payment must not stand."""

    code: ClassVar[str] = "amount-mismatch"
    status: ClassVar[int] = 502
