"""What every answer says to browsers, caches and other origins, whose request it is, and the page at `/docs`."""

import asyncio
import re
from dataclasses import replace
from typing import Final

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, Request

import api
from services.gateway.server import configured, listen
from services.order.statuses import EventType
from services.shared.clock import utc_now
from services.shared.settings import ApiSettings, WrongSetting, read_settings
from tests.api.test_access import RULES, call
from tests.api.world import DELIVERED, MINJI, OPERATOR, PLACED, Shop, is_problem

SECURITY: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "strict-transport-security": "max-age=31536000",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
ORDERS: Final = [what for what in RULES if what.endswith("/orders/{orderId}") or "/cancel" in what] + ["POST /orders"]
CATALOGUE: Final = ["GET /products", "GET /products/{productId}"]
KEPT: Final = dict.fromkeys(CATALOGUE, "public, no-cache") | dict.fromkeys(ORDERS, "private, no-cache")
OURS, THEIRS = "https://shop.example", "https://elsewhere.example"


def client_of(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop")


def open_to_ours(shop: Shop, max_requests: int = 256) -> httpx2.AsyncClient:
    """A client of an API that pages of one other origin may call."""
    return client_of(api.create_app(shop.parts, max_requests=max_requests, cors_origins=[OURS]))


async def preflight(http: httpx2.AsyncClient, origin: str = OURS, method: str = "POST", *sent: str) -> httpx2.Response:
    """What a browser asks before it lets a page of that origin send these headers."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if sent:
        asked["Access-Control-Request-Headers"] = ", ".join(sent).lower()
    return await http.options("/orders", headers=asked)


# Security


def is_secured(answer: httpx2.Response) -> None:
    for name, value in SECURITY.items():
        assert answer.headers.get_list(name) == [value], name
    assert len(answer.headers.get_list("cache-control")) == 1
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        *[("GET /livez", 200), ("GET /orders", 401), ("GET /nowhere", 404), ("BREW /orders", 405)],
        *[("GET /metrics", 200), ("GET /products", 200), ("GET /openapi.json", 200), ("OPTIONS /orders", 405)],
    ],
)
async def test_every_answer_is_secured(shop: Shop, request_line: str, status: int) -> None:
    answer = await shop.client.request(*request_line.split())
    assert answer.status_code == status
    is_secured(answer)


async def test_so_is_what_the_guard_answers(shop: Shop) -> None:
    is_secured(await shop.client.post("/orders", content=b"a" * (api.LARGEST_BODY + 1)))
    async with client_of(api.create_app(shop.parts, max_requests=0)) as http:
        answer = await http.get("/products")
        is_problem(answer, 503, "overloaded")
        is_secured(answer)
    shop.engine.error = RuntimeError("broken")
    answer = await shop.client.post(f"/orders/{await shop.ordered()}/cancel", headers=MINJI)
    is_problem(answer, 500, "internal-error")
    is_secured(answer)


async def test_so_are_answers_to_a_preflight(shop: Shop) -> None:
    async with open_to_ours(shop) as http:
        for origin, status in ((OURS, 200), (THEIRS, 400)):
            answer = await preflight(http, origin)
            assert answer.status_code == status
            is_secured(answer)


# Caches


@pytest.mark.parametrize("what", RULES)
async def test_every_route_says_how_long_its_answer_may_be_kept(shop: Shop, what: str) -> None:
    order_id = await shop.ordered()
    await shop.parts.deliveries.start(order_id=order_id, product_id="tea", qty=2)
    await shop.parts.reports.begin("r", utc_now())
    shop.engine.stuck = {"refund_payment"}
    if what == "POST /deliveries/{orderId}/events":
        await shop.record(order_id, DELIVERED, EventType.DELIVERED)
    if what.endswith(("/waivers", "/clearances")):
        await shop.record(order_id, replace(PLACED, needs_attention=True), EventType.ORDER_PLACED)
    who = MINJI if MINJI in RULES[what] else RULES[what][0]
    answer = await call(shop, what, who, order_id)
    assert answer.is_success, answer.text
    assert answer.headers.get_list("cache-control") == [KEPT.get(what, "no-store")]
    assert ("authorization" in answer.headers.get("vary", "").lower()) == ("private" in answer.headers["cache-control"])


@pytest.mark.parametrize("path", ["/products", "/products/tea", "/docs", "/docs/swagger-ui.css"])
async def test_what_is_public_and_known_is_not_sent_again(shop: Shop, path: str) -> None:
    whole = await shop.client.get(path)
    assert re.fullmatch(r'"[0-9a-f]{32}"', whole.headers["etag"])
    for known in (whole.headers["etag"], f'"x", W/{whole.headers["etag"]}', "*"):
        answer = await shop.client.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        for name in ("etag", "cache-control", "content-security-policy"):
            assert answer.headers[name] == whole.headers[name]
    for unknown in ('"x"', "", whole.headers["etag"].strip('"')):
        answer = await shop.client.get(path, headers={"If-None-Match": unknown})
        assert (answer.status_code, answer.content) == (200, whole.content)


async def test_a_catalogue_that_changed_is_sent_again(shop: Shop) -> None:
    before = {path: (await shop.client.get(path)).headers["etag"] for path in ("/products", "/products/tea")}
    body = {"productName": "보성 녹차", "productPrice": 4600}
    assert (await shop.client.put("/products/tea", json=body, headers=OPERATOR)).is_success
    for path, etag in before.items():
        answer = await shop.client.get(path, headers={"If-None-Match": etag})
        assert answer.status_code == 200
        assert '"productPrice":4600' in answer.text
        assert answer.headers["etag"] != etag


# Other origins


async def test_no_other_origin_may_call_by_default(shop: Shop) -> None:
    assert (await preflight(shop.client)).status_code == 405
    answer = await shop.client.get("/products", headers={"Origin": OURS})
    assert "access-control-allow-origin" not in answer.headers
    assert "origin" not in answer.headers.get("vary", "").lower()


async def test_an_origin_of_ours_may_call_and_read_what_it_needs(shop: Shop) -> None:
    async with open_to_ours(shop) as http:
        for method in ("GET", "POST", "PUT", "PATCH"):
            answer = await preflight(
                *(http, OURS, method, "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"),
                *("Last-Event-ID", "Prefer", "X-Request-Id", "traceparent", "Accept-Language"),
            )
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, OURS)
            assert "origin" in answer.headers["vary"].lower()
        answer = await http.get("/products", headers={"Origin": OURS})
    assert answer.headers["access-control-allow-origin"] == OURS
    assert "access-control-allow-credentials" not in answer.headers
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {*exposed} == {
        *("Deprecation", "ETag", "Idempotent-Replayed", "Link", "Location", "Preference-Applied", "RateLimit"),
        *("RateLimit-Policy", "Retry-After", "WWW-Authenticate", "X-Request-Id"),
    }


@pytest.mark.parametrize("origin", [THEIRS, "null", f"{OURS}.evil.example", "http://shop.example", f"{OURS}:8443"])
async def test_any_other_origin_may_not(shop: Shop, origin: str) -> None:
    async with open_to_ours(shop) as http:
        for answer in (await preflight(http, origin), await http.get("/products", headers={"Origin": origin})):
            assert "access-control-allow-origin" not in answer.headers
            assert "origin" in answer.headers["vary"].lower()
        assert (await preflight(http, OURS, "DELETE")).status_code == 400
        assert (await preflight(http, OURS, "GET", "X-Else")).status_code == 400


async def test_caches_are_told_that_answers_differ_by_origin(shop: Shop) -> None:
    async with open_to_ours(shop) as http:
        for sent in ({}, {"Origin": OURS}, {"Origin": THEIRS}):
            assert (await http.get("/products", headers=sent)).headers["vary"] == "Origin"
            assert (await http.get("/orders", headers=sent)).headers["vary"] == "Accept-Language, Origin"


async def test_a_page_of_ours_can_read_why_the_shop_refuses(shop: Shop) -> None:
    async with open_to_ours(shop, max_requests=0) as http:
        answer = await http.get("/products", headers={"Origin": OURS})
        is_problem(answer, 503, "overloaded")
        assert answer.headers["access-control-allow-origin"] == OURS


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("", ()),
        (" , ", ()),
        ("https://shop.example", ("https://shop.example",)),
        (" http://localhost:3000 ,https://a-b.example:8443,", ("http://localhost:3000", "https://a-b.example:8443")),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
    ],
)
def test_origins_are_listed_with_commas(given: str, read: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_API_CORS_ORIGINS", given)
    assert read_settings(ApiSettings).cors_origins == read


@pytest.mark.parametrize(
    "wrong",
    [
        *("*", "null", "shop.example", "//shop.example", "ftp://shop.example", "https://shop.example/", "https://"),
        *("https://*.shop.example", "https://Shop.example", "https://user@shop.example", "https://상점.example"),
        *("https://shop.example:443", "http://shop.example:80", "https://shop.example:", "https://shop.example?"),
        *("https://shop.example https://b.example", '["https://shop.example"]', "https://shop.example:x"),
    ],
)
def test_what_no_browser_sends_as_its_origin_is_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_API_CORS_ORIGINS", f"{OURS},{wrong}")
    with pytest.raises(WrongSetting) as error:
        read_settings(ApiSettings)
    assert str(error.value).startswith(f"The setting STREET12_API_CORS_ORIGINS is {wrong!r}: an origin must be")


# Whose request it is


@pytest.mark.parametrize(
    ("trusted", "forwarded_for", "seen"),
    [
        ("", "203.0.113.7", "127.0.0.1"),
        ("10.0.0.0/8", "203.0.113.7", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.0/8, ::1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("127.0.0.1,10.0.0.0/8", "203.0.113.7, 10.1.2.3", "203.0.113.7"),
    ],
)
async def test_only_a_trusted_proxy_is_believed_whose_request_it_passes_on(
    trusted: str, forwarded_for: str, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREET12_API_TRUSTED_PROXIES", trusted)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own, which nobody reads here
    app = FastAPI()

    @app.get("/")
    async def whose(request: Request) -> str | None:  # pyright: ignore[reportUnusedFunction]
        return request.client and request.client.host

    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(configured(app, read_settings(ApiSettings)))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(30), httpx2.AsyncClient() as http:
            answer = await http.get(
                "http://{}:{}/".format(*listener.getsockname()), headers={"X-Forwarded-For": forwarded_for}
            )
    finally:
        server.should_exit = True
        await serving
    assert answer.json() == seen
    assert "server" not in answer.headers


@pytest.mark.parametrize("wrong", ["*", "localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "127.0.0.1:80", "unix:"])
def test_a_proxy_that_is_no_address_is_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_API_TRUSTED_PROXIES", f"10.0.0.7, {wrong}")
    with pytest.raises(WrongSetting) as error:
        read_settings(ApiSettings)
    assert str(error.value).startswith(f"The setting STREET12_API_TRUSTED_PROXIES is {wrong!r}: a proxy must be")


# /docs


async def test_the_page_at_docs_needs_nobody_else(shop: Shop) -> None:
    page = await shop.client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    kinds: dict[str, str] = {}
    for name in re.findall(r'(?:src|href)="([^"]*)"', page.text):
        file = await shop.client.get(f"/{name}")
        assert file.status_code == 200, name
        is_secured(file)
        kinds[name.removeprefix("docs/")] = file.headers["content-type"]
    script = "text/javascript; charset=utf-8"
    assert kinds == {
        "favicon-32x32.png": "image/png",
        "swagger-ui.css": "text/css; charset=utf-8",
        "swagger-ui-bundle.js": script,
        "start.js": script,
    }
    start = (await shop.client.get("/docs/start.js")).text
    assert "//" not in start
    for option in ('url: "openapi.json"', "persistAuthorization: true", "validatorUrl: null"):
        assert option in start


async def test_the_page_at_docs_runs_scripts_from_files_of_ours_alone(shop: Shop) -> None:
    page = await shop.client.get("/docs")
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
    assert "unsafe" not in str(policy)
    assert re.findall(r"<script[^>]*>(.+?)</script>|<style|style=|\son\w+=", page.text) == []


@pytest.mark.parametrize("path", ["/redoc", "/docs/", "/docs/__init__.py", "/docs/..%2F__init__.py", "/products/"])
async def test_there_is_nothing_else(shop: Shop, path: str) -> None:
    is_problem(await shop.client.get(path), 404, "not-found")


@pytest.mark.parametrize("what", ["/products", "/livez", "/no/such/route", "/orders", "/docs"])
async def test_a_head_is_a_get_without_its_body(shop: Shop, what: str) -> None:
    headers = {**MINJI, "X-Request-Id": "same"}
    head, get = await shop.client.head(what, headers=headers), await shop.client.get(what, headers=headers)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers == get.headers


async def test_a_head_of_a_timeline_that_could_be_followed_ends_at_once(shop: Shop) -> None:
    order_id = await shop.ordered()
    async with asyncio.timeout(30):
        head = await shop.client.head(f"/orders/{order_id}/events", headers={**MINJI, "Accept": "text/event-stream"})
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
