"""A fault of each kind, planted in a real shop's books, is found, named, and repaired or handed to a person."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from services.delivery.stock import Warehouse
from services.order.comparison import Code
from services.order.statuses import OrderStatus
from tests.engines import real_engine
from tests.reconciliation.shop import AMOUNT, PRODUCT, QTY, Shop, a_shop

SENT, ARRIVED, UNDONE = OrderStatus.DELIVERY_STARTED, OrderStatus.DELIVERED, OrderStatus.ORDER_CANCELED


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Shop]:
    directory: Path = tmp_path_factory.mktemp("shop")
    async with real_engine() as environment, a_shop(environment.client, directory) as shop:
        yield shop


Plant = Callable[[Shop, str], Awaitable[None]]


def order_sql(statement: str) -> Plant:
    return lambda shop, order_id: shop.sql(shop.teams.orders, statement, order_id=order_id)


def delivery_sql(*statements: str) -> Plant:
    async def plant(shop: Shop, order_id: str) -> None:
        for statement in statements:
            await shop.sql(shop.teams.delivery, statement, **{"order_id": order_id} if ":order_id" in statement else {})

    return plant


def coupon_sql(statement: str) -> Plant:
    return lambda shop, order_id: shop.sql(shop.teams.marketing, statement, order_id=order_id)


def ledger(statement: str) -> Plant:
    async def plant(shop: Shop, order_id: str) -> None:
        shop.spoil_ledger(statement, order_id)

    return plant


async def terminated(shop: Shop, order_id: str) -> None:
    await shop.client.get_workflow_handle(order_id).terminate("in the middle of the night")


async def charged_again(shop: Shop, order_id: str) -> None:
    shop.forget_keys(order_id)  # of the provider's, by which it would know its first charge
    await shop.charge(order_id)


async def refunded(shop: Shop, order_id: str) -> None:
    await shop.provider.refund(order_id=order_id, intent_id=shop.intent_of(order_id), amount=AMOUNT)


TAKE_BACK = f"UPDATE stock SET on_hand = on_hand + {QTY}"
PLANTS: dict[Code, tuple[OrderStatus, Plant, str]] = {
    Code.WORKFLOW_MISSING: (SENT, lambda shop, order_id: shop.forget_workflow(order_id), "repaired"),
    Code.WORKFLOW_STOPPED: (SENT, terminated, "repaired"),
    Code.VIEW_BEHIND: (
        ARRIVED,
        order_sql(
            "UPDATE order_views SET order_status = 'OrderPlaced', version = 2, delivery_status = 'None'"
            " WHERE order_id = :order_id"
        ),
        "repaired",
    ),
    Code.PAYMENT_MISSING: (
        ARRIVED, order_sql("UPDATE payments SET state = 'Pending' WHERE order_id = :order_id"), "flagged",
    ),
    Code.PAYMENT_DISAGREES: (
        UNDONE, order_sql("UPDATE payments SET state = 'Voided' WHERE order_id = :order_id"), "flagged",
    ),
    Code.CHARGED_THOUGH_CANCELED: (UNDONE, ledger("refunded = 0"), "flagged"),
    Code.CHARGED_ANOTHER_AMOUNT: (SENT, ledger("amount = amount + 1, charged = charged + 1"), "flagged"),
    Code.CHARGED_TWICE: (SENT, charged_again, "flagged"),
    Code.REFUNDED_THOUGH_STANDING: (ARRIVED, refunded, "flagged"),
    Code.COUPON_THOUGH_CANCELED: (
        UNDONE, coupon_sql("UPDATE coupons SET revoked_at = NULL WHERE order_id = :order_id"), "flagged",
    ),
    Code.COUPON_MISSING: (SENT, coupon_sql("DELETE FROM coupons WHERE order_id = :order_id"), "flagged"),
    Code.DELIVERY_THOUGH_CANCELED: (
        UNDONE, delivery_sql("UPDATE deliveries SET state = 'Started' WHERE order_id = :order_id"), "flagged",
    ),
    Code.DELIVERY_MISSING: (ARRIVED, delivery_sql("DELETE FROM deliveries WHERE order_id = :order_id"), "flagged"),
    Code.DELIVERY_DIFFERS: (
        SENT, delivery_sql("UPDATE deliveries SET qty = 3 WHERE order_id = :order_id"), "flagged",
    ),
    Code.ARRIVAL_NOT_NOTED: (
        ARRIVED, delivery_sql("UPDATE deliveries SET state = 'Started' WHERE order_id = :order_id"), "flagged",
    ),
    Code.STOCK_NOT_SOLD: (
        SENT, delivery_sql("DELETE FROM stock_movements WHERE reference = :order_id", TAKE_BACK), "flagged",
    ),
    Code.STOCK_NOT_RESTORED: (
        UNDONE,
        delivery_sql(
            "DELETE FROM stock_movements WHERE reference = :order_id AND kind = 'restore'",
            f"UPDATE stock SET on_hand = on_hand - {QTY}",
        ),
        "flagged",
    ),
    Code.STOCK_SOLD_WRONGLY: (
        ARRIVED,
        delivery_sql(
            "UPDATE stock_movements SET qty = qty - 1 WHERE reference = :order_id",
            "UPDATE stock SET on_hand = on_hand - 1",
        ),
        "flagged",
    ),
    Code.CHARGE_NOT_NOTED: (
        OrderStatus.PAYMENT_DECLINED,
        lambda shop, order_id: charged_without_a_payment(shop, order_id),
        "flagged",
    ),
}  # fmt: skip
"""In which state an order is spoilt how, and what becomes of that."""
OPEN_AGAIN = {Code.ARRIVAL_NOT_NOTED}
"""Gone once a person was called: the order's workflow is open again, and has noted the arrival."""


