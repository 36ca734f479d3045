"""What each problem is called and how it is told: the catalogue of the codes. `docs/errors.md` says what to do."""

from typing import NamedTuple


class Wording(NamedTuple):
    """The HTTP status that a problem is answered with, and the sentence for the customer."""

    status: int
    korean: str
    english: str


WORDING: dict[str, Wording] = {
    "amount-mismatch": Wording(502, "결제 금액이 주문과 다릅니다.", "The amount charged differs from the order."),
    "bad-request": Wording(400, "요청을 이해할 수 없습니다.", "The request cannot be understood."),
    "coupon-revoked": Wording(
        409, "주문이 취소되어 쿠폰을 발급할 수 없습니다.", "The order was cancelled: there is no coupon."
    ),
    "database-unavailable": Wording(
        503,
        "지금은 처리할 수 없습니다. 잠시 후 다시 시도해 주세요.",
        "This cannot be done right now. Please try again shortly.",
    ),
    "delivery-canceled": Wording(409, "취소된 배송입니다.", "The delivery was cancelled."),
    "delivery-completed": Wording(409, "이미 배송이 완료되었습니다.", "The delivery is already complete."),
    "draining": Wording(
        503,
        "서버를 다시 시작하는 중입니다. 잠시 후 다시 시도해 주세요.",
        "This server is about to restart. Please try again shortly.",
    ),
    "engine-unavailable": Wording(
        503,
        "지금은 처리할 수 없습니다. 잠시 후 다시 시도해 주세요.",
        "This cannot be done right now. Please try again shortly.",
    ),
    "forbidden": Wording(403, "권한이 없습니다.", "You may not do this."),
    "idempotency-key-missing": Wording(
        400,
        "Idempotency-Key 헤더가 필요합니다. 주문마다 새 값을 만들고, 다시 시도할 때는 같은 값을 보내세요.",
        "The Idempotency-Key header is missing: make a new value for each order and send the same one on a retry.",
    ),
    "idempotency-key-reused": Wording(
        422,
        "같은 Idempotency-Key로 다른 요청을 보낼 수 없습니다.",
        "This Idempotency-Key was used for another request.",
    ),
    "insufficient-funds": Wording(
        402, "잔액이 부족하여 결제가 거절되었습니다.", "The payment was declined: insufficient funds."
    ),
    "internal-error": Wording(500, "서버에 문제가 생겼습니다.", "Something went wrong on our side."),
    "invalid-cursor": Wording(400, "cursor가 올바르지 않습니다.", "The cursor is not valid."),
    "invalid-request": Wording(422, "요청의 값이 올바르지 않습니다.", "The request has invalid values."),
    "invalid-token": Wording(
        401,
        "로그인 정보가 올바르지 않거나 만료되었습니다. 다시 로그인해 주세요.",
        "The token is not valid or has expired: sign in again.",
    ),
    "keys-unavailable": Wording(
        503,
        "지금은 로그인 정보를 확인할 수 없습니다. 잠시 후 다시 시도해 주세요.",
        "It cannot be checked right now who is calling. Please try again shortly.",
    ),
    "method-not-allowed": Wording(405, "허용되지 않는 메서드입니다.", "This method is not allowed here."),
    "not-acceptable": Wording(
        406, "요청하신 형식으로는 응답할 수 없습니다.", "There is no answer in a form that the Accept header takes."
    ),
    "not-deliverable": Wording(409, "배송 중인 주문이 아닙니다.", "The order is not under way to the customer."),
    "not-flagged": Wording(
        409, "확인이 필요하다고 표시된 주문이 아닙니다.", "There is nothing about the order that could be cleared."
    ),
    "not-found": Wording(404, "찾을 수 없습니다.", "There is no such thing."),
    "not-stuck": Wording(409, "처리할 보상 작업이 없습니다.", "No such compensation is waiting to be settled."),
    "not-waiting": Wording(409, "쿠폰을 기다리는 주문이 아닙니다.", "The order does not wait for its coupon."),
    "order-intake-paused": Wording(
        503,
        "주문이 많아 지금은 주문과 결제를 받을 수 없습니다. 잠시 후 다시 시도해 주세요.",
        "There are too many orders: orders and payments cannot be taken right now. Please try again shortly.",
    ),
    "out-of-stock": Wording(409, "재고가 부족합니다.", "There is not enough in stock."),
    "overloaded": Wording(
        503,
        "지금은 요청이 너무 많습니다. 잠시 후 다시 시도해 주세요.",
        "There are too many requests right now. Please try again shortly.",
    ),
    "payload-too-large": Wording(413, "요청이 너무 큽니다.", "The request is too large."),
    "payment-declined": Wording(402, "결제가 거절되었습니다.", "The payment was declined."),
    "payment-provider-rejected": Wording(502, "결제를 처리할 수 없습니다.", "The payment cannot be processed."),
    "payment-provider-unavailable": Wording(
        503, "결제사가 응답하지 않습니다.", "The payment provider does not answer."
    ),
    "payment-voided": Wording(409, "취소된 결제입니다.", "The payment was cancelled."),
    "precondition-failed": Wording(
        412,
        "주문이 그 사이에 변경되었습니다. 주문을 다시 조회한 뒤 요청해 주세요.",
        "The order has changed meanwhile. Read it again, and then decide.",
    ),
    "price-changed": Wording(409, "상품 가격이 변경되었습니다.", "The price of the product has changed."),
    "refund-refused": Wording(409, "환불이 거절되었습니다.", "The refund was refused."),
    "request-timeout": Wording(
        503,
        "제시간에 요청을 처리하지 못했습니다. 같은 요청을 다시 보내 주세요.",
        "The request was not finished in time. Please send the same one again.",
    ),
    "sale-canceled": Wording(409, "취소된 주문입니다.", "The order was cancelled."),
    "stock-limit": Wording(409, "재고가 보관할 수 있는 수량을 넘습니다.", "The warehouse cannot hold as many pieces."),
    "too-late-to-cancel": Wording(409, "더 이상 취소할 수 없는 주문입니다.", "The order can no longer be cancelled."),
    "too-many-requests": Wording(
        429,
        "요청을 너무 자주 보냈습니다. 잠시 후 다시 시도해 주세요.",
        "You have sent too many requests. Please try again shortly.",
    ),
    "unauthorized": Wording(401, "로그인이 필요합니다.", "Sign in first: this call needs a bearer token."),
    "unavailable": Wording(503, "잠시 후 다시 시도해 주세요.", "Please try again shortly."),
    "unknown-product": Wording(404, "없는 상품입니다.", "There is no such product."),
    "unsupported-media-type": Wording(
        415, "요청 본문은 application/json 형식이어야 합니다.", "The body must be application/json, and not be packed."
    ),
}
