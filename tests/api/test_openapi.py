"""The OpenAPI document: committed, complete, and true as far as its examples go."""

import difflib
import re
from typing import Any

import pytest

from deploy.openapi import FILE, document
from services.gateway.openapi import Problem
from services.gateway.wording import WORDING
from tests.api.test_access import NOBODY, RULES, operations
from tests.api.world import Shop

# Those that no route of its own tells of, and those that are never answered (docs/errors.md).
ELSEWHERE = {"method-not-allowed", "unavailable", "draining"}


def test_the_committed_document_is_what_the_code_describes() -> None:
    now, committed = document(), FILE.read_text()
    difference = difflib.unified_diff(committed.splitlines(), now.splitlines(), "docs/openapi.json", "the code", n=2)
    assert now == committed, "\n".join(["Run `make openapi`, and look at what changes for callers:", *difference])


def test_the_document_is_made_once(shop: Shop) -> None:
    assert shop.app.openapi() is shop.app.openapi()


def test_each_operation_says_what_it_is_for_and_what_can_be_answered(shop: Shop) -> None:
    for what, operation in operations(shop).items():
        assert re.fullmatch("[a-z][A-Za-z]+", operation["operationId"]), what
        assert operation["summary"], what
        assert operation["description"], what
        assert operation["tags"], what
        statuses = operation["responses"].keys()
        assert {"406", "422", "500", "503"} <= statuses, what
        assert ("401" in statuses) == ("403" in statuses) == (NOBODY not in RULES[what]), what
        assert ("413" in statuses) == ("415" in statuses) == ("requestBody" in operation), what
        for status, response in operation["responses"].items():
            assert response["description"], what
            assert "X-Request-Id" in response["headers"], (what, status)
            if status in ("429", "503"):
                assert "Retry-After" in response["headers"], what


def test_each_problem_that_is_described_is_one_of_the_catalogue(shop: Shop) -> None:
    described: set[str] = set()
    examples = shop.app.openapi()["components"]["examples"]
    for what, operation in operations(shop).items():
        for status, response in operation["responses"].items():
            content: dict[str, Any] = response.get("content", {})
            for code, example in content.get("application/problem+json", {}).get("examples", {}).items():
                found = Problem.model_validate(examples[example["$ref"].rpartition("/")[2]]["value"])
                assert (found.code, str(found.status)) == (code, status), what
                described.add(code)
    of_the_docs = {code for code in WORDING if code not in ELSEWHERE}
    never_answered = of_the_docs - described
    assert described <= WORDING.keys()
    assert never_answered == {
        *("amount-mismatch", "coupon-revoked", "delivery-canceled", "delivery-completed", "payment-provider-rejected"),
        *("payment-provider-unavailable", "payment-voided", "refund-refused", "sale-canceled"),
    }


@pytest.mark.parametrize(
    "what",
    [what for what in RULES if what.startswith(("POST", "PUT", "PATCH")) and what != "POST /reconciliations"],
)
async def test_the_example_of_a_body_works(shop: Shop, what: str) -> None:
    body = operations(shop)[what]["requestBody"]["content"]["application/json"]["schema"]
    schema = body.get("anyOf", [body])[0]["$ref"].rpartition("/")[2]
    example = shop.app.openapi()["components"]["schemas"][schema]["examples"][0]
    await shop.parts.catalogue.put(product_id="2001", product_name="gram", product_price=9_000_000)
    order_id = await shop.ordered()
    path = what.split(" ")[1].replace("{orderId}", order_id).replace("{productId}", "tea")
    [who] = RULES[what][-1:]  # an operator, where they may: who alone says why they cancel
    answer = await shop.client.request(what.split(" ")[0], path, json=example, headers={**who, "Idempotency-Key": "k"})
    assert answer.status_code in (200, 201, 202, 409), answer.text
