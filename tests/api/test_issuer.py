"""The issuer of the one-machine shop: tokens for whoever asks there, and one key that stays its own."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

import api
from deploy.issuer import AUDIENCE, ISSUER, JWKS_PATH, Issuer, dev_routes
from services.gateway.tokens import SigningKeys, Tokens
from tests.api.world import ORDER, Shop, is_problem

ROOT = Path(__file__).parents[2]
GATEWAY = "172.29.12.1"
READ_KEY_ID = """
import sys
from pathlib import Path
from deploy.issuer import Issuer
print(Issuer.of(Path(sys.argv[1])).key_id)
"""


@pytest.fixture
async def local(shop: Shop) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the one-machine shop, whose API fetches the issuer's keys from itself."""

    async def keys() -> object:
        return (await client.get(JWKS_PATH)).raise_for_status().json()

    tokens = Tokens(SigningKeys(keys), issuer=ISSUER, audience=AUDIENCE)
    client = client_from(shop, tokens=tokens)
    async with client:
        yield client


def client_from(
    shop: Shop, base_url: str = "http://localhost:8000", address: str = "127.0.0.1", **parts: Any
) -> httpx2.AsyncClient:
    """Somebody who calls the one-machine shop by this name, from this address. It runs behind `GATEWAY`."""
    app = api.create_app(replace(shop.parts, **parts), dev_routes(Issuer.new(), own_addresses=[GATEWAY]))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app, client=(address, 4711)), base_url=base_url)


async def token(local: httpx2.AsyncClient, **wanted: str) -> dict[str, Any]:
    answer = await local.post("/dev/tokens", json=wanted)
    assert answer.status_code == 200, answer.text
    return answer.json()


# Tokens


async def test_who_asks_gets_a_token_that_opens_the_shop(local: httpx2.AsyncClient) -> None:
    answer = await local.post("/dev/tokens", json={"sub": "goodman"})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    made = answer.json()
    assert made.keys() == {"accessToken", "tokenType", "expiresIn"}
    assert (made["tokenType"], made["expiresIn"]) == ("Bearer", 3600)
    claims = jwt.decode(made["accessToken"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["sub"] == "goodman"
    opened = await local.get("/orders", headers={"Authorization": f"Bearer {made['accessToken']}"})
    assert (opened.status_code, opened.json()["items"]) == (200, [])


@pytest.mark.parametrize(
    ("wanted", "orders", "admission", "delivered"),
    [
        ({}, 200, 403, 403),
        ({"role": "customer"}, 200, 403, 403),
        ({"role": "operator"}, 200, 200, 403),
        ({"role": "carrier"}, 403, 403, 404),
    ],
    ids=str,
)
async def test_a_token_is_of_the_role_that_was_asked_for_and_a_customers_otherwise(
    local: httpx2.AsyncClient, wanted: dict[str, str], orders: int, admission: int, delivered: int
) -> None:
    made = await token(local, sub="goodman", **wanted)
    headers = {"Authorization": f"{made['tokenType']} {made['accessToken']}"}
    assert (await local.get("/orders", headers=headers)).status_code == orders
    assert (await local.get("/admission", headers=headers)).status_code == admission
    answer = await local.post("/deliveries/x/events", json={"event": "Delivered"}, headers=headers)
    assert answer.status_code == delivered


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({}, "/sub"),
        ({"sub": ""}, "/sub"),
        ({"sub": " goodman"}, "/sub"),
        ({"sub": "goodman\n"}, "/sub"),
        ({"sub": "굿맨"}, "/sub"),
        ({"sub": "x" * 129}, "/sub"),
        ({"sub": 1}, "/sub"),
        ({"sub": None}, "/sub"),
        ({"sub": "goodman", "role": "admin"}, "/role"),
        ({"sub": "goodman", "role": "OPERATOR"}, "/role"),
        ({"sub": "goodman", "role": ""}, "/role"),
        ({"sub": "goodman", "aud": "another-shop"}, "/aud"),
    ],
    ids=str,
)
async def test_a_wish_that_the_shop_would_not_take_is_refused(
    local: httpx2.AsyncClient, wanted: dict[str, Any], pointer: str
) -> None:
    found = is_problem(await local.post("/dev/tokens", json=wanted), 422, "invalid-request")
    assert [error["pointer"] for error in found["errors"]] == [pointer]


async def test_the_longest_name_that_is_given_out_is_one_that_the_shop_takes(local: httpx2.AsyncClient) -> None:
    made = await token(local, sub="x" * 128)
    assert (await local.get("/orders", headers={"Authorization": f"Bearer {made['accessToken']}"})).status_code == 200


