"""The audit of a real shop: green on orders of every kind, red for a breach in one team's database."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

from sqlmodel import col, update

from deploy.local import ROOT
from deploy.stack import Stack
from services.marketing.tables import Coupon
from services.shared.clock import utc_now
from services.shared.database import Database
from services.shared.settings import TEAMS, Team
from tests.audit.acknowledgements import Acknowledgements
from tests.audit.invariants import INVARIANTS
from tests.e2e.shop import OPERATOR, Order, Shop, Wish, eventually


async def run_audit(data_dir: Path, *options: str, **environment: str) -> tuple[int, str]:
    """The command's exit status, and what it printed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("STREET12_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.audit", *options),
        cwd=ROOT,
        env={**own, "COLUMNS": "250", "STREET12_DATA_DIR": str(data_dir), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode() + err.decode()


def url_of(team: Team) -> str:
    return f"STREET12_{team.upper()}_DATABASE_URL"


COUPONS = url_of("marketing")


def database_url(shop: Shop, team: Team) -> str:
    """Where a team's database is, as its worker was told."""
    environment = Path(f"/proc/{shop.pid(f'worker-{team}')}/environ").read_text().split("\0")
    return dict(setting.split("=", 1) for setting in environment if "=" in setting)[url_of(team)]


async def orders_of_every_kind(shop: Shop, log: Acknowledgements) -> dict[str, Order]:
    """One that is sent, one delivered, cancelled, declined, one whose refund is stuck, and one that was given up."""
    product = await shop.product(on_hand=50)

    async def placed(pay: str, status: str) -> Order:
        wish = Wish(product, 2, "audited", pay)
        order = await shop.place(wish)
        log.accepted(
            order.orderId,
            user=wish.user,
            product_id=product,
            qty=wish.qty,
            amount=order.amount,
            key=wish.key,
            status=202,
        )
        return await shop.until(order.orderId, status)

    kinds: dict[str, tuple[str, str]] = {
        "sent": ("pm_card_visa", "DeliveryStarted"),
        "delivered": ("pm_sim_lostReply", "DeliveryStarted"),
        "canceled": ("pm_card_visa", "DeliveryStarted"),
        "stuck": ("pm_sim_refundRefused", "DeliveryStarted"),
        "skipped": ("pm_sim_refundRefused", "DeliveryStarted"),
        "declined": ("pm_card_chargeDeclined", "PaymentDeclined"),
    }
    found = await asyncio.gather(*(placed(pay, status) for pay, status in kinds.values()))
    orders = dict(zip(kinds, found, strict=True))
    assert (await shop.deliver(orders["delivered"].orderId)).status_code == 202
    log.delivered(orders["delivered"].orderId)
    for kind in ("canceled", "stuck", "skipped"):
        await shop.cancel(orders[kind])
        log.cancel(orders[kind].orderId)
    for kind in ("stuck", "skipped"):
        await eventually(attention(shop, orders[kind]), f"the refund of the order to be {kind} to need attention")
    settlement = {"step": "refund_payment", "action": "skip", "reason": "paid in cash"}
    answer = await shop.http.post(f"/orders/{orders['skipped'].orderId}/settlements", json=settlement, headers=OPERATOR)
    answer.raise_for_status()
    for kind, status in {"delivered": "Delivered", "canceled": "OrderCanceled", "skipped": "OrderCanceled"}.items():
        await shop.until(orders[kind].orderId, status)
    for order in orders.values():
        now = (await shop.http.get(f"/orders/{order.orderId}", headers=OPERATOR)).raise_for_status().json()
        log.shown(order.orderId, now["version"], now["orderStatus"])
    return orders


def attention(shop: Shop, order: Order) -> Callable[[], Awaitable[bool]]:
    async def needed() -> bool:
        return (await shop.order(order.orderId)).needsAttention

    return needed


async def test_an_audit_finds_what_is_wrong_with_a_shop_and_nothing_else(shop: Shop, tmp_path: Path) -> None:
    told, url = tmp_path / "told.jsonl", database_url(shop, "marketing")
    with Acknowledgements(told) as log:
        orders = await orders_of_every_kind(shop, log)

    options = ("--acknowledgements", str(told))
    status, said = await run_audit(shop.data_dir, *options, **{COUPONS: url})
    assert (status, "Every promise is kept." in said) == (0, True), said
    assert [invariant.name for invariant in INVARIANTS if invariant.name not in said] == []
    assert f"excused: what stands of OrderCanceled: {orders['skipped'].orderId}: " in said

    order_id = orders["delivered"].orderId
    await set_revoked(url, order_id, utc_now())
    try:
        status, said = await run_audit(shop.data_dir, *options, **{COUPONS: url})
    finally:
        await set_revoked(url, order_id, None)
    breaches = [line for line in said.splitlines() if line.startswith("breaches: ")]
    wrong = "Delivered, and nothing stands of issue_coupon"
    assert (status, breaches) == (1, [f"breaches: what stands of Delivered: {order_id}: {wrong}"]), said


async def test_an_audit_says_which_source_it_could_not_read(shop: Shop, tmp_path: Path) -> None:
    assert await run_audit(tmp_path) == (2, f"street12: No shop runs on {tmp_path}: start one with `make run`.\n")

    nowhere, coupons = tmp_path / "nowhere.db", {COUPONS: database_url(shop, "marketing")}
    missing = f"The marketing team's database (sqlite+aiosqlite:///{nowhere}) is not there: set {COUPONS}"
    await assert_silent(shop.data_dir, missing, **{COUPONS: f"sqlite+aiosqlite:///{nowhere}"})
    assert not nowhere.exists()
    empty = tmp_path / "empty.db"
    empty.touch()
    unreadable = f"The marketing team's database (sqlite+aiosqlite:///{empty}) cannot be read"
    await assert_silent(shop.data_dir, unreadable, **{COUPONS: f"sqlite+aiosqlite:///{empty}"})

    log = tmp_path / "told.jsonl"
    await assert_silent(shop.data_dir, f"The log {log} cannot be read", "--acknowledgements", str(log), **coupons)
    log.write_text("{}\n")
    await assert_silent(shop.data_dir, f"{log}, line 1, is no", "--acknowledgements", str(log), **coupons)

    urls = {url_of(team): database_url(shop, team) for team in TEAMS}
    running = Stack.read(shop.data_dir)
    for changed, what in {
        "temporal": "The Temporal server at",
        "payments": "The payment simulator's ledger at",
    }.items():
        dead = {"temporal": "127.0.0.1:1", "payments": "http://127.0.0.1:1"}[changed]
        Stack(urls=running.urls.model_copy(update={changed: dead}), processes={}).write(tmp_path)
        await assert_silent(tmp_path, f"{what} {dead}", **urls)


async def assert_silent(data_dir: Path, why: str, *options: str, **environment: str) -> None:
    """The audit could not tell, and says why in one sentence."""
    status, said = await run_audit(data_dir, *options, **environment)
    assert (status, said.startswith(f"street12: {why}"), said.count("\n")) == (2, True, 1), said


async def set_revoked(url: str, order_id: str, at: datetime | None) -> None:
    """Behind the marketing team's back."""
    database = Database(url)
    statement = update(Coupon).where(col(Coupon.order_id) == order_id).values(revoked_at=at)
    try:
        await database.write(lambda session: session.exec(statement))
    finally:
        await database.close()
