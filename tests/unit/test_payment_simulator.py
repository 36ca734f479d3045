"""The payment simulator keeps Stripe's promises: one effect per key, no effect without its answer, none lost."""

import asyncio
import signal
import socket
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.payments import Dawdling, ledger_of, running_simulator, simulator_of_its_own, simulator_process

KEY = {"Authorization": "Bearer sk_test_shop"}


@dataclass(frozen=True)
class Reply:
    status: int
    replayed: bool
    json: dict[str, Any]

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


@dataclass(frozen=True)
class Wire:
    """What a Stripe client puts on the wire, without the client."""

    session: aiohttp.ClientSession
    url: str

    async def get(self, path: str) -> Reply:
        async with self.session.get(f"{self.url}{path}", headers=KEY) as reply:
            return await _read(reply)

    async def post(self, path: str, *, key: str | None = None, **form: str) -> Reply:
        headers = KEY | ({"Idempotency-Key": key} if key else {})
        async with self.session.post(f"{self.url}{path}", data=form, headers=headers) as reply:
            return await _read(reply)

    async def intent(
        self, order: str = "order_1", *, key: str | None = None, amount: str = "9000000", **form: str
    ) -> Reply:
        form = {"amount": amount, "currency": "krw", "metadata[order_id]": order, **form}
        return await self.post("/v1/payment_intents", key=key, **form)

    async def intent_id(self, order: str = "order_1") -> str:
        return (await self.intent(order)).json["id"]

    async def confirm(self, intent: str, method: str = "pm_card_visa", *, key: str | None = None) -> Reply:
        return await self.post(f"/v1/payment_intents/{intent}/confirm", key=key, payment_method=method)

    async def cancel(self, intent: str) -> Reply:
        return await self.post(f"/v1/payment_intents/{intent}/cancel")

    async def paid(self, order: str = "order_1", method: str = "pm_card_visa") -> str:
        intent = await self.intent_id(order)
        assert (await self.confirm(intent, method)).status == 200
        return intent

    async def refund(self, intent: str, *, key: str | None = None, **form: str) -> Reply:
        return await self.post("/v1/refunds", key=key, payment_intent=intent, **form)

    async def ledger(self) -> list[dict[str, Any]]:
        return await ledger_of(self.url)


async def _read(reply: aiohttp.ClientResponse) -> Reply:
    return Reply(reply.status, reply.headers.get("Idempotent-Replayed") == "true", await reply.json())


@asynccontextmanager
async def talking_to(url: str) -> AsyncGenerator[Wire]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield Wire(session, url)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "payments.db"


@pytest.fixture
def dawdling() -> Dawdling:
    return Dawdling()


@pytest.fixture
async def wire(ledger: Path, dawdling: Dawdling) -> AsyncGenerator[Wire]:
    async with running_simulator(ledger, dawdling) as url, talking_to(url) as wire:
        yield wire


def row(charged: int, refunded: int = 0, order: str = "order_1", charges: int = 1, refunds: int = 0) -> dict[str, Any]:
    times = {"charges": charges, "refunds": refunds or int(refunded > 0)}
    return {"orderId": order, "charged": charged, "refunded": refunded, "currency": "KRW", **times}


# Intents


async def test_a_new_intent_charges_nothing(wire: Wire) -> None:
    created = (await wire.intent()).json
    assert created["status"] == "requires_payment_method"
    assert (created["amount"], created["amount_received"], created["currency"]) == (9_000_000, 0, "krw")
    assert created["metadata"] == {"order_id": "order_1"}
    assert await wire.ledger() == []


async def test_a_confirmed_intent_charges_its_amount(wire: Wire) -> None:
    intent = await wire.intent_id()
    confirmed = (await wire.confirm(intent)).json
    assert (confirmed["status"], confirmed["amount_received"]) == ("succeeded", 9_000_000)
    assert (await wire.get(f"/v1/payment_intents/{intent}")).json == confirmed
    assert await wire.ledger() == [row(9_000_000)]


async def test_an_intent_can_be_created_and_confirmed_in_one_call(wire: Wire) -> None:
    created = await wire.intent(payment_method="pm_card_visa", confirm="true")
    assert created.json["status"] == "succeeded"
    assert await wire.ledger() == [row(9_000_000)]


