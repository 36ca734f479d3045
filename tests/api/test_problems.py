"""What goes wrong is told as a problem, in the caller's language, and never tells more than it should."""

import importlib
import json
import pkgutil
from collections.abc import AsyncIterator, Iterator
from types import ModuleType

import httpx2
import pytest

import activities
import services
import workflows
from services.gateway.problems import TEXTS
from services.shared.errors import ShopError
from tests.api.conftest import KIM, MAC, OPERATOR, World

KEY = {"Idempotency-Key": "first"}


def _codes(kind: type[ShopError]) -> Iterator[str]:
    yield kind.code
    for narrower in kind.__subclasses__():
        yield from _codes(narrower)


def _import_all(package: ModuleType) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".migrations" not in module.name:
            importlib.import_module(module.name)


def test_every_error_of_the_shop_has_its_texts() -> None:
    for package in (services, activities, workflows):
        _import_all(package)
    assert set(_codes(ShopError)) <= set(TEXTS)
    assert all(korean and english and korean != english for korean, english in TEXTS.values())


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "code"),
    [
        ("GET", "/nowhere", {}, None, 404, "not-found"),
        ("DELETE", "/products", {}, None, 405, "method-not-allowed"),
        ("GET", "/orders", {}, None, 401, "unauthorized"),
        ("GET", "/orders", {"X-User-Id": "x" * 129}, None, 401, "unauthorized"),
        ("GET", "/orders", KIM | {"X-Role": "king"}, None, 400, "bad-request"),
        ("POST", "/orders", KIM | KEY, b"{", 400, "bad-request"),
        ("POST", "/orders", KIM | KEY, b'{"a":' * 5_000, 400, "bad-request"),
        ("POST", "/orders", KIM | KEY, b"\xff\xfe", 400, "bad-request"),
        ("POST", "/orders", KIM | KEY, b" " * 70_000, 413, "payload-too-large"),
        ("POST", "/orders", KIM | KEY, b"[]", 422, "invalid-request"),
    ],
)
async def test_every_refusal_is_a_problem(
    world: World, method: str, path: str, headers: dict[str, str], body: bytes | None, status: int, code: str
) -> None:
    sent = headers | ({"Content-Type": "application/json"} if body else {})
    answer = await world.http.request(method, path, headers=sent, content=body)
    _is_problem(answer, status, code)


async def test_a_body_that_never_says_its_length_is_limited_too(world: World) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1024

    headers = KIM | KEY | {"Content-Type": "application/json"}
    _is_problem(await world.http.post("/orders", headers=headers, content=endless()), 413, "payload-too-large")


def _is_problem(answer: httpx2.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"/problems/{code}")
    assert body["title"]
    assert body["requestId"] == answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("accept", "language"),
    [("", "ko"), ("ko-KR,ko;q=0.9,en;q=0.8", "ko"), ("en-GB", "en"), ("fr, en;q=0.5", "en"), ("fr", "ko")],
)
async def test_a_problem_is_told_in_the_callers_language(world: World, accept: str, language: str) -> None:
    answer = await world.http.get("/nowhere", headers={"Accept-Language": accept})
    assert answer.headers["Content-Language"] == language
    assert answer.json()["detail"] == TEXTS["not-found"][("ko", "en").index(language)]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"qty": 0}, "/qty"),
        ({"qty": 101}, "/qty"),
        ({"qty": "SECRET"}, "/qty"),
        ({"username": " "}, "/username"),
        ({"username": "SECRET\x00"}, "/username"),
        ({"username": "\ud800SECRET"}, "/username"),
        ({"address": "SECRET" * 100}, "/address"),
        ({"payStatus": "SECRET"}, "/payStatus"),
        ({"productPrice": 1e300}, "/productPrice"),
    ],
)
async def test_a_wrong_field_is_pointed_at_and_never_echoed(
    world: World, changes: dict[str, object], pointer: str
) -> None:
    headers = KIM | KEY | {"Content-Type": "application/json"}
    answer = await world.http.post("/orders", content=json.dumps(MAC | changes), headers=headers)
    _is_problem(answer, 422, "invalid-request")
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "SECRET" not in answer.text
    assert (await world.http.get("/orders", headers=KIM)).json()["items"] == []


@pytest.mark.parametrize(("given", "kept"), [("abc-123", True), ("x" * 65, False), ("a b", False)])
async def test_a_sane_request_id_is_honoured(world: World, given: str, kept: bool) -> None:
    answer = await world.http.get("/products", headers={"X-Request-Id": given})
    assert (answer.headers["X-Request-Id"] == given) is kept


async def test_a_fault_tells_nothing_of_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise ValueError("SECRET")

    monkeypatch.setattr(world.parts.catalogue, "list", broken)
    answer = await world.http.get("/products")
    _is_problem(answer, 500, "internal-error")
    assert "SECRET" not in answer.text
    assert 'route="/products",status="500"' in (await world.http.get("/metrics")).text


async def test_names_in_any_script_survive(world: World) -> None:
    name = "김철수 🛒 Ünï"
    assert (await world.order(username=name))["username"] == name


async def test_a_product_needs_a_price(world: World) -> None:
    answer = await world.http.put("/products/9", json={"productName": "x", "productPrice": 0}, headers=OPERATOR)
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/productPrice"]
