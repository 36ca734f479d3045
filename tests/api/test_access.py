"""Who may call what: every route of the OpenAPI document with every role, so that none is without a rule."""

import re
from typing import Any, Final

import pytest
from starlette.types import Message

from services.gateway.caller import Caller, Role
from tests.api.world import CARRIER, HANEUL, MINJI, OPERATOR, ORDER, Shop, is_problem
from tests.issuer import bearer

NOBODY: dict[str, str] = {}
EVERYBODY = [NOBODY, MINJI, OPERATOR, CARRIER]
BUYERS, OPERATORS, CARRIERS = [MINJI, OPERATOR], [OPERATOR], [CARRIER]
RULES: Final[dict[str, list[dict[str, str]]]] = {
    "GET /livez": EVERYBODY,
    "GET /readyz": EVERYBODY,
    "GET /metrics": EVERYBODY,
    "GET /products": EVERYBODY,
    "GET /products/{productId}": EVERYBODY,
    "PUT /products/{productId}": OPERATORS,
    "GET /stocks/{productId}": OPERATORS,
    "POST /stocks/{productId}/movements": OPERATORS,
    "POST /orders": BUYERS,
    "GET /orders": BUYERS,
    "GET /orders/{orderId}": BUYERS,
    "PATCH /orders/{orderId}": BUYERS,
    "POST /orders/{orderId}/cancel": BUYERS,
    "GET /orders/{orderId}/events": BUYERS,
    "POST /orders/{orderId}/settlements": OPERATORS,
    "POST /orders/{orderId}/waivers": OPERATORS,
    "POST /orders/{orderId}/clearances": OPERATORS,
    "GET /admission": OPERATORS,
    "GET /reconciliations": OPERATORS,
    "POST /reconciliations": OPERATORS,
    "GET /reconciliations/{reconciliationId}": OPERATORS,
    "GET /reconciliations/{reconciliationId}/differences": OPERATORS,
    "GET /deliveries/{orderId}": BUYERS,
    "POST /deliveries/{orderId}/events": CARRIERS,
    "GET /coupons": BUYERS,
    "GET /orderStatus": BUYERS,
    "GET /stockDeliveries": BUYERS,
    "GET /promotes": BUYERS,
}
BODIES: Final[dict[str, Any]] = {
    "PUT /products/{productId}": {"productName": "차", "productPrice": 1},
    "POST /stocks/{productId}/movements": {"qty": 1, "reason": "restock"},
    "POST /orders": ORDER,
    "PATCH /orders/{orderId}": {"orderStatus": "OrderCanceled"},
    "POST /orders/{orderId}/settlements": {"step": "refund_payment", "action": "skip", "reason": "by hand"},
    "POST /orders/{orderId}/waivers": {"reason": "marketing is away"},
    "POST /orders/{orderId}/clearances": {"reason": "seen to"},
    "POST /deliveries/{orderId}/events": {"event": "Delivered"},
}
OF_ONE_ORDER = [call for call in RULES if "{orderId}" in call and RULES[call] is BUYERS]


def operations(shop: Shop) -> dict[str, dict[str, Any]]:
    """What the OpenAPI document describes, by method and path."""
    paths = shop.app.openapi()["paths"]
    return {f"{method.upper()} {path}": found for path in paths for method, found in paths[path].items()}


async def call(shop: Shop, what: str, who: dict[str, str], order_id: str = "order_1") -> Any:
    method, path = what.split(" ")
    path = path.replace("{orderId}", order_id).replace("{productId}", "tea").replace("{reconciliationId}", "r")
    headers = {"Idempotency-Key": re.sub(r"\W", "", f"{what}{who}")[:60], **who}
    return await shop.client.request(method, path, json=BODIES.get(what), headers=headers)


@pytest.mark.parametrize(("role", "sees"), [(Role.CUSTOMER, "ann"), (Role.CARRIER, "ann"), (Role.OPERATOR, None)])
def test_an_operator_alone_sees_everybodys_orders(role: Role, sees: str | None) -> None:
    assert Caller("ann", role, 0).sees == sees


async def test_every_route_has_its_rule_and_says_whether_it_wants_a_token(shop: Shop) -> None:
    described = operations(shop)
    assert described.keys() == RULES.keys()
    for what, operation in described.items():
        assert bool(operation.get("security")) == (NOBODY not in RULES[what]), what


@pytest.mark.parametrize("what", RULES)
async def test_each_role_may_do_its_own_work_alone(shop: Shop, what: str) -> None:
    for who in EVERYBODY:
        answer = await call(shop, what, who)
        if who in RULES[what]:
            assert answer.status_code in (200, 201, 202, 404), (who, answer.text)
        elif who is NOBODY:
            is_problem(answer, 401, "unauthorized")
        else:
            is_problem(answer, 403, "forbidden")


@pytest.mark.parametrize("what", [what for what in RULES if NOBODY not in RULES[what]])
async def test_a_token_that_is_not_good_opens_no_route(shop: Shop, what: str) -> None:
    is_problem(await call(shop, what, bearer("minji", exp=1)), 401, "invalid-token")
    is_problem(await call(shop, what, bearer("minji", aud="another-shop")), 401, "invalid-token")


@pytest.mark.parametrize("what", OF_ONE_ORDER)
async def test_somebody_elses_order_is_not_there(shop: Shop, what: str) -> None:
    order_id = await shop.ordered(MINJI)
    await shop.parts.deliveries.start(order_id=order_id, product_id="tea", qty=2)
    theirs = await call(shop, what, HANEUL, order_id)
    nobodys = await call(shop, what, HANEUL, "order_00000000000000000000000000")
    found, other = is_problem(theirs, 404, "not-found"), is_problem(nobodys, 404, "not-found")
    assert found | {"requestId": ""} == other | {"requestId": ""}
    assert shop.engine.told == []
    assert (await call(shop, what, MINJI, order_id)).status_code in (200, 202)


@pytest.mark.parametrize(
    "what", [what for what in RULES if "{" not in what and RULES[what] is BUYERS and "GET" in what]
)
async def test_a_list_holds_nothing_of_somebody_elses(shop: Shop, what: str) -> None:
    order_id = await shop.ordered(MINJI)
    await shop.parts.deliveries.start(order_id=order_id, product_id="tea", qty=2)
    await shop.parts.coupons.issue(order_id=order_id, user_id="minji", amount=9000)
    assert [item["orderId"] for item in (await call(shop, what, MINJI)).json()["items"]] == [order_id]
    assert (await call(shop, what, HANEUL)).json()["items"] == []


@pytest.mark.parametrize("what", BODIES)
async def test_who_may_not_come_in_is_told_so_before_a_body_is_read(shop: Shop, what: str) -> None:
    async def unread() -> Message:
        raise AssertionError("the body was read")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    method, path = what.split(" ")
    for who, status in ((NOBODY, 401), (MINJI if MINJI not in RULES[what] else CARRIER, 403)):
        headers = [(name.lower().encode(), value.encode()) for name, value in who.items()]
        sent.clear()
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
        await shop.app(scope, unread, send)
        assert sent[0]["status"] == status
