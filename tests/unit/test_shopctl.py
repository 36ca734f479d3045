"""The command line says what the shop said, to people and to programs, and its exit status tells how it went."""

import getpass
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from deploy.local import ROOT
from deploy.shopctl import app
from tests.fakeshop import FakeShop, Reply, events, problem, running_fake_shop

ORDER_ID = "order_01h455vb4pex5vsknk084sn02q"
ORDER: dict[str, Any] = {
    "orderId": ORDER_ID,
    "orderStatus": "OrderPlaced",
    "payStatus": "Paid",
    "cancelReason": None,
    "needsAttention": False,
    "productName": "기계식 키보드",
    "productPrice": 159000,
    "qty": 2,
    "amount": 318000,
    "currency": "KRW",
    "userId": "minji",
    "username": "김민지",
    "updatedAt": "2026-03-01T03:04:05.678901Z",
    "version": 2,
}
PRODUCT = {"productId": "1001", "productName": "기계식 키보드", "productPrice": 159000, "currency": "KRW"}
EVENT = {"version": 1, "type": "OrderReceived", "at": "2026-03-01T03:04:05.678901Z", "detail": {"reason": "gift"}}
ORDERS = {"items": [ORDER], "nextCursor": None}
STOCK = {"productId": "1001", "onHand": 7}


@pytest.fixture
def fake() -> Generator[FakeShop]:
    with running_fake_shop() as fake:
        fake.will("GET /products", {"items": [PRODUCT]})
        fake.will("GET /stocks/1001", STOCK)
        fake.will("POST /stocks/1001/movements", Reply(201, STOCK))
        fake.will("POST /orders", Reply(202, ORDER))
        fake.will("GET /orders?limit=20", ORDERS)
        fake.will("GET /orders?limit=5&orderStatus=OrderPlaced", ORDERS)
        fake.will("GET /orders?needsAttention=true&limit=100", ORDERS)
        fake.will("GET /admission", {"state": "open", "pendingPayments": 1, "oldestPendingPayment": {"orderId": "o1"}})
        fake.will(f"GET /orders/{ORDER_ID}", ORDER)
        fake.will(f"GET /orders/{ORDER_ID}/events", {"items": [EVENT]})
        fake.will(f"POST /orders/{ORDER_ID}/cancel", Reply(202, ORDER))
        fake.will(f"POST /orders/{ORDER_ID}/settlements", Reply(202, ORDER))
        fake.will(f"POST /orders/{ORDER_ID}/waivers", Reply(202, ORDER))
        fake.will(f"POST /orders/{ORDER_ID}/clearances", Reply(202, ORDER))
        fake.will(f"POST /deliveries/{ORDER_ID}/events", Reply(202, {"orderId": ORDER_ID}))
        yield fake


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    for name in ("STREET12_TOKEN", "STREET12_API_URL", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)