async def test_a_wish_is_json_as_everywhere(local: httpx2.AsyncClient) -> None:
    answer = await local.post("/dev/tokens", content=b"sub=goodman", headers={"Content-Type": "text/plain"})
    is_problem(answer, 415, "unsupported-media-type")
    body, headers = b'{"sub": "a", "sub": "b"}', {"Content-Type": "application/json"}
    is_problem(await local.post("/dev/tokens", content=body, headers=headers), 400, "bad-request")


# Who may ask


@pytest.mark.parametrize(
    "base_url", ["http://127.0.0.1:8000", "http://localhost", "http://LOCALHOST", "http://[::1]:9"]
)
@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", GATEWAY])
async def test_this_machine_may_ask_by_each_of_its_own_names(shop: Shop, base_url: str, address: str) -> None:
    async with client_from(shop, base_url, address) as client:
        await token(client, sub="goodman")


# Orders for the Web UI's link


async def test_this_machine_looks_an_order_up_without_a_token(shop: Shop, local: httpx2.AsyncClient) -> None:
    headers = {"Authorization": f"Bearer {(await token(local, sub='goodman'))['accessToken']}", "Idempotency-Key": "1"}
    placed = await local.post("/orders", json=ORDER, headers=headers)
    assert placed.status_code == 202, placed.text
    found = await local.get(f"/dev/orders/{placed.json()['orderId']}")
    assert found.status_code == 200
    assert found.headers["Cache-Control"] == "no-store"
    assert found.json() == placed.json() | {"timeline": found.json()["timeline"]}
    assert [event["type"] for event in found.json()["timeline"]] == ["OrderReceived"]


async def test_an_order_that_is_not_there_cannot_be_looked_up(local: httpx2.AsyncClient) -> None:
    is_problem(await local.get("/dev/orders/order_00000000000000000000000000"), 404, "not-found")


# Others


@pytest.mark.parametrize(
    ("base_url", "address"),
    [
        ("http://evil.example:8000", "127.0.0.1"),
        ("http://localhost.evil.example", "127.0.0.1"),
        ("http://127.0.0.1.evil.example", "127.0.0.1"),
        ("http://localhost:8000", "192.168.0.7"),
        ("http://localhost:8000", "2001:db8::1"),
        ("http://shop.example", "203.0.113.7"),
        ("http://localhost:8000", "172.29.12.2"),
        ("http://evil.example:8000", GATEWAY),
    ],
)
async def test_for_anybody_else_there_are_no_tokens_and_no_orders(shop: Shop, base_url: str, address: str) -> None:
    async with client_from(shop, base_url, address) as client:
        is_problem(await client.post("/dev/tokens", json={"sub": "goodman"}), 404, "not-found")
        is_problem(await client.get("/dev/orders/order_00000000000000000000000000"), 404, "not-found")


async def test_an_api_that_is_not_the_one_machine_shops_makes_no_tokens(shop: Shop) -> None:
    is_problem(await shop.client.post("http://localhost/dev/tokens", json={"sub": "goodman"}), 404, "not-found")
    is_problem(await shop.client.get(f"http://localhost{JWKS_PATH}"), 404, "not-found")
    is_problem(await shop.client.get("http://localhost/dev/orders/order_1"), 404, "not-found")


# The key


def test_the_issuer_is_the_same_after_each_start_and_its_owner_alone_reads_its_key(tmp_path: Path) -> None:
    data_dir = tmp_path / "not" / "there" / "yet"
    first = Issuer.of(data_dir)
    [file] = (data_dir / "run").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = Issuer.of(data_dir)
    assert again.jwks() == first.jwks()
    assert again.private_key.private_numbers() == first.private_key.private_numbers()
    assert Issuer.of(tmp_path).key_id != first.key_id
    assert "d" not in first.jwks()["keys"][0]  # which would be the private half


def test_of_two_that_find_no_key_the_second_takes_the_firsts(tmp_path: Path) -> None:
    first, second = Issuer.new(), Issuer.new()
    first.keep_in(tmp_path)
    second.keep_in(tmp_path)
    assert Issuer.of(tmp_path).key_id == first.key_id
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["issuer.pem"]


async def test_processes_that_start_at_once_are_one_issuer(tmp_path: Path) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", READ_KEY_ID, str(tmp_path)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(3)
    ]
    async with asyncio.timeout(60):
        said = await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert {key_id.decode().strip() for key_id, _ in said} == {Issuer.of(tmp_path).key_id}
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["issuer.pem"]


async def test_a_wrong_setting_ends_the_one_machine_shops_api_with_one_sentence(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.local_api"),
        cwd=ROOT,
        env={**os.environ, "STREET12_DATA_DIR": str(tmp_path), "STREET12_DATABASE": "oracle"},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().startswith("The setting STREET12_DATABASE is 'oracle':")
    assert said.count(b"\n") == 1
    assert not (tmp_path / "run").exists()