async def charged_without_a_payment(shop: Shop, order_id: str) -> None:
    await shop.sql(
        shop.teams.orders, "UPDATE payments SET intent_id = NULL WHERE order_id = :order_id", order_id=order_id
    )
    await charged_again(shop, order_id)


async def orderless(shop: Shop) -> str:
    """An order that all but the order team know."""
    order_id = await shop.order(SENT)
    for table in ("orders", "order_views", "order_events", "payments"):
        await shop.sql(shop.teams.orders, f"DELETE FROM {table} WHERE order_id = :order_id", order_id=order_id)
    return order_id


async def every_state(shop: Shop) -> list[str]:
    """A sound order in each state in which one rests."""
    return [
        await shop.order(SENT),
        await shop.order(ARRIVED),
        await shop.order(UNDONE),
        await shop.order(OrderStatus.PAYMENT_DECLINED, "pm_card_chargeDeclined"),
    ]


async def test_a_sound_shop_has_no_differences(shop: Shop) -> None:
    orders = await every_state(shop)
    run, found = await shop.reconcile()
    assert [(one.code, one.order_id, one.detail) for one in found] == []
    assert (run.compared, run.found, run.repaired, run.not_compared) == (len(orders), 0, 0, [])
    assert run.finished_at is not None


async def test_each_planted_fault_is_found_named_and_dealt_with_once(shop: Shop) -> None:
    sound = await every_state(shop)
    planted: dict[Code, str] = {}
    for code, (status, plant, _) in PLANTS.items():
        method = "pm_card_chargeDeclined" if status is OrderStatus.PAYMENT_DECLINED else "pm_card_visa"
        planted[code] = await shop.order(status, method)
        await plant(shop, planted[code])
    ghost = await orderless(shop)
    await shop.sql(shop.teams.delivery, "UPDATE stock SET on_hand = on_hand + 1")

    run, found = await shop.reconcile()
    expected = {(str(code), planted[code], None, outcome) for code, (_, _, outcome) in PLANTS.items()} | {
        (str(Code.WORKFLOW_WITHOUT_ORDER), ghost, None, "reported"),
        (str(Code.EFFECTS_WITHOUT_ORDER), ghost, None, "reported"),
        (str(Code.CHARGE_WITHOUT_ORDER), ghost, None, "reported"),
        (str(Code.STOCK_NOT_THE_SUM), None, PRODUCT, "reported"),
    }
    assert {(one.code, one.order_id, one.product_id, one.outcome) for one in found} == expected
    assert len(found) == len(expected) == run.found
    assert run.repaired == 3
    assert not {one.order_id for one in found} & set(sound)

    # What was put right.
    stopped, missing, behind = (
        planted[code] for code in (Code.WORKFLOW_STOPPED, Code.WORKFLOW_MISSING, Code.VIEW_BEHIND)
    )
    await shop.reads(stopped, UNDONE)
    assert await shop.teams.standing(stopped) == set()
    await shop.reads(missing, SENT)
    await shop.engine.delivered(missing)
    await shop.reads(missing, ARRIVED)
    assert (await shop.book.get(behind)).view.order_status == ARRIVED

    # Who was called, and only once.
    flagged = {code for code, (_, _, outcome) in PLANTS.items() if outcome == "flagged"}
    for code in flagged:
        await shop.until(planted[code], lambda view: view.needs_attention)
    _, again = await shop.reconcile()
    assert {(one.code, one.outcome) for one in again} == {
        *((str(code), "known") for code in flagged - OPEN_AGAIN),
        *((str(code), "reported") for code in (Code.WORKFLOW_WITHOUT_ORDER, Code.EFFECTS_WITHOUT_ORDER)),
        *((str(code), "reported") for code in (Code.CHARGE_WITHOUT_ORDER, Code.STOCK_NOT_THE_SUM)),
    }
    for code in flagged:
        events = await shop.book.timeline(planted[code])
        raised = [event for event in events if event.type == "AttentionRaised" and event.detail["about"] == code]
        assert len(raised) == 1
    assert await Warehouse(shop.teams.delivery).on_hand(PRODUCT) >= 0


async def test_every_code_is_planted() -> None:
    elsewhere = {
        *(Code.WORKFLOW_WITHOUT_ORDER, Code.EFFECTS_WITHOUT_ORDER, Code.CHARGE_WITHOUT_ORDER, Code.STOCK_NOT_THE_SUM),
        Code.VIEW_AHEAD,
    }
    assert PLANTS.keys() | elsewhere == set(Code)