def shopctl(fake: FakeShop, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--api", fake.url])


@pytest.mark.parametrize(
    ("arguments", "call", "token", "body"),
    [
        (["products"], "GET /products", None, None),
        (["products", "--stock", "--as", "op"], "GET /stocks/1001", "operator:op", None),
        (["orders", "--as", "minji"], "GET /orders?limit=20", "customer:minji", None),
        (
            ["orders", "--status", "OrderPlaced", "--limit", "5", "--as", "minji"],
            "GET /orders?limit=5&orderStatus=OrderPlaced",
            "customer:minji",
            None,
        ),
        (["show", ORDER_ID, "--as", "minji"], f"GET /orders/{ORDER_ID}/events", "customer:minji", None),
        (["cancel", ORDER_ID, "--as", "minji"], f"POST /orders/{ORDER_ID}/cancel", "customer:minji", None),
        (["admission", "--as", "op"], "GET /admission", "operator:op", None),
        (["attention", "--as", "op"], "GET /orders?needsAttention=true&limit=100", "operator:op", None),
        (
            ["restock", "1001", "5", "--as", "op"],
            "POST /stocks/1001/movements",
            "operator:op",
            {"qty": 5, "reason": "restock"},
        ),
        (
            ["restock", "1001", "--reason", "broken", "--as", "op", "--", "-5"],
            "POST /stocks/1001/movements",
            "operator:op",
            {"qty": -5, "reason": "broken"},
        ),
        (
            ["settle", ORDER_ID, "refund_payment", "skip", "--reason", "by hand", "--as", "op"],
            f"POST /orders/{ORDER_ID}/settlements",
            "operator:op",
            {"step": "refund_payment", "action": "skip", "reason": "by hand"},
        ),
        (
            ["cancel", ORDER_ID, "--reason", "lost at sea"],
            f"POST /orders/{ORDER_ID}/cancel",
            f"operator:{getpass.getuser()}",
            {"reason": "lost at sea"},
        ),
        (
            ["waive", ORDER_ID, "--reason", "away", "--as", "op"],
            f"POST /orders/{ORDER_ID}/waivers",
            "operator:op",
            {"reason": "away"},
        ),
        (
            ["clear", ORDER_ID, "--reason", "seen to", "--about", "pay_order", "--as", "op"],
            f"POST /orders/{ORDER_ID}/clearances",
            "operator:op",
            {"reason": "seen to", "about": "pay_order"},
        ),
        (
            ["deliver", ORDER_ID, "--as", "cj"],
            f"POST /deliveries/{ORDER_ID}/events",
            "carrier:cj",
            {"event": "Delivered"},
        ),
        (
            [
                "order",
                "1001",
                "--qty",
                "2",
                "--pay",
                "pm_x",
                "--name",
                "김",
                "--address",
                "서울",
                "--phone",
                "01",
                "--as",
                "m",
            ],
            "POST /orders",
            "customer:m",
            {
                "productId": "1001",
                "qty": 2,
                "username": "김",
                "address": "서울",
                "phoneNo": "01",
                "paymentMethod": "pm_x",
            },
        ),
    ],
)
def test_a_command_makes_its_call_in_the_right_name(
    arguments: list[str], call: str, token: str | None, body: Any, fake: FakeShop
) -> None:
    if "--" in arguments:
        at = arguments.index("--")
        arguments = [*arguments[:at], "--api", fake.url, *arguments[at:]]
        result = CliRunner().invoke(app, arguments)
    else:
        result = shopctl(fake, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    [asked] = fake.asked_for(call)
    assert (asked.token, asked.body) == (token, body)


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        (["products"], {"items": [PRODUCT]}),
        (["products", "--stock"], {"items": [PRODUCT | {"onHand": 7}]}),
        (["order", "1001"], ORDER),
        (["orders"], ORDERS),
        (["show", ORDER_ID], ORDER | {"events": [EVENT]}),
        (["cancel", ORDER_ID], ORDER),
        (["restock", "1001", "5"], STOCK),
        (["attention"], ORDERS),
        (["settle", ORDER_ID, "refund_payment", "retry", "--reason", "x"], ORDER),
        (["deliver", ORDER_ID], {"orderId": ORDER_ID}),
        (["token", "--as", "op"], {"accessToken": "customer:op", "tokenType": "Bearer", "expiresIn": 3600}),
    ],
)
def test_programs_get_the_json_of_the_api_and_people_do_not(
    command: list[str], printed: dict[str, Any], fake: FakeShop
) -> None:
    as_json = shopctl(fake, *command, "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (0, printed)
    for_people = shopctl(fake, *command)
    assert for_people.exit_code == 0
    with pytest.raises(json.JSONDecodeError):
        json.loads(for_people.stdout)


def test_without_a_name_orders_are_read_and_cancelled_as_an_operator(fake: FakeShop) -> None:
    shopctl(fake, "cancel", ORDER_ID)
    [asked] = fake.asked_for(f"POST /orders/{ORDER_ID}/cancel")
    assert str(asked.token).startswith("operator:")


def test_a_cancel_can_depend_on_the_version(fake: FakeShop) -> None:
    shopctl(fake, "cancel", ORDER_ID, "--if-version", "2")
    [asked] = fake.asked_for(f"POST /orders/{ORDER_ID}/cancel")
    assert asked.headers["If-Match"] == '"v2"'


@pytest.mark.parametrize("command", [["order", "1001"], ["restock", "1001", "5"]])
def test_each_order_and_each_restock_has_a_key_of_its_own_unless_one_is_given(
    command: list[str], fake: FakeShop
) -> None:
    shopctl(fake, *command)
    shopctl(fake, *command)
    shopctl(fake, *command, "--key", "mine")
    keys = [one.headers["Idempotency-Key"] for one in fake.asked if "Idempotency-Key" in one.headers]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


def test_an_order_waits_for_its_payment_when_asked_to(fake: FakeShop) -> None:
    shopctl(fake, "order", "1001", "--wait", "3")
    [asked] = fake.asked_for("POST /orders")
    assert asked.headers["Prefer"] == "wait=3"


def test_an_order_that_its_key_had_placed_before_is_said_to_be_that(fake: FakeShop) -> None:
    fake.will("POST /orders", Reply(202, ORDER, {"Idempotent-Replayed": "true"}))
    result = shopctl(fake, "order", "1001", "--key", "k1", "--json")
    assert json.loads(result.stdout) == ORDER
    assert "k1 had placed this order before" in result.stderr


def test_a_declined_order_is_refused_and_named(fake: FakeShop) -> None:
    fake.will("POST /orders", problem(402, "payment-declined", Location=f"/orders/{ORDER_ID}"))
    result = shopctl(fake, "order", "1001", "--wait", "3")
    assert result.exit_code == 1
    assert ORDER_ID in result.stderr


def test_a_shop_that_takes_no_orders_is_asked_again_under_the_same_key(fake: FakeShop) -> None:
    fake.will("POST /orders", problem(503, "order-intake-paused", "Too many.", Retry_After=0), Reply(202, ORDER))
    result = shopctl(fake, "order", "1001", "--json", "--key", "k1")
    assert (result.exit_code, json.loads(result.stdout)) == (0, ORDER)
    assert result.stderr == "Too many. It is sent again in 0 s, with the same Idempotency-Key k1.\n"
    assert [one.headers["Idempotency-Key"] for one in fake.asked_for("POST /orders")] == ["k1", "k1"]


def test_a_watched_order_is_told_event_by_event_until_its_end(fake: FakeShop) -> None:
    both = events((1, "OrderReceived"), (2, "PaymentDeclined"))
    fake.will(f"GET /orders/{ORDER_ID}/events", both, Reply(204), both, Reply(204))
    for_people = shopctl(fake, "watch", ORDER_ID)
    assert [line.split()[2] for line in for_people.stdout.splitlines()] == ["OrderReceived", "PaymentDeclined"]
    as_json = shopctl(fake, "watch", ORDER_ID, "--json")
    assert [json.loads(line)["version"] for line in as_json.stdout.splitlines()] == [1, 2]
    assert (for_people.exit_code, as_json.exit_code) == (0, 0)


def test_a_refusal_is_told_with_its_code_its_request_and_its_fields(fake: FakeShop) -> None:
    wrong = [{"in": "body", "pointer": "/phoneNo", "detail": "No phone number."}]
    fake.will("POST /orders", problem(422, "invalid-request", "The request has invalid values.", errors=wrong))
    result = shopctl(fake, "order", "1001")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "street12: The request has invalid values.",
        "  (422 invalid-request, request r1)",
        "  body /phoneNo: No phone number.",
    ]


