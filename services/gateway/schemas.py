"""What goes over the wire: camelCase, the shop's own words. Kept apart from the tables, which validate nothing."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from services.delivery.tables import Delivery
from services.gateway.fields import Address, Code, Movement, Name, Phone, Price, ProductName, Qty, Reason
from services.marketing.tables import Coupon
from services.order.acceptance import NewOrder
from services.order.admission import AdmissionReport
from services.order.book import OrderReading
from services.order.circuit import Intake
from services.order.statuses import EventType
from services.order.tables import OrderEvent, Product, Reconciliation, ReconciliationDifference

T = TypeVar("T")
MILLISECOND = timedelta(milliseconds=1)
Moment = Annotated[datetime, PlainSerializer(lambda at: at.isoformat(timespec="microseconds").replace("+00:00", "Z"))]


class Wire(BaseModel):
    """camelCase outside, snake_case inside."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


def _like(**example: str | int) -> ConfigDict:
    """The example of a body, which works."""
    return ConfigDict(json_schema_extra={"examples": [{**example}]})


class Request(Wire):
    """A request body: unknown fields are refused, so that a typing error is not silently ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=False, extra="forbid")


def _classic(description: str) -> Any:
    """A field that only the shop's first version needed."""
    return Field(description=description, json_schema_extra={"deprecated": True})


class OrderRequest(Request):
    model_config = _like(
        productId="2001",
        qty=1,
        username="굿맨",
        address="서울시 12번가 12",
        phoneNo="010-1234-5678",
        paymentMethod="pm_card_visa",
    )

    product_id: Code
    qty: Qty
    username: Name
    address: Address
    phone_no: Phone
    payment_method: Code
    product_price: Annotated[
        Price | None, Field(description="The price that the customer saw: refused where it is not the catalogue's.")
    ] = None
    user_id: Annotated[str | None, Field(max_length=128), _classic("The caller's own id, or else refused.")] = None
    pay_status: Annotated[Literal["Y", "Paid", "NotPaid"] | None, _classic("Ignored: each order is paid for.")] = None
    product_name: Annotated[ProductName | None, _classic("Ignored: the catalogue's counts.")] = None

    def by(self, user_id: str) -> NewOrder:
        """What this caller asks for. Raises `RequestValidationError` where the order names somebody else."""
        if self.user_id not in (None, user_id):
            wrong = {"type": "not_yours", "loc": ("body", "userId"), "msg": "Should be the caller's own, or left out"}
            raise RequestValidationError([wrong])
        return NewOrder(**self.model_dump(exclude={"user_id", "pay_status", "product_name"}))


class OrderPatch(Request):
    model_config = _like(orderStatus="OrderCanceled")

    order_status: Annotated[
        Literal["OrderCanceled", "orderCanceled", "Order Canceled"], Field(description="As today, or as it once was.")
    ]


class ProductRequest(Request):
    model_config = _like(productName="gram", productPrice=9_000_000)

    product_name: ProductName
    product_price: Price
    currency: Literal["KRW"] = "KRW"


class MovementRequest(Request):
    model_config = _like(qty=10, reason="restock")

    qty: Movement
    reason: Reason


class DeliveryEventRequest(Request):
    model_config = _like(event="Delivered")

    event: Literal["Delivered"]


class DecisionRequest(Request):
    """Why an operator does something, for the timeline."""

    model_config = _like(reason="Marketing is away since noon.")

    reason: Reason


class ClearanceRequest(DecisionRequest):
    model_config = _like(reason="The customer was told.")

    about: Annotated[Code | None, Field(description="What is seen to; all that can be cleared, without it.")] = None


class SettlementRequest(Request):
    model_config = _like(step="refund_payment", action="retry", reason="The provider is back.")

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


_DECIDED = (
    EventType.COMPENSATION_RETRIED,
    EventType.COMPENSATION_SKIPPED,
    EventType.COUPON_WAIVED,
    EventType.ATTENTION_CLEARED,
)


class EventAnswer(Wire):
    version: int
    type: str
    at: Moment
    detail: dict[str, str]

    @staticmethod
    def of(event: OrderEvent, *, to_operator: bool) -> "EventAnswer":
        """A customer is not told who of the staff did something, nor what they noted when they decided it."""
        answer = EventAnswer.model_validate(event, from_attributes=True)
        if not to_operator:
            told = answer.detail.keys() - {"actor", "note"} - ({"reason"} if event.type in _DECIDED else set())
            answer.detail = {name: value for name, value in answer.detail.items() if name in told}
        return answer


class ReconciliationAnswer(Wire):
    """`compared` counts orders, `found` and `repaired` differences; `notCompared` names the stores that were away."""

    reconciliation_id: str
    started_at: Moment
    finished_at: Moment | None
    compared: int
    found: int
    repaired: int
    not_compared: list[str]

    @staticmethod
    def of(run: Reconciliation) -> "ReconciliationAnswer":
        return ReconciliationAnswer.model_validate(run, from_attributes=True)


class DifferenceAnswer(Wire):
    """Something that was found about an order or a product. What `code` means, and what to do: `docs/operations.md`."""

    number: int
    code: str
    order_id: str | None
    product_id: str | None
    detail: str
    outcome: str
    at: Moment

    @staticmethod
    def of(difference: ReconciliationDifference) -> "DifferenceAnswer":
        return DifferenceAnswer.model_validate(difference, from_attributes=True)


class TriggeredAnswer(Wire):
    """`started`, or `running` where a run was under way: then that one goes on."""

    state: Literal["started", "running"]


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


class DeliveredAnswer(Wire):
    order_id: str
    delivery_status: Literal["Delivered"] = "Delivered"


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
