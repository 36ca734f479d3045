"""Orders that are not taken, over HTTP: what the customer reads, and what an operator sees of it."""

import asyncio
from datetime import datetime, timedelta

import pytest

from services.order.acceptance import Acceptance
from services.order.admission import Admission
from services.order.circuit import MEASURED, AdmissionRules
from services.order.statuses import EventType
from services.shared.clock import Clock, utc_now
from tests.api.world import CANCELING, HANEUL, LEASE, MINJI, OPERATOR, ORDER, PLACED, Shop, is_problem
from tests.database.orders import HeldClock

SLOW = timedelta(seconds=2)


def limit(shop: Shop, clock: Clock = utc_now) -> None:
    """Give the shop its default limits."""
    admission = Admission(AdmissionRules(), clock)
    acceptance = Acceptance(shop.parts.order_database, admission, lease=LEASE, clock=clock)  # who knows of no stock
    shop.exchange(admission=admission, acceptance=acceptance)


@pytest.fixture
def limited(shop: Shop) -> Shop:
    """The shop with its default limits."""
    limit(shop)
    return shop


async def slow_down(shop: Shop) -> None:
    for _ in range(MEASURED):
        await shop.parts.order_database.write(
            lambda session: shop.parts.admission.settled(session, "earlier", took=SLOW)
        )


async def metrics(shop: Shop) -> dict[str, float]:
    """The figures that a scrape reads, by name and labels."""
    lines = (await shop.client.get("/metrics")).text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ko", "주문이 많아 지금은 주문과 결제를 받을 수 없습니다. 잠시 후 다시 시도해 주세요."),
        ("en", "There are too many orders: orders and payments cannot be taken right now. Please try again shortly."),
    ],
)
async def test_the_fourth_payment_in_flight_is_refused_in_the_customers_language(
    shop: Shop, language: str, text: str
) -> None:
    limit(shop, HeldClock())  # so that nobody has waited for a second, however busy the machine
    for _ in range(3):
        await shop.ordered()
    refused = await shop.order({**HANEUL, "Accept-Language": language})
    assert is_problem(refused, 503, "order-intake-paused")["detail"] == text
    assert refused.headers["retry-after"] == "1"
    assert await shop.count() == 3


async def test_a_place_that_became_free_can_be_had_with_the_same_key(limited: Shop) -> None:
    first, *_ = [await limited.ordered() for _ in range(3)]
    headers = {**HANEUL, "Idempotency-Key": "patient"}
    is_problem(await limited.client.post("/orders", json=ORDER, headers=headers), 503, "order-intake-paused")
    await limited.record(first, PLACED, EventType.ORDER_PLACED)
    answer = await limited.client.post("/orders", json=ORDER, headers=headers)
    assert answer.status_code == 202
    assert "idempotent-replayed" not in answer.headers


async def test_a_hundred_requests_with_one_key_are_one_order_and_leave_room_for_others(limited: Shop) -> None:
    headers = {**MINJI, "Idempotency-Key": "once"}
    answers = await asyncio.gather(*(limited.client.post("/orders", json=ORDER, headers=headers) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["orderId"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 99
    assert (await limited.order(HANEUL)).status_code == 202


async def test_only_operators_see_the_intake(limited: Shop) -> None:
    is_problem(await limited.client.get("/admission", headers=MINJI), 403, "forbidden")
    is_problem(await limited.client.get("/admission"), 401, "unauthorized")


async def test_an_operator_reads_that_orders_are_taken(limited: Shop) -> None:
    assert (await limited.client.get("/admission", headers=OPERATOR)).json() == {
        "state": "open",
        "since": None,
        "pendingPayments": 0,
        "maxPendingPayments": 3,
        "oldestPendingPayment": None,
        "medianPaymentMs": None,
        "slowPaymentMs": 610,
        "trialAt": None,
        "trialOrderId": None,
        "retryAfterSeconds": None,
    }


async def test_an_operator_reads_which_payment_holds_everybody_up_and_makes_room_by_cancelling_it(
    limited: Shop,
) -> None:
    order_ids = [await limited.ordered() for _ in range(3)]
    orders = [(await limited.client.get(f"/orders/{order_id}", headers=OPERATOR)).json() for order_id in order_ids]
    found = (await limited.client.get("/admission", headers=OPERATOR)).json()
    assert (found["state"], found["pendingPayments"], found["retryAfterSeconds"]) == ("paymentsPending", 3, 1)
    assert found["since"] == orders[-1]["orderDate"]
    assert found["oldestPendingPayment"] == {"orderId": order_ids[0], "since": orders[0]["orderDate"]}

    await limited.record(order_ids[0], CANCELING, EventType.ORDER_CANCELING)
    assert (await limited.client.get("/admission", headers=OPERATOR)).json()["state"] == "open"
    await limited.ordered()


async def test_an_operator_reads_that_payments_are_slow(limited: Shop) -> None:
    await slow_down(limited)
    found = (await limited.client.get("/admission", headers=OPERATOR)).json()
    assert (found["state"], found["medianPaymentMs"], found["pendingPayments"]) == ("paymentsSlow", 2000, 0)
    opened, trial = (datetime.fromisoformat(found[name]) for name in ("since", "trialAt"))
    assert trial - opened == timedelta(seconds=5)
    refused = await limited.order()
    is_problem(refused, 503, "order-intake-paused")
    assert 1 <= int(refused.headers["retry-after"]) <= 5


async def test_the_metrics_tell_whether_orders_are_taken_and_why_not(limited: Shop) -> None:
    found = await metrics(limited)
    assert (found["street12_payments_pending"], found["street12_payments_pending_limit"]) == (0, 3)
    assert found['street12_admission_state{state="open"}'] == 1
    assert found["street12_payments_pending_oldest_seconds"] == 0

    for _ in range(3):
        await limited.ordered()
    for _ in range(2):
        await limited.order()
    await limited.order(qty=50, productId="none")
    found = await metrics(limited)
    assert found["street12_payments_pending"] == 3
    assert found['street12_admission_state{state="paymentsPending"}'] == 1
    assert found['street12_admission_state{state="open"}'] == 0
    assert found["street12_payments_pending_oldest_seconds"] > 0
    assert found["street12_admission_since_timestamp_seconds"] > 1e9
    assert found['street12_orders_refused_total{reason="paymentsPending"}'] == 2
    assert found['street12_orders_refused_total{reason="unknown-product"}'] == 1

    await slow_down(limited)
    found = await metrics(limited)
    assert found['street12_admission_state{state="paymentsSlow"}'] == 1
    assert found["street12_payment_median_seconds"] == 2
