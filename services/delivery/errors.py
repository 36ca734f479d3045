"""What the delivery team refuses."""

from typing import ClassVar

from services.shared.errors import NotFound, Refused


class OutOfStock(Refused):
    """The warehouse does not hold as many pieces."""

    code: ClassVar[str] = "out-of-stock"


class UnknownProduct(NotFound):
    """The warehouse does not know the product."""

    code: ClassVar[str] = "unknown-product"


class StockLimit(Refused):
    """The warehouse would hold more pieces than can be counted."""

    code: ClassVar[str] = "stock-limit"


class MovementKeyReused(Refused):
    """The reference stands for another movement already."""

    code: ClassVar[str] = "idempotency-key-reused"
    status: ClassVar[int] = 422


class DeliveryCanceled(Refused):
    """The order was cancelled: its delivery must not start any more, or cannot be completed."""

    code: ClassVar[str] = "delivery-canceled"


class SaleCanceled(Refused):
    """The order was cancelled: its pieces must not leave the stock any more."""

    code: ClassVar[str] = "sale-canceled"


class DeliveryCompleted(Refused):
    """The goods are with the customer: the delivery cannot be called off."""

    code: ClassVar[str] = "delivery-completed"
