"""One change at a time to the API's own contract: what breaks a caller is told, with its place, and the rest passes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from deploy.openapi import FILE
from tests.contract.nodes import Change
from tests.contract.operations import breaking_changes
from tests.contract.released import contract

Document = dict[str, Any]
NOW: Document = contract(FILE)
WORD = {"type": "string"}
_ORDERS, _LIST, _ONE = "/paths/~1orders/post", "/paths/~1orders/get", "/paths/~1orders~1{orderId}/get"


def schema(document: Document, name: str) -> Document:
    return document["components"]["schemas"][name]


def field(document: Document, name: str, of: str = "OrderRequest") -> Document:
    return schema(document, of)["properties"][name]


def operation(document: Document, what: str) -> Document:
    method, path = what.split(" ")
    return document["paths"][path][method.lower()]


def parameter(document: Document, what: str, name: str) -> Document:
    return next(one for one in operation(document, what)["parameters"] if one["name"] == name)


def answer(document: Document, what: str, status: str) -> Document:
    return operation(document, what)["responses"][status]


def without(mapping: Any, *keys: Any) -> None:
    for key in keys:
        if isinstance(mapping, dict):
            del mapping[key]
        else:
            mapping.remove(key)


def added(document: Document, name: str, of: str, required: bool) -> None:
    schema(document, of)["properties"][name] = WORD
    if required:
        schema(document, of)["required"].append(name)


def gone(document: Document, name: str, of: str) -> None:
    without(schema(document, of)["properties"], name)
    if name in schema(document, of)["required"]:
        without(schema(document, of)["required"], name)


Mutation = Callable[[Document], object]
_REQUEST, _ANSWER = "/components/schemas/OrderRequest", "/components/schemas/OrderAnswer"
_CANCEL = "/paths/~1orders~1{orderId}~1cancel/post"

BREAKING: dict[str, tuple[Mutation, str, str]] = {
    "a path goes": (lambda d: without(d["paths"], "/coupons"), "/paths/~1coupons/get", "gone"),
    "a method goes": (lambda d: without(d["paths"]["/orders/{orderId}"], "patch"), _ONE[:-3] + "patch", "gone"),
    # what is asked for
    "a field must be sent": (lambda d: added(d, "email", "OrderRequest", True), _REQUEST, "`email` must be sent now"),
    "a field that could be left out must be sent": (
        *(
            lambda d: schema(d, "OrderRequest")["required"].append("productPrice"),
            _REQUEST,
            "`productPrice` must be sent",
        ),
    ),
    "a field is no longer read": (
        *(lambda d: gone(d, "address", "OrderRequest"), f"{_REQUEST}/properties/address", "no longer read"),
    ),
    "a field takes another type": (
        *(
            lambda d: field(d, "address").update(type="integer"),
            f"{_REQUEST}/properties/address",
            "string is no longer",
        ),
    ),
    "an alternative goes": (
        *(
            lambda d: without(field(d, "qty")["anyOf"], field(d, "qty")["anyOf"][1]),
            f"{_REQUEST}/properties/qty",
            "string",
        ),
    ),
    "null is no longer taken": (
        lambda d: without(field(d, "productPrice")["anyOf"], {"type": "null"}),
        *(f"{_REQUEST}/properties/productPrice", "null is no longer taken"),
    ),
    "a limit is lowered": (
        *(lambda d: field(d, "address").update(maxLength=200), f"{_REQUEST}/properties/address", "`maxLength` was 300"),
    ),
    "a limit is raised from below": (
        *(lambda d: field(d, "address").update(minLength=2), f"{_REQUEST}/properties/address", "`minLength` was 1"),
    ),
    "a number's limit is lowered, in an alternative": (
        *(lambda d: field(d, "qty")["anyOf"][0].update(maximum=50), f"{_REQUEST}/properties/qty/anyOf/0", "`maximum`"),
    ),
    "a pattern is another": (
        *(lambda d: field(d, "phoneNo").update(pattern="^0"), f"{_REQUEST}/properties/phoneNo", "`pattern` was"),
    ),
    "a pattern comes": (
        lambda d: parameter(d, "GET /orders", "cursor")["schema"].update(pattern="^c"),
        *(f"{_LIST}/parameters/5/schema", "`pattern` was not there"),
    ),
    "a word is no longer taken": (
        lambda d: without(field(d, "action", "SettlementRequest")["enum"], "skip"),
        *("/components/schemas/SettlementRequest/properties/action", "skip"),
    ),
    "any word becomes some words": (
        *(
            lambda d: field(d, "address").update(enum=["서울", "부산"]),
            f"{_REQUEST}/properties/address",
            "`enum` was not",
        ),
    ),
    "less is taken than what is referred to": (
        lambda d: parameter(d, "GET /orders", "orderStatus")["schema"].update(enum=["Delivered"]),
        *("/components/schemas/OrderStatus", "OrderReceived"),
    ),
    "some words become any short one": (
        lambda d: schema(d, "OrderPatch")["properties"].update(orderStatus={**WORD, "maxLength": 13}),
        *("/components/schemas/OrderPatch/properties/orderStatus", "Order Canceled: only one"),
    ),
    "what the comparison does not understand has changed": (
        lambda d: field(d, "qty", "MovementRequest").update({"not": {"const": 1}}),
        *("/components/schemas/MovementRequest/properties/qty", "`not` has changed"),
    ),
    "leaving a parameter out means something else": (
        lambda d: parameter(d, "GET /orders", "limit")["schema"].update(default=10),
        *(f"{_LIST}/parameters/4/schema", "leaving it out"),
    ),
    "a parameter goes": (
        lambda d: without(operation(d, "GET /orders")["parameters"], parameter(d, "GET /orders", "from")),
        *(f"{_LIST}/parameters/1", "the query parameter from is no longer read"),
    ),
    "a parameter must be sent": (
        lambda d: parameter(d, "GET /orders", "limit").update(required=True),
        *(f"{_LIST}/parameters/4", "must be sent now"),
    ),
    "a parameter that is new must be sent": (
        lambda d: operation(d, "GET /coupons")["parameters"].append(
            {"name": "X-Shop", "in": "header", "required": True, "schema": WORD}
        ),
        *("/paths/~1coupons/get/parameters/2", "the header parameter x-shop is new"),
    ),
    "a parameter is written in another way": (
        lambda d: parameter(d, "GET /orders", "orderStatus").update(explode=False),
        *(f"{_LIST}/parameters/0", "`explode` has changed"),
    ),
    "a body must be sent": (
        *(
            lambda d: operation(d, "POST /orders/{orderId}/cancel")["requestBody"].update(required=True),
            f"{_CANCEL}/requestBody",
        ),
        "a body must be sent",
    ),
    "a body is no longer read": (
        *(
            lambda d: without(operation(d, "POST /orders/{orderId}/cancel"), "requestBody"),
            f"{_CANCEL}/requestBody",
            "no longer",
        ),
    ),
    "a kind of body is no longer taken": (
        lambda d: operation(d, "POST /orders")["requestBody"].update(content={"application/xml": {}}),
        *(f"{_ORDERS}/requestBody/content/application~1json", "no longer taken"),
    ),
    # what is answered
    "an answer loses a field": (
        *(lambda d: gone(d, "amount", "OrderAnswer"), f"{_ANSWER}/properties/amount", "no longer answered"),
    ),
    "an answer loses a field that could be missing": (
        lambda d: gone(d, "deliveryStatus", "DeliveredAnswer"),
        *("/components/schemas/DeliveredAnswer/properties/deliveryStatus", "no longer answered"),
    ),
    "a field may be missing from the answer": (
        *(lambda d: without(schema(d, "OrderAnswer")["required"], "amount"), _ANSWER, "`amount` may be missing"),
    ),
    "an answer's field has another type": (
        *(
            lambda d: field(d, "amount", "OrderAnswer").update(type="number"),
            f"{_ANSWER}/properties/amount",
            "`type` was",
        ),
    ),
    "an answer's field may be null": (
        lambda d: schema(d, "OrderAnswer")["properties"].update(
            amount={"anyOf": [{"type": "integer"}, {"type": "null"}]}
        ),
        *(f"{_ANSWER}/properties/amount", "null may be answered"),
    ),
    "an answer has a new word": (
        lambda d: field(d, "status", "CouponAnswer")["enum"].append("Lost"),
        *("/components/schemas/CouponAnswer/properties/status", "Lost"),
    ),
    "an answer's word is any word": (
        lambda d: without(field(d, "status", "CouponAnswer"), "enum"),
        *("/components/schemas/CouponAnswer/properties/status", "`enum` was"),
    ),
    "an answer's time is any word": (
        *(
            lambda d: without(field(d, "updatedAt", "OrderAnswer"), "format"),
            f"{_ANSWER}/properties/updatedAt",
            "`format`",
        ),
    ),
    "what a list holds has changed": (
        lambda d: field(d, "items", "Page_OrderAnswer_").update(items=WORD),
        *("/components/schemas/Page_OrderAnswer_/properties/items/items", "string may be answered"),
    ),
    "fields without a name hold something else": (
        lambda d: field(d, "detail", "EventAnswer").update(additionalProperties={"type": "integer"}),
        *("/components/schemas/EventAnswer/properties/detail/additionalProperties", "integer may be answered"),
    ),
    "fields without a name hold anything": (
        lambda d: field(d, "detail", "EventAnswer").update(additionalProperties=True),
        *("/components/schemas/EventAnswer/properties/detail", "may hold anything"),
    ),
    "a success is no longer answered": (
        *(
            lambda d: without(operation(d, "POST /orders")["responses"], "201"),
            f"{_ORDERS}/responses/201",
            "201 is no longer",
        ),
    ),
    "an error is no longer answered": (
        *(
            lambda d: without(operation(d, "POST /orders")["responses"], "402"),
            f"{_ORDERS}/responses/402",
            "402 is no longer",
        ),
    ),
    "another success is answered": (
        lambda d: operation(d, "POST /orders")["responses"].update({"204": {"description": "Nothing to do"}}),
        *(f"{_ORDERS}/responses/204", "204 may be answered"),
    ),
    "a problem is no longer answered": (
        lambda d: without(
            answer(d, "POST /orders", "409")["content"]["application/problem+json"]["examples"], "price-changed"
        ),
        *(f"{_ORDERS}/responses/409/content/application~1problem+json/examples", "price-changed"),
    ),
    "a kind of answer goes": (
        lambda d: without(answer(d, "GET /orders/{orderId}/events", "200")["content"], "text/event-stream"),
        *("/paths/~1orders~1{orderId}~1events/get/responses/200/content/text~1event-stream", "no longer answered"),
    ),
    "a header goes": (
        *(
            lambda d: without(answer(d, "GET /orders/{orderId}", "200")["headers"], "ETag"),
            f"{_ONE}/responses/200/headers/ETag",
        ),
        "no longer answered",
    ),
    "a header may be missing": (
        lambda d: answer(d, "GET /orders/{orderId}", "200")["headers"]["ETag"].update(required=False),
        *(f"{_ONE}/responses/200/headers/ETag", "may be missing"),
    ),
    "a header holds something else": (
        lambda d: answer(d, "GET /orders/{orderId}", "200")["headers"]["ETag"]["schema"].update(type="integer"),
        *(f"{_ONE}/responses/200/headers/ETag/schema", "integer may be answered"),
    ),
    # who may call
    "a token is needed": (
        lambda d: operation(d, "GET /products").update(security=[{"bearer": []}]),
        *("/paths/~1products/get", "no token is refused"),
    ),
    "a scope is needed": (
        *(lambda d: operation(d, "GET /orders").update(security=[{"bearer": ["orders"]}]), _LIST, "bearer is refused"),
    ),
    "tokens are of another kind": (
        lambda d: d["components"]["securitySchemes"]["bearer"].update(scheme="basic"),
        *("/components/securitySchemes/bearer", "come with has changed"),
    ),
    "the shop has moved": (lambda d: d.update(servers=[{"url": "/v2"}]), "/servers", "`servers` has changed"),
}

HARMLESS: dict[str, Mutation] = {
    "a new path": lambda d: d["paths"].update({"/returns": {"get": operation(d, "GET /coupons")}}),
    "a path that was marked deprecated goes": lambda d: without(d["paths"], "/promotes"),
    "a field that was marked deprecated is no longer read": lambda d: gone(d, "payStatus", "OrderRequest"),
    "a new field that may be sent": lambda d: added(d, "email", "OrderRequest", False),
    "a new field in an answer": lambda d: added(d, "weight", "OrderAnswer", False),
    "a new field that is in each answer": lambda d: added(d, "weight", "OrderAnswer", True),
    "a field no longer has to be sent": lambda d: without(schema(d, "OrderRequest")["required"], "phoneNo"),
    "more is taken": lambda d: field(d, "address").update(maxLength=1000),
    "any pattern is taken": lambda d: without(field(d, "address"), "pattern"),
    "another word is taken": lambda d: field(d, "action", "SettlementRequest")["enum"].append("postpone"),
    "another type is taken": lambda d: field(d, "qty")["anyOf"].append({"type": "boolean"}),
    "another way to write the same": lambda d: field(d, "qty")["anyOf"].insert(1, {**WORD, "maxLength": 3}),
    "another status to ask for": lambda d: schema(d, "OrderStatus")["enum"].append("Returned"),
    "some words become any": lambda d: without(field(d, "orderStatus", "OrderPatch"), "enum"),
    "unknown fields are passed over": lambda d: schema(d, "OrderRequest").update(additionalProperties=True),
    "a new parameter": lambda d: operation(d, "GET /coupons")["parameters"].append(
        {"name": "status", "in": "query", "required": False, "schema": WORD}
    ),
    "a header's name in other letters": lambda d: parameter(d, "POST /orders", "Prefer").update(name="prefer"),
    "a body may be left out": lambda d: operation(d, "POST /orders")["requestBody"].update(required=False),
    "another kind of body": lambda d: operation(d, "POST /orders")["requestBody"]["content"].update({"text/csv": {}}),
    "an answer's words are fewer": lambda d: without(field(d, "status", "CouponAnswer")["enum"], "Used"),
    "an answer's field is no longer null": lambda d: without(
        field(d, "couponId", "OrderAnswer")["anyOf"], {"type": "null"}
    ),
    "an answer is in each case": lambda d: schema(d, "DeliveredAnswer")["required"].append("deliveryStatus"),
    "another error": lambda d: operation(d, "GET /coupons")["responses"].update({"410": {"description": "Gone"}}),
    "another header": lambda d: answer(d, "GET /orders", "200")["headers"].update({"X-Shop": {"schema": WORD}}),
    "another kind of answer": lambda d: answer(d, "GET /orders", "200")["content"].update({"text/csv": {}}),
    "no token is needed": lambda d: operation(d, "GET /orders").update(security=[]),
    "texts, names and tags": lambda d: [
        operation(d, "GET /orders").update(
            operationId="orders", summary="…", tags=["all"], description="…", deprecated=True
        ),
        schema(d, "OrderAnswer").update(title="Order", description="…"),
        field(d, "amount", "OrderAnswer").update(examples=[1], deprecated=True),
    ],
    "a schema is written out": lambda d: operation(d, "GET /orders/{orderId}")["responses"]["200"]["content"].update(
        {"application/json": {"schema": copy.deepcopy(schema(d, "OrderAnswer"))}}
    ),
}


def changed(mutate: Mutation) -> Document:
    document = copy.deepcopy(NOW)
    mutate(document)
    assert document != NOW
    return document


@pytest.mark.parametrize("what", BREAKING)
def test_what_breaks_a_caller_is_told_with_its_place(what: str) -> None:
    mutate, pointer, sentence = BREAKING[what]
    found = breaking_changes(NOW, changed(mutate))
    assert {change.pointer for change in found} == {pointer}
    assert any(sentence in change.sentence for change in found), found
    assert all(places for places in found.values())


@pytest.mark.parametrize("what", HARMLESS)
def test_what_breaks_nobody_passes(what: str) -> None:
    assert not breaking_changes(NOW, changed(HARMLESS[what]))


def test_what_goes_after_it_was_marked_deprecated_passes() -> None:
    def mark(document: Document) -> None:
        operation(document, "GET /coupons")["deprecated"] = True
        parameter(document, "GET /orders", "from")["deprecated"] = True
        answer(document, "GET /orders/{orderId}", "200")["headers"]["ETag"]["deprecated"] = True
        field(document, "amount", "OrderAnswer")["deprecated"] = True

    def remove(document: Document) -> None:
        without(document["paths"], "/coupons")
        without(operation(document, "GET /orders")["parameters"], parameter(document, "GET /orders", "from"))
        without(answer(document, "GET /orders/{orderId}", "200")["headers"], "ETag")
        gone(document, "amount", "OrderAnswer")

    assert len(breaking_changes(NOW, changed(remove))) == 4
    assert not breaking_changes(changed(mark), changed(remove))


def test_schemas_that_hold_themselves_are_compared_to_the_end() -> None:
    def nested(document: Document, kind: str) -> None:
        parts = {"type": "array", "items": {"$ref": "#/components/schemas/OrderAnswer"}}
        schema(document, "OrderAnswer")["properties"] |= {"parts": parts, "weight": {"type": kind}}

    earlier, same, other = (changed(lambda d, kind=kind: nested(d, kind)) for kind in ("integer", "integer", "string"))
    assert not breaking_changes(earlier, same)
    assert {change.pointer for change in breaking_changes(earlier, other)} == {f"{_ANSWER}/properties/weight"}


def test_a_change_is_told_once_with_all_operations_that_it_concerns() -> None:
    found = breaking_changes(NOW, changed(lambda d: gone(d, "amount", "OrderAnswer")))
    [(change, places)] = found.items()
    assert isinstance(change, Change)
    assert {"POST /orders", "GET /orders", "GET /orders/{orderId}"} <= set(places)


def test_fields_that_were_passed_over_may_not_be_refused() -> None:
    earlier = changed(HARMLESS["unknown fields are passed over"])
    [change] = breaking_changes(earlier, NOW)
    assert str(change) == f"{_REQUEST}: fields that the contract does not name are refused now"


def test_the_contract_breaks_nothing_of_its_own() -> None:
    assert not breaking_changes(NOW, copy.deepcopy(NOW))