async def test_the_ledger_sums_an_orders_intents_in_one_row(wire: Wire) -> None:
    first = await wire.paid()
    await wire.paid()
    await wire.paid("order_2")
    await wire.refund(first)
    assert await wire.ledger() == [row(18_000_000, 9_000_000, charges=2), row(9_000_000, order="order_2")]


async def test_an_intent_charges_once_whatever_keys_are_used(wire: Wire) -> None:
    intent = await wire.paid()
    again = await wire.confirm(intent, key="another")
    assert (again.status, again.error["code"]) == (400, "payment_intent_unexpected_state")
    assert again.error["payment_intent"]["status"] == "succeeded"
    assert await wire.ledger() == [row(9_000_000)]


async def test_a_cancelled_intent_is_never_charged(wire: Wire) -> None:
    intent = await wire.intent_id()
    assert (await wire.cancel(intent)).json["status"] == "canceled"
    refused = await wire.confirm(intent)
    assert (refused.status, refused.error["code"]) == (400, "payment_intent_unexpected_state")
    assert await wire.ledger() == []


async def test_a_charged_intent_cannot_be_cancelled(wire: Wire) -> None:
    intent = await wire.paid()
    refused = await wire.cancel(intent)
    assert (refused.status, refused.error["payment_intent"]["status"]) == (400, "succeeded")
    assert await wire.ledger() == [row(9_000_000)]


@pytest.mark.parametrize("amount", ["", "0", "-1", "1.5", "9e6", "٣", "100000000000"])
async def test_an_amount_is_a_positive_integer(wire: Wire, amount: str) -> None:
    refused = await wire.intent(amount=amount)
    assert (refused.status, refused.error["param"]) == (400, "amount")


async def test_what_does_not_exist_is_said_so_in_stripes_shape(wire: Wire) -> None:
    assert (await wire.get("/v1/payment_intents/pi_none")).error["code"] == "resource_missing"
    assert (await wire.get("/v1/nothing")).status == 404
    assert (await wire.get("/v1/nothing")).error["type"] == "invalid_request_error"


# Idempotency keys


async def test_one_key_makes_one_intent(wire: Wire) -> None:
    first, again = await wire.intent(key="k"), await wire.intent(key="k")
    assert again.json == first.json
    assert (first.replayed, again.replayed) == (False, True)


async def test_different_keys_make_different_intents(wire: Wire) -> None:
    assert (await wire.intent(key="k1")).json["id"] != (await wire.intent(key="k2")).json["id"]


async def test_a_key_gives_its_first_answer_even_after_the_world_has_moved_on(wire: Wire) -> None:
    first = await wire.intent(key="k")
    await wire.cancel(first.json["id"])
    assert (await wire.intent(key="k")).json == first.json


async def test_a_key_is_refused_with_other_parameters(wire: Wire) -> None:
    await wire.intent(key="k")
    refused = await wire.intent(key="k", amount="1")
    assert (refused.status, refused.error["type"]) == (400, "idempotency_error")


async def test_a_key_is_refused_on_another_path(wire: Wire) -> None:
    one, other = await wire.intent_id(), await wire.intent_id()
    await wire.confirm(one, key="k")
    refused = await wire.confirm(other, key="k")
    assert (refused.status, refused.error["type"]) == (400, "idempotency_error")


async def test_a_key_whose_request_is_still_executing_is_in_use(wire: Wire, dawdling: Dawdling) -> None:
    intent = await wire.intent_id()
    first = asyncio.create_task(wire.confirm(intent, "pm_sim_slow", key="k"))
    await dawdling.begun.wait()
    second = await wire.confirm(intent, "pm_sim_slow", key="k")
    assert (second.status, second.error["code"]) == (409, "idempotency_key_in_use")
    dawdling.may_end.set()
    assert (await first).status == 200
    assert (await wire.confirm(intent, "pm_sim_slow", key="k")).replayed
    assert await wire.ledger() == [row(9_000_000)]


async def test_what_fails_validation_is_not_kept_under_its_key(wire: Wire) -> None:
    intent = await wire.intent_id()
    unknown = await wire.confirm(intent, "pm_card_nobody", key="k")
    assert (unknown.status, unknown.error["code"], unknown.error["param"]) == (
        400,
        "resource_missing",
        "payment_method",
    )
    assert (await wire.confirm(intent, key="k")).status == 200


# Payment methods


