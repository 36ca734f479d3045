"""What goes over the wire: camelCase, the shop's own words. Kept apart from the tables, which validate nothing."""

from datetime import datetime, timedelta
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints
from pydantic.alias_generators import to_camel

from services.delivery.tables import Delivery
from services.marketing.tables import Coupon
from services.order.admission import AdmissionReport
from services.order.book import OrderReading
from services.order.circuit import Intake
from services.order.statuses import OrderStatus
from services.order.tables import OrderEvent, Product

T = TypeVar("T")
MILLISECOND = timedelta(milliseconds=1)
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
Moment = Annotated[datetime, PlainSerializer(lambda at: at.isoformat(timespec="microseconds").replace("+00:00", "Z"))]


def _text(longest: int) -> StringConstraints:
    """Trimmed, 1 to `longest` characters, no control characters."""
    return StringConstraints(strip_whitespace=True, min_length=1, max_length=longest, pattern=_PRINTABLE)


Name = Annotated[str, _text(100)]
ProductName = Annotated[str, _text(200)]
Address = Annotated[str, _text(300)]
Phone = Annotated[str, _text(30)]
Code = Annotated[str, _text(64)]
Reason = Annotated[str, _text(200)]


class Wire(BaseModel):
    """camelCase outside, snake_case inside."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Request(Wire):
    """A request body: unknown fields are refused, so that a typing error is not silently ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=False, extra="forbid")


class OrderRequest(Request):
    product_id: Code
    qty: Annotated[int, Field(strict=True, ge=1, le=100)]
    username: Name
    address: Address
    phone_no: Phone
    payment_method: Code
    product_price: Annotated[int | None, Field(strict=True, gt=0)] = None


class OrderPatch(Request):
    order_status: Literal[OrderStatus.ORDER_CANCELED]


class ProductRequest(Request):
    product_name: ProductName
    product_price: Annotated[int, Field(strict=True, gt=0, le=10**12)]
    currency: Literal["KRW"] = "KRW"


class MovementRequest(Request):
    qty: Annotated[int, Field(strict=True, ge=-1_000_000, le=1_000_000)]
    reason: Reason


class DeliveryEventRequest(Request):
    event: Literal["Delivered"]


class SettlementRequest(Request):
    step: Code
    action: Literal["retry", "skip"]
    reason: Reason


class ProductAnswer(Wire):
    product_id: str
    product_name: str
    product_price: int
    currency: str

    @staticmethod
    def of(product: Product) -> "ProductAnswer":
        return ProductAnswer.model_validate(product, from_attributes=True)


class StockAnswer(Wire):
    product_id: str
    on_hand: int


class OrderAnswer(Wire):
    order_id: str
    order_status: str
    pay_status: str
    delivery_status: str
    cancel_reason: str | None
    needs_attention: bool
    product_id: str
    product_name: str
    product_price: int
    qty: int
    amount: int
    currency: str
    user_id: str
    username: str
    address: str
    phone_no: str
    coupon_id: str | None
    coupon_kind: str | None
    coupon_use_yn: str | None
    order_date: Moment
    updated_at: Moment
    version: int

    @staticmethod
    def of(reading: OrderReading) -> "OrderAnswer":
        return OrderAnswer.model_validate({**reading.order.model_dump(), **reading.view.model_dump()})


class EventAnswer(Wire):
    version: int
    type: str
    at: Moment
    detail: dict[str, str]

    @staticmethod
    def of(event: OrderEvent) -> "EventAnswer":
        return EventAnswer.model_validate(event, from_attributes=True)


class PendingPaymentAnswer(Wire):
    order_id: str
    since: Moment


class AdmissionAnswer(Wire):
    """Times in milliseconds where their name says so. `trialAt` and `trialOrderId` are those of the open circuit."""

    state: Intake
    since: Moment | None
    pending_payments: int
    max_pending_payments: int
    oldest_pending_payment: PendingPaymentAnswer | None
    median_payment_ms: int | None
    slow_payment_ms: int
    trial_at: Moment | None
    trial_order_id: str | None
    retry_after_seconds: int | None

    @staticmethod
    def of(report: AdmissionReport) -> "AdmissionAnswer":
        standing, circuit = report.standing, report.standing.circuit
        return AdmissionAnswer(
            state=standing.intake,
            since=report.since,
            pending_payments=standing.pending,
            max_pending_payments=standing.rules.max_pending,
            oldest_pending_payment=standing.oldest
            and PendingPaymentAnswer(order_id=standing.oldest.order_id, since=standing.oldest.since),
            median_payment_ms=None if circuit.median is None else round(circuit.median / MILLISECOND),
            slow_payment_ms=round(standing.rules.slow / MILLISECOND),
            trial_at=circuit.trial_at,
            trial_order_id=circuit.trial_order_id,
            retry_after_seconds=None if standing.room else standing.retry_after_seconds,
        )


class DeliveryAnswer(Wire):
    order_id: str
    delivery_status: str
    product_id: str
    qty: int
    started_at: Moment | None
    updated_at: Moment

    @staticmethod
    def of(delivery: Delivery) -> "DeliveryAnswer":
        return DeliveryAnswer.model_validate({**delivery.model_dump(), "delivery_status": delivery.state})


class CouponAnswer(Wire):
    coupon_id: str
    coupon_kind: str
    coupon_use_yn: Literal["Y", "N"]
    status: Literal["Issued", "Used", "Revoked"]
    order_id: str
    issued_at: Moment | None

    @staticmethod
    def of(coupon: Coupon) -> "CouponAnswer":
        return CouponAnswer(
            coupon_id=coupon.coupon_id,
            coupon_kind=coupon.coupon_kind,
            coupon_use_yn="Y" if coupon.used else "N",
            status="Revoked" if coupon.revoked_at else "Used" if coupon.used else "Issued",
            order_id=coupon.order_id,
            issued_at=coupon.issued_at,
        )


class Items(Wire, Generic[T]):
    """A list that is not paged."""

    items: list[T]


class Page(Wire, Generic[T]):
    """A page of a list, newest first. `nextCursor` leads to the next one, or is null on the last."""

    items: list[T]
    next_cursor: str | None