def test_programs_get_the_problem_itself_beside_their_output(fake: FakeShop) -> None:
    result = shopctl(fake, "show", "order_of_somebody_else", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr)["code"] == "not-found"


@pytest.mark.parametrize(
    "wrong",
    [
        ["no-such-command"],
        ["order"],
        ["order", "1001", "--qty", "many"],
        ["order", "1001", "--wait", "31"],
        ["order", "1001", "--key", "열쇠"],
        ["order", "1001", "--key", " "],
        ["order", "1001", "--token", "a\nb"],
        ["settle", ORDER_ID, "refund_payment", "forget", "--reason", "x"],
        ["settle", ORDER_ID, "refund_payment", "skip"],
        ["token", "--role", "boss"],
        ["cancel", ORDER_ID, "--as", "minji", "--token", "own"],
    ],
)
def test_what_is_no_command_is_wrong_use_and_asks_nobody(wrong: list[str], fake: FakeShop) -> None:
    result = shopctl(fake, *wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    assert fake.asked == []


def test_a_token_from_the_environment_is_used_for_everything(fake: FakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_TOKEN", "own")
    monkeypatch.setenv("STREET12_API_URL", fake.url)
    for command in (["cancel", ORDER_ID], ["order", "1001"], ["deliver", ORDER_ID]):
        assert CliRunner().invoke(app, command).exit_code == 0
    assert {one.token for one in fake.asked} == {"own"}


def test_a_token_is_printed_bare(fake: FakeShop) -> None:
    assert shopctl(fake, "token", "--as", "cj", "--role", "carrier").stdout == "carrier:cj\n"


def test_who_has_no_shop_is_told_what_to_do(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(app, ["products"])
    assert result.exit_code == 1
    assert "make run" in result.stderr
    assert "--api" in result.stderr


@pytest.mark.parametrize("answer", [Reply(200, "<html>"), Reply(200, {}), Reply(200, {"items": None}), Reply(500, "")])
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_another_server_is_no_reason_for_a_traceback(answer: Reply, as_json: list[str], fake: FakeShop) -> None:
    fake.will("GET /products", answer)
    fake.will("GET /stocks/1001", answer)
    result = shopctl(fake, "products", "--stock", *as_json)
    assert (result.exit_code, result.stdout) == (1, "")
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("language", "asked_for"), [("ko_KR.UTF-8", "ko"), ("C.UTF-8", "en"), ("", "en")])
def test_the_shop_speaks_the_language_of_the_terminal(
    language: str, asked_for: str, fake: FakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANG", language)
    shopctl(fake, "products")
    assert [one.headers["Accept-Language"] for one in fake.asked] == [asked_for]


def test_what_a_customer_wrote_is_shown_as_it_is_and_moves_nothing(fake: FakeShop) -> None:
    written = "[red]a[/b]\x1b[2J:smile:\u202eb"
    fake.will(f"GET /orders/{ORDER_ID}", ORDER | {"username": written})
    shown = shopctl(fake, "show", ORDER_ID).stdout
    assert "[red]a[/b]�[2J:smile:�b" in shown


def piped(fake: FakeShop, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.shopctl", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "STREET12_API_URL": fake.url, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What runs the tests may be deaf to Ctrl-C itself, which its children inherit.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def test_a_narrow_pipe_that_cannot_write_korean_gets_whole_lines_without_colours(fake: FakeShop) -> None:
    with piped(fake, "orders", COLUMNS="20", PYTHONIOENCODING="ascii") as process:
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "\x1b" not in output
    [line] = [line for line in output.splitlines() if ORDER_ID in line]
    assert "OrderPlaced" in line
    assert "??? ???" in line


def test_json_survives_a_pipe_that_cannot_write_korean(fake: FakeShop) -> None:
    with piped(fake, "orders", "--json", PYTHONIOENCODING="ascii") as process:
        output, _ = process.communicate()
    assert json.loads(output) == ORDERS


def test_who_watches_sees_events_as_they_come_and_may_leave(fake: FakeShop) -> None:
    fake.will(f"GET /orders/{ORDER_ID}/events", events((1, "OrderReceived"), retry=3_600_000))
    with piped(fake, "watch", ORDER_ID) as process:
        assert process.stdout is not None
        assert "OrderReceived" in process.stdout.readline()
        while process.poll() is None:  # one that comes on the verge of a sleep is heard after it
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "")


RUN: dict[str, Any] = {
    "reconciliationId": "reconciliation_2",
    "startedAt": "2026-11-27T08:00:00Z",
    "finishedAt": None,
    "compared": 500,
    "found": 1,
    "repaired": 1,
    "notCompared": ["marketing"],
}
FOUND: dict[str, Any] = {
    "number": 1,
    "code": "view-behind",
    "orderId": ORDER_ID,
    "productId": None,
    "detail": "reads OrderPlaced",
    "outcome": "repaired",
    "at": "2026-11-27T08:00:30Z",
}


def runs(*items: dict[str, Any]) -> Reply:
    return Reply(200, {"items": [*items], "nextCursor": None})


def test_a_reconciliation_is_run_followed_and_shown(fake: FakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.shopctl.POLL_SECONDS", 0)
    earlier = RUN | {"reconciliationId": "reconciliation_1", "finishedAt": RUN["startedAt"]}
    ended = RUN | {"finishedAt": "2026-11-27T08:01:00Z"}
    fake.will("POST /reconciliations", Reply(202, {"state": "started"}))
    fake.will("GET /reconciliations?limit=1", runs(earlier), runs(earlier), runs(RUN), runs(ended))
    fake.will("GET /reconciliations/reconciliation_2/differences?limit=100", runs(FOUND))
    done = shopctl(fake, "reconcile", "--as", "op")
    assert done.exit_code == 0, done.output
    for told in ("500 orders compared, 1 differences found …", "view-behind", ORDER_ID, "repaired", "marketing"):
        assert told in done.output


def test_a_reconciliation_that_is_under_way_is_followed(fake: FakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.shopctl.POLL_SECONDS", 0)
    fake.will("POST /reconciliations", Reply(202, {"state": "running"}))
    fake.will("GET /reconciliations?limit=1", runs(RUN), runs(RUN | {"finishedAt": RUN["startedAt"]}))
    fake.will("GET /reconciliations/reconciliation_2/differences?limit=100", runs())
    done = shopctl(fake, "reconcile", "--as", "op")
    assert done.exit_code == 0, done.output
    assert "A run is under way" in done.output
    assert "No differences." in done.output


def test_a_reconciliation_that_does_not_end_is_told(fake: FakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.shopctl.POLL_SECONDS", 0.2)
    fake.will("POST /reconciliations", Reply(202, {"state": "started"}))
    fake.will("GET /reconciliations?limit=1", runs(), *[runs(RUN)] * 50)
    done = shopctl(fake, "reconcile", "--as", "op", "--wait", "1")
    assert done.exit_code == 1
    assert "has not come to its end within 1 s" in done.output


def test_the_last_reconciliations_are_listed(fake: FakeShop) -> None:
    fake.will("GET /reconciliations", runs(RUN))
    done = shopctl(fake, "reconcile", "--list", "--as", "op")
    assert done.exit_code == 0, done.output
    assert "reconciliation_2" in done.output
    assert not any(asked.call.startswith("POST /reconciliations") for asked in fake.asked)