@pytest.mark.parametrize(
    ("method", "decline_code"),
    [
        ("pm_card_chargeDeclined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
    ],
)
async def test_a_decline_charges_nothing_and_is_kept_under_its_key(wire: Wire, method: str, decline_code: str) -> None:
    intent = await wire.intent_id()
    declined = await wire.confirm(intent, method, key="k")
    assert (declined.status, declined.error["type"]) == (402, "card_error")
    assert (declined.error["code"], declined.error["decline_code"]) == ("card_declined", decline_code)
    assert declined.error["payment_intent"]["status"] == "requires_payment_method"
    again = await wire.confirm(intent, method, key="k")
    assert again.replayed
    assert again.json == declined.json
    assert await wire.ledger() == []


async def test_a_cancel_beats_a_slow_payment(wire: Wire, dawdling: Dawdling) -> None:
    intent = await wire.intent_id()
    confirming = asyncio.create_task(wire.confirm(intent, "pm_sim_slow"))
    await dawdling.begun.wait()
    assert (await wire.cancel(intent)).json["status"] == "canceled"
    dawdling.may_end.set()
    beaten = await confirming
    assert (beaten.status, beaten.error["code"]) == (400, "payment_intent_unexpected_state")
    assert await wire.ledger() == []


async def test_a_slow_payment_goes_on_when_its_caller_hangs_up(wire: Wire, dawdling: Dawdling) -> None:
    intent = await wire.intent_id()
    confirming = asyncio.create_task(wire.confirm(intent, "pm_sim_slow", key="k"))
    await dawdling.begun.wait()
    confirming.cancel()
    await asyncio.wait([confirming])
    dawdling.may_end.set()
    while (again := await wire.confirm(intent, "pm_sim_slow", key="k")).status == 409:
        pass
    assert (again.status, again.replayed) == (200, True)
    assert await wire.ledger() == [row(9_000_000)]


async def test_a_lost_reply_has_charged_and_is_answered_when_asked_again(wire: Wire) -> None:
    intent = await wire.intent_id()
    with pytest.raises(aiohttp.ClientError):
        await wire.confirm(intent, "pm_sim_lostReply", key="k")
    assert await wire.ledger() == [row(9_000_000)]
    again = await wire.confirm(intent, "pm_sim_lostReply", key="k")
    assert (again.json["status"], again.replayed) == ("succeeded", True)
    assert await wire.ledger() == [row(9_000_000)]


async def test_an_outage_ends_with_the_fourth_try_and_is_kept_under_no_key(wire: Wire) -> None:
    intent = await wire.intent_id()
    tries = [await wire.confirm(intent, "pm_sim_outage", key="k") for _ in range(4)]
    assert [(a_try.status, a_try.replayed) for a_try in tries] == [(500, False)] * 3 + [(200, False)]
    assert await wire.ledger() == [row(9_000_000)]


async def test_each_intent_has_its_own_outage(wire: Wire) -> None:
    one, other = await wire.intent_id(), await wire.intent_id()
    for _ in range(3):
        await wire.confirm(one, "pm_sim_outage")
    assert (await wire.confirm(other, "pm_sim_outage")).status == 500
    assert (await wire.confirm(one, "pm_sim_outage")).status == 200


# Refunds


async def test_a_refund_gives_back_all_that_was_charged(wire: Wire) -> None:
    refunded = await wire.refund(await wire.paid())
    assert (refunded.json["object"], refunded.json["amount"]) == ("refund", 9_000_000)
    assert await wire.ledger() == [row(9_000_000, 9_000_000)]


async def test_one_key_refunds_once(wire: Wire) -> None:
    intent = await wire.paid()
    first = await wire.refund(intent, key="k", amount="4000000")
    again = await wire.refund(intent, key="k", amount="4000000")
    assert again.replayed
    assert again.json == first.json
    assert await wire.ledger() == [row(9_000_000, 4_000_000)]


async def test_the_ledger_counts_an_orders_refunds(wire: Wire) -> None:
    intent = await wire.paid()
    for key in ("k1", "k2"):
        await wire.refund(intent, key=key, amount="4000000")
    assert await wire.ledger() == [row(9_000_000, 8_000_000, refunds=2)]


async def test_a_second_full_refund_is_refused_whatever_its_key(wire: Wire) -> None:
    intent = await wire.paid()
    await wire.refund(intent, key="k1")
    refused = await wire.refund(intent, key="k2")
    assert (refused.status, refused.error["code"]) == (400, "charge_already_refunded")
    assert await wire.ledger() == [row(9_000_000, 9_000_000)]


async def test_no_more_is_refunded_than_was_charged(wire: Wire) -> None:
    intent = await wire.paid()
    await wire.refund(intent, amount="1")
    refused = await wire.refund(intent, amount="9000000")
    assert (refused.status, refused.error["param"]) == (400, "amount")
    assert await wire.ledger() == [row(9_000_000, 1)]


async def test_what_was_not_charged_is_not_refunded(wire: Wire) -> None:
    refused = await wire.refund(await wire.intent_id())
    assert (refused.status, refused.error["code"]) == (400, "payment_intent_unexpected_state")


async def test_a_disputed_charge_is_not_refunded(wire: Wire) -> None:
    refused = await wire.refund(await wire.paid(method="pm_sim_refundRefused"))
    assert (refused.status, refused.error["code"]) == (400, "charge_disputed")
    assert await wire.ledger() == [row(9_000_000)]


# Who may ask


@pytest.mark.parametrize("authorization", ["", "Bearer pk_test_shop", "Basic !", "Digest sk_test_shop"])
async def test_only_a_secret_key_opens_the_door(wire: Wire, authorization: str) -> None:
    headers = {"Authorization": authorization}
    async with wire.session.get(f"{wire.url}/v1/payment_intents/pi_1", headers=headers) as reply:
        assert reply.status == 401


async def test_a_secret_key_may_also_be_a_basic_user_name(wire: Wire) -> None:
    basic = aiohttp.encode_basic_auth("sk_test_shop", "")
    url = f"{wire.url}/v1/payment_intents/{await wire.intent_id()}"
    async with wire.session.get(url, headers={"Authorization": basic}) as reply:
        assert reply.status == 200


async def test_its_health_is_open_to_all(wire: Wire) -> None:
    async with wire.session.get(f"{wire.url}/healthz") as reply:
        assert reply.status == 200


# The books


async def test_the_books_survive_a_restart(ledger: Path) -> None:
    async with running_simulator(ledger) as url, talking_to(url) as wire:
        intent = await wire.intent_id()
        before = await wire.confirm(intent, key="k")
    async with running_simulator(ledger) as url, talking_to(url) as wire:
        after = await wire.confirm(intent, key="k")
        assert after.replayed
        assert after.json == before.json
        assert await wire.ledger() == [row(9_000_000)]


async def test_an_outage_goes_on_after_a_restart_where_it_was(ledger: Path) -> None:
    async with running_simulator(ledger) as url, talking_to(url) as wire:
        intent = await wire.intent_id()
        before = [(await wire.confirm(intent, "pm_sim_outage")).status for _ in range(2)]
    async with running_simulator(ledger) as url, talking_to(url) as wire:
        after = [(await wire.confirm(intent, "pm_sim_outage")).status for _ in range(2)]
    assert before + after == [500, 500, 500, 200]


async def test_what_was_answered_survives_a_kill_in_the_middle_of_work(ledger: Path) -> None:
    answered: dict[str, Reply] = {}

    async def buy(wire: Wire, order: str) -> None:
        form = {"payment_method": "pm_card_visa", "confirm": "true"}
        answered[order] = await wire.intent(order, key=order, **form)

    orders = [f"order_{number:03}" for number in range(200)]
    async with simulator_of_its_own(ledger) as (process, url), talking_to(url) as wire:
        buying = [asyncio.create_task(buy(wire, order)) for order in orders]
        await asyncio.wait(buying[:20], return_when=asyncio.ALL_COMPLETED)
        process.kill()
        await asyncio.gather(*buying, return_exceptions=True)
    assert 20 <= len(answered) < len(orders), "the kill was to come in the middle"

    async with simulator_of_its_own(ledger) as (_, url), talking_to(url) as wire:
        kept = {entry["orderId"] for entry in await wire.ledger()}
        assert kept >= answered.keys()
        for order, first in answered.items():
            await buy(wire, order)
            assert answered[order].json == first.json
        for order in orders:
            await buy(wire, order)
        assert await wire.ledger() == [row(9_000_000, order=order) for order in orders]


@pytest.mark.parametrize("written", ["INSERT ON answers", "UPDATE ON intents"])
async def test_books_that_cannot_be_written_charge_nothing(wire: Wire, ledger: Path, written: str) -> None:
    intent = await wire.intent_id()
    with sqlite3.connect(ledger) as saboteur:
        saboteur.execute(f"CREATE TRIGGER full BEFORE {written} BEGIN SELECT RAISE(FAIL, 'full'); END")
    failed = await wire.confirm(intent, key="k")
    assert (failed.status, failed.error["type"]) == (500, "api_error")
    assert await wire.ledger() == []
    with sqlite3.connect(ledger) as saboteur:
        saboteur.execute("DROP TRIGGER full")
    saboteur.close()
    assert (await wire.confirm(intent, key="k")).json["status"] == "succeeded"
    assert await wire.ledger() == [row(9_000_000)]


# The process


async def test_sigterm_stops_it_cleanly(ledger: Path) -> None:
    async with simulator_of_its_own(ledger) as (process, _):
        process.send_signal(signal.SIGTERM)
        _, complaint = await asyncio.wait_for(process.communicate(), timeout=10)
        assert (process.returncode, complaint) == (0, b"")


async def _refusal_to_start(*arguments: str) -> str:
    process = await simulator_process(*arguments)
    said, complaint = await process.communicate()
    assert (process.returncode, said) == (1, b"")
    assert complaint.count(b"\n") == 1, "one sentence"
    return complaint.decode()


async def test_a_taken_port_is_one_clear_sentence(ledger: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1:{port}" in await _refusal_to_start("--port", port, "--ledger", str(ledger))


@pytest.fixture
def shopping_list(tmp_path: Path) -> Path:
    path = tmp_path / "shopping list"
    path.write_text("milk, bread\n" * 100)
    return path


async def test_a_file_that_is_no_database_is_one_clear_sentence(shopping_list: Path) -> None:
    complaint = await _refusal_to_start("--port", "0", "--ledger", str(shopping_list))
    assert f"{shopping_list} is not a payment ledger" in complaint


async def test_another_programs_database_is_left_alone(ledger: Path) -> None:
    other = sqlite3.connect(ledger)
    other.execute("CREATE TABLE orders (id TEXT)")
    assert "another database" in await _refusal_to_start("--port", "0", "--ledger", str(ledger))
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("orders",)]
    other.close()


async def test_a_folder_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ledger = tmp_path / "file" / "payments.db"
    assert str(ledger) in await _refusal_to_start("--port", "0", "--ledger", str(ledger))


# The list


async def test_the_list_goes_back_in_time_page_by_page(wire: Wire) -> None:
    made = {await wire.intent_id(f"order_{number}") for number in range(7)}
    seen: list[str] = []
    more, after = True, ""
    while more:
        page = (await wire.get(f"/v1/payment_intents?limit=3{after}")).json
        assert (page["object"], page["url"]) == ("list", "/v1/payment_intents")
        assert len(page["data"]) <= 3
        seen += [intent["id"] for intent in page["data"]]
        more, after = page["has_more"], f"&starting_after={seen[-1]}"
    assert len(seen) == 7
    assert set(seen) == made


async def test_the_list_is_of_a_time(wire: Wire) -> None:
    created = (await wire.intent()).json["created"]
    for query, count in (
        (f"created[gte]={created}&created[lt]={created + 1}", 1),
        (f"created[gte]={created + 1}", 0),
        (f"created[lt]={created}", 0),
    ):
        assert len((await wire.get(f"/v1/payment_intents?{query}")).json["data"]) == count


async def test_a_charge_is_shown_in_full_where_that_is_asked_for(wire: Wire) -> None:
    intent = await wire.paid()
    await wire.refund(intent, amount="1")
    plain = (await wire.get("/v1/payment_intents")).json["data"][0]
    [full] = (await wire.get("/v1/payment_intents?expand[0]=data.latest_charge")).json["data"]
    one = (await wire.get(f"/v1/payment_intents/{intent}?expand[]=latest_charge")).json
    assert plain["latest_charge"] == full["latest_charge"]["id"]
    assert full == one
    assert (full["latest_charge"]["amount_refunded"], full["latest_charge"]["refunded"]) == (1, False)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "created[gte]=-1"])
async def test_the_list_refuses_what_stripe_refuses(wire: Wire, query: str) -> None:
    refused = await wire.get(f"/v1/payment_intents?{query}")
    assert (refused.status, refused.error["code"]) == (400, "parameter_invalid_integer")


async def test_the_list_goes_on_behind_nothing_that_it_does_not_know(wire: Wire) -> None:
    refused = await wire.get("/v1/payment_intents?starting_after=pi_nothing")
    assert (refused.status, refused.error["code"]) == (404, "resource_missing")
