"""Whose word the API takes for who is calling: tokens that are good, and all the others."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm
from jwt.warnings import InsecureKeyLengthWarning
from structlog.testing import capture_logs

from deploy.issuer import AUDIENCE, ISSUER, Issuer
from services.gateway import tokens as module
from services.gateway.caller import Role
from services.gateway.tokens import Claims, InvalidToken, KeysUnavailable, SigningKeys, Tokens, jwks_at
from tests.api.world import MINJI, Shop, is_problem
from tests.issuer import TEST_ISSUER, bearer

NOW = int(time.time())
PUBLIC = jwt.PyJWK(TEST_ISSUER.jwks()["keys"][0]).key
PEM = PUBLIC.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "minji", "iat": NOW, "exp": NOW + 3600}


def part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def unsigned(header: dict[str, Any], claims: Any = CLAIMS) -> str:
    return f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"


def with_secret(secret: bytes, algorithm: str = "HS256") -> str:
    """A token that is signed with what everybody knows."""
    head = unsigned({"alg": algorithm, "typ": "JWT", "kid": TEST_ISSUER.key_id})
    signature = hmac.HMAC(secret, hashes.SHA256())
    signature.update(head.encode())
    return f"{head}.{part(signature.finalize())}"


def jwt_of(claims: dict[str, Any]) -> str:
    """A token that the issuer signed, of these claims alone."""
    return jwt.encode(claims, TEST_ISSUER.private_key, "RS256", headers={"kid": TEST_ISSUER.key_id})


def of(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def by_another(key: Any, algorithm: str, **header: Any) -> str:
    return jwt.encode(CLAIMS, key, algorithm, headers={"kid": TEST_ISSUER.key_id, **header})


def tampered(token: str) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{part(json.dumps({**CLAIMS, 'role': 'operator'}).encode())}.{signature}"


GOOD = TEST_ISSUER.token("minji")
OWN = rsa.generate_private_key(65537, 2048)
OWN_JWK = json.loads(jwt.PyJWK(Issuer(OWN).jwks()["keys"][0]).Algorithm.to_jwk(OWN.public_key()))
FORGED = {
    "no token": "",
    "no JWT": "minji",
    "alg none": unsigned({"alg": "none", "kid": TEST_ISSUER.key_id}) + ".",
    "alg None": unsigned({"alg": "None", "kid": TEST_ISSUER.key_id}) + ".",
    "no alg": unsigned({"kid": TEST_ISSUER.key_id}) + "." + GOOD.split(".")[2],
    "no signature": GOOD.rpartition(".")[0] + ".",
    "two parts": GOOD.rpartition(".")[0],
    "another's signature": tampered(GOOD),
    "HS256 with the public key": with_secret(PEM),
    "HS256 with the key's number": with_secret(json.dumps(TEST_ISSUER.jwks()["keys"][0]).encode()),
    "RS512": by_another(TEST_ISSUER.private_key, "RS512"),
    "PS256": by_another(TEST_ISSUER.private_key, "PS256"),
    "ES256 under the RSA key's name": by_another(ec.generate_private_key(ec.SECP256R1()), "ES256"),
    "another key": by_another(OWN, "RS256"),
    "a key of its own": by_another(OWN, "RS256", jwk=OWN_JWK, kid="mine"),
    "a key from elsewhere": by_another(OWN, "RS256", jku="http://127.0.0.1:1/keys", x5u="http://127.0.0.1:1/x"),
    "a name that no key has": by_another(TEST_ISSUER.private_key, "RS256", kid="mine"),
    "no key id": jwt.encode(CLAIMS, TEST_ISSUER.private_key, "RS256"),
    "an unknown extension": by_another(TEST_ISSUER.private_key, "RS256", crit=["who"], who="me"),
    "algorithms": unsigned({"alg": ["RS256"], "kid": TEST_ISSUER.key_id}) + ".AAAA",
    "a deep header": part(b'{"alg":' + b"[" * 4000) + ".e30.e30",
    "a long one": GOOD + "A" * 9000,
    "no base64": "%%%.%%%.%%%",
    "no JSON": f"{part(b'{')}.{part(b'{')}.{part(b'x')}",
    "a list": f"{part(b'[]')}.{part(b'[]')}.{part(b'x')}",
    "not UTF-8": f"{part(bytes([255]))}.e30.e30",
}
STALE: dict[str, dict[str, Any]] = {
    "expired": {"exp": NOW - 60},
    "expired long ago": {"exp": 1},
    "issued tomorrow": {"iat": NOW + 86_400},
    "not valid yet": {"nbf": NOW + 3600},
    "another audience": {"aud": "another-shop"},
    "other audiences": {"aud": ["another-shop", "street12-admin"]},
    "no audience at all": {"aud": []},
    "another issuer": {"iss": f"{ISSUER}/"},
    "an expiry that is no time": {"exp": "soon"},
    "an endless one": {"exp": float("inf")},
    "an expiry beyond all numbers": {"exp": 10**400},
    "a subject that is a number": {"sub": 1},
    "an empty subject": {"sub": ""},
    "a blank subject": {"sub": "   "},
    "a long subject": {"sub": "x" * 129},
    "a subject with a line": {"sub": "minji\nhaneul"},
    "a subject that ends blank": {"sub": "minji "},
    "a Korean subject": {"sub": "김민지"},
    "a subject that ends nothing": {"sub": "minji\x00"},
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED)
async def test_a_forged_token_is_nobodys(shop: Shop, token: str) -> None:
    answer = await shop.client.get("/orders", headers=of(token))
    is_problem(answer, 401, "invalid-token")
    assert answer.headers["www-authenticate"] == 'Bearer realm="street12", error="invalid_token"'
    assert not token or token not in answer.text


@pytest.mark.parametrize("claims", STALE.values(), ids=STALE)
async def test_a_token_that_is_stale_or_meant_for_others_is_nobodys(shop: Shop, claims: dict[str, Any]) -> None:
    is_problem(await shop.client.get("/orders", headers=of(jwt_of(CLAIMS | claims))), 401, "invalid-token")


async def test_clocks_may_differ_by_ten_seconds() -> None:
    tokens, now = keys(Listed(TEST_ISSUER.jwks())), int(time.time())
    for good in ({"exp": now - 1}, {"iat": now + 9}, {"nbf": now + 9}):
        assert (await tokens.read(jwt_of(CLAIMS | good))).subject == "minji"
    for stale in ({"exp": now - 11}, {"iat": now + 30}, {"nbf": now + 30}):
        with pytest.raises(InvalidToken):
            await tokens.read(jwt_of(CLAIMS | stale))


async def test_a_token_may_be_long_but_not_very_long() -> None:
    tokens = keys(Listed(TEST_ISSUER.jwks()))
    assert (await tokens.read(jwt_of(CLAIMS | {"groups": "x" * 5000}))).subject == "minji"
    with pytest.raises(InvalidToken):
        await tokens.read(jwt_of(CLAIMS | {"groups": "x" * 6500}))


@pytest.mark.parametrize("claim", ["exp", "iat", "aud", "iss", "sub"])
async def test_a_token_without_one_of_its_claims_is_nobodys(shop: Shop, claim: str) -> None:
    token = jwt_of({name: value for name, value in CLAIMS.items() if name != claim})
    answer = await shop.client.get("/orders", headers=of(token))
    is_problem(answer, 401, "invalid-token")


async def test_without_a_token_the_answer_says_what_is_asked_for(shop: Shop) -> None:
    answer = await shop.client.get("/orders")
    is_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="street12"'


@pytest.mark.parametrize(
    "scheme", ["Basic bWluamk6eA==", "Token x", "Bearer", "Bearer a b", f"Bearer {GOOD} x", f"Bearer {GOOD}, Bearer x"]
)
async def test_another_scheme_is_no_token(shop: Shop, scheme: str) -> None:
    is_problem(await shop.client.get("/orders", headers={"Authorization": scheme}), 401, "invalid-token")


async def test_of_two_tokens_none_is_taken(shop: Shop) -> None:
    headers = [*of(GOOD).items(), *bearer("haneul").items()]
    is_problem(await shop.client.get("/orders", headers=headers), 400, "bad-request")


class Counted(Tokens):
    """Counts how often a token is read."""

    reads = 0

    async def read(self, token: str) -> Claims:
        self.reads += 1
        return await super().read(token)


async def test_a_token_is_read_once_a_request_good_or_not(shop: Shop) -> None:
    tokens = Counted(shop.parts.tokens.keys, issuer=ISSUER, audience=AUDIENCE)
    shop.exchange(tokens=tokens)
    assert (await shop.order()).status_code == 202
    assert tokens.reads == 1
    is_problem(await shop.order(of("minji")), 401, "invalid-token")
    assert tokens.reads == 2


async def test_the_schemes_name_may_be_written_in_any_way(shop: Shop) -> None:
    for scheme in ("bearer", "BEARER", "Bearer "):
        answer = await shop.client.get("/orders", headers={"Authorization": f"{scheme} {GOOD}"})
        assert answer.status_code == 200


async def test_a_name_in_another_header_says_nothing(shop: Shop) -> None:
    is_problem(await shop.client.get("/orders", headers={"X-User-Id": "minji"}), 401, "unauthorized")
    is_problem(await shop.client.get("/admission", headers={**MINJI, "X-Role": "operator"}), 403, "forbidden")


@pytest.mark.parametrize("role", ["admin", "OPERATOR", "", 1, ["operator"], {"operator": True}, True])
async def test_a_role_that_the_shop_does_not_know_may_do_nothing(shop: Shop, role: Any) -> None:
    for path in ("/orders", "/admission"):
        answer = await shop.client.get(path, headers=of(jwt_of(CLAIMS | {"role": role})))
        is_problem(answer, 403, "forbidden")
        assert answer.headers["www-authenticate"].endswith('error="insufficient_scope"')


async def test_who_has_no_role_is_a_customer(shop: Shop) -> None:
    for token in (jwt_of(CLAIMS), jwt_of(CLAIMS | {"role": None})):
        headers = of(token)
        assert (await shop.client.get("/orders", headers=headers)).status_code == 200
        is_problem(await shop.client.get("/admission", headers=headers), 403, "forbidden")


@pytest.mark.parametrize("user_id", ["a", "x" * 128, "kim minji", "auth0|5f7c8ec7c33c6c004bbafe82", "o'brien%"])
async def test_a_caller_may_have_any_printable_name(shop: Shop, user_id: str) -> None:
    order_id = await shop.ordered(bearer(user_id))
    read = await shop.client.get(f"/orders/{order_id}", headers=bearer(user_id))
    assert read.json()["userId"] == user_id


@given(st.text("abcdefgAZ019-_.=", max_size=200) | st.binary(max_size=60).map(part))
async def test_nothing_that_somebody_may_write_for_a_token_breaks_its_reader(token: str) -> None:
    tokens = Tokens(SigningKeys(Listed(TEST_ISSUER.jwks())), issuer=ISSUER, audience=AUDIENCE)
    for given_token in (token, f"{GOOD.split('.')[0]}.{token}", f"{token}.{GOOD.split('.')[1]}.{token}"):
        with pytest.raises(InvalidToken):
            await tokens.read(given_token)


# The issuer's keys


class Listed:
    """An issuer's address: answers what it is told to, or fails, and counts."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked = 0
        self.dawdles: asyncio.Event | None = None

    async def __call__(self) -> object:
        self.asked += 1
        if self.dawdles is not None:
            await self.dawdles.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


OLD, NEW = Issuer.new(), Issuer.new()
EC_KEY = ec.generate_private_key(ec.SECP256R1())
EC_JWK = ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True)
P384_JWK = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True)


def keys(listed: Listed, clock: Callable[[], float] = time.monotonic) -> Tokens:
    return Tokens(SigningKeys(listed, clock=clock), issuer=ISSUER, audience=AUDIENCE)


async def test_keys_are_fetched_once_for_many_tokens() -> None:
    listed = Listed(OLD.jwks())
    tokens = keys(listed)
    for number in range(50):
        assert (await tokens.read(OLD.token(f"user-{number}"))).subject == f"user-{number}"
    assert listed.asked == 1


async def test_a_new_key_is_fetched_when_a_token_names_it_and_the_old_one_is_good_for_a_while() -> None:
    listed, clock = Listed(OLD.jwks()), Clock()
    tokens = keys(listed, clock)
    await tokens.read(OLD.token("minji"))
    listed.answer = NEW.jwks()
    clock.now += 10
    assert (await tokens.read(NEW.token("minji"))).subject == "minji"
    assert (await tokens.read(OLD.token("minji"))).subject == "minji"
    assert listed.asked == 2
    clock.now = 1000 + 3590
    with pytest.raises(InvalidToken):
        await tokens.read(Issuer.new().token("minji"))  # asks again
    assert (await tokens.read(OLD.token("minji"))).subject == "minji"
    clock.now += 10
    with pytest.raises(InvalidToken):
        await tokens.read(Issuer.new().token("minji"))  # asks again
    with pytest.raises(InvalidToken):
        await tokens.read(OLD.token("minji"))
    assert (await tokens.read(NEW.token("minji"))).subject == "minji"


async def test_who_makes_up_key_ids_makes_nobody_ask_more_than_once_in_ten_seconds() -> None:
    listed, clock = Listed(OLD.jwks()), Clock()
    tokens = keys(listed, clock)
    for second in range(25):
        for _ in range(5):
            with pytest.raises(InvalidToken):
                await tokens.read(NEW.token("minji"))
        clock.now = 1000.0 + second
    assert listed.asked == 3
    assert (await tokens.read(OLD.token("minji"))).subject == "minji"


@pytest.mark.parametrize(
    "answer",
    [
        OSError("away"),
        TimeoutError(),
        ValueError("the issuer answered 500"),
        None,
        [],
        {"keys": []},
        {"keys": "none"},
        {"keys": [None, 1, {}, {"kty": "RSA", "kid": "x"}, {"kty": "oct", "kid": "x", "k": "AAAA"}]},
        pytest.param({"keys": [{**P384_JWK, "kid": "x"}]}, id="a key for P-384"),
    ],
    ids=str,
)
async def test_while_the_issuer_is_away_or_talks_nonsense_the_last_good_keys_are_good(answer: object) -> None:
    listed, clock = Listed(OLD.jwks()), Clock()
    tokens = keys(listed, clock)
    await tokens.read(OLD.token("minji"))
    listed.answer = answer
    clock.now += 100_000
    with pytest.raises(InvalidToken):
        await tokens.read(NEW.token("minji"))
    assert listed.asked == 2
    assert (await tokens.read(OLD.token("minji"))).subject == "minji"


async def test_without_any_key_nobody_is_let_in_and_nobody_is_called_a_liar(shop: Shop) -> None:
    listed, clock = Listed(OSError("away")), Clock()
    tokens = keys(listed, clock)
    with pytest.raises(KeysUnavailable):
        await tokens.read(GOOD)
    shop.exchange(tokens=tokens)
    is_problem(await shop.client.get("/orders", headers=MINJI), 503, "keys-unavailable")
    is_problem(await shop.client.get("/readyz"), 503, "keys-unavailable")
    assert (await shop.client.get("/products", headers=MINJI)).status_code == 200
    listed.answer = TEST_ISSUER.jwks()
    clock.now += 10
    assert (await shop.client.get("/orders", headers=MINJI)).status_code == 200
    assert (await shop.client.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    "changed",
    [{"use": "enc"}, {"alg": "RS512"}, {"kid": 7}, {"kty": "EC"}, {"n": "AQAB"}, {"n": 5}, {"n": "%"}],
    ids=str,
)
async def test_a_key_that_is_not_for_these_tokens_is_passed_over(changed: dict[str, Any]) -> None:
    [key] = OLD.jwks()["keys"]
    tokens = keys(Listed({"keys": [key | changed, *NEW.jwks()["keys"]]}))
    with pytest.raises(InvalidToken):
        await tokens.read(OLD.token("minji"))
    assert (await tokens.read(NEW.token("minji"))).subject == "minji"


async def test_a_short_rsa_key_is_passed_over() -> None:
    short = Issuer(rsa.generate_private_key(65537, 1024))
    tokens = keys(Listed({"keys": [*short.jwks()["keys"], *NEW.jwks()["keys"]]}))
    with pytest.raises(InvalidToken), pytest.warns(InsecureKeyLengthWarning):
        await tokens.read(short.token("minji"))


async def test_an_es256_key_is_as_good() -> None:
    tokens = keys(Listed({"keys": [{**EC_JWK, "kid": "ec"}]}))
    token = jwt.encode(CLAIMS, EC_KEY, "ES256", headers={"kid": "ec"})
    assert (await tokens.read(token)).subject == "minji"


async def test_all_keys_that_are_listed_are_good_even_two_kinds_of_one_name() -> None:
    [old], [new] = OLD.jwks()["keys"], NEW.jwks()["keys"]
    tokens = keys(Listed({"keys": [old, new, {**EC_JWK, "kid": OLD.key_id}]}))
    es256 = jwt.encode(CLAIMS, EC_KEY, "ES256", headers={"kid": OLD.key_id})
    for token in (OLD.token("minji"), NEW.token("minji"), es256):
        assert (await tokens.read(token)).subject == "minji"


async def test_the_claim_that_says_the_role_is_the_settings() -> None:
    tokens = Tokens(
        SigningKeys(Listed(OLD.jwks())), issuer=ISSUER, audience=AUDIENCE, role_claim="https://12st.example/role"
    )
    claims = await tokens.read(OLD.token("minji", Role.CUSTOMER, **{"https://12st.example/role": "carrier"}))
    assert claims.role == Role.CARRIER


async def test_while_an_issuer_dawdles_nobody_waits_for_it_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MISSING_SECONDS", 0.01)
    listed, clock = Listed(OLD.jwks()), Clock()
    tokens = keys(listed, clock)
    await tokens.read(OLD.token("minji"))
    listed.dawdles, clock.now = asyncio.Event(), clock.now + 10
    strangers = [tokens.read(NEW.token("minji")) for _ in range(20)]
    assert {type(one) for one in await asyncio.gather(*strangers, return_exceptions=True)} == {InvalidToken}
    assert (await tokens.read(OLD.token("minji"))).subject == "minji"
    assert listed.asked == 2
    listed.answer = NEW.jwks()
    listed.dawdles.set()
    monkeypatch.setattr(module, "_MISSING_SECONDS", 30)
    assert (await tokens.read(NEW.token("minji"))).subject == "minji"  # waits for the answer that is on its way
    assert listed.asked == 2


async def test_who_names_an_unknown_key_waits_a_second_for_it_and_no_longer() -> None:
    listed, clock = Listed(OLD.jwks()), Clock()
    tokens = keys(listed, clock)
    await tokens.read(OLD.token("minji"))
    listed.dawdles, clock.now = asyncio.Event(), clock.now + 10
    async with asyncio.timeout(10):
        with pytest.raises(InvalidToken):
            await tokens.read(NEW.token("minji"))
    listed.dawdles.set()


# Fetching them


class Fetches(Listed):
    """An issuer's address that answers one thing after the other, and tells when it was asked often enough."""

    def __init__(self, *answers: object, enough: int) -> None:
        super().__init__(answers[-1])
        self.answers = answers
        self.enough = enough
        self.often = asyncio.Event()

    async def __call__(self) -> object:
        if self.asked < len(self.answers):
            self.answer = self.answers[self.asked]
        try:
            return await super().__call__()
        finally:
            if self.asked == self.enough:
                self.often.set()


@asynccontextmanager
async def kept_fresh(signing_keys: SigningKeys) -> AsyncGenerator[None]:
    task = asyncio.create_task(signing_keys.keep_fresh())
    try:
        async with asyncio.timeout(30):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_keys_are_fetched_from_time_to_time_though_nobody_asks() -> None:
    listed = Fetches(OLD.jwks(), NEW.jwks(), enough=3)
    signing_keys = SigningKeys(listed, refresh_seconds=0.001)
    async with kept_fresh(signing_keys):
        await listed.often.wait()
    tokens = Tokens(signing_keys, issuer=ISSUER, audience=AUDIENCE)
    asked = listed.asked
    for issuer in (OLD, NEW):
        assert (await tokens.read(issuer.token("minji"))).subject == "minji"
    assert listed.asked == asked


async def test_whatever_goes_wrong_they_are_fetched_again() -> None:
    troubles: list[object] = [
        OSError(),
        TimeoutError(),
        ValueError(),
        aiohttp.ServerDisconnectedError(),
        RecursionError(),
        None,
        {},
    ]
    listed = Fetches(OLD.jwks(), *troubles, NEW.jwks(), enough=len(troubles) + 3)
    signing_keys = SigningKeys(listed, refresh_seconds=0.001)
    async with kept_fresh(signing_keys):
        await listed.often.wait()
    await signing_keys.key(NEW.key_id, "RS256")


async def test_while_there_are_no_keys_they_are_soon_asked_for_again() -> None:
    listed = Fetches(OSError("away"), OLD.jwks(), enough=2)
    signing_keys = SigningKeys(listed, refresh_seconds=1000)
    async with kept_fresh(signing_keys):
        await listed.often.wait()
        await asyncio.sleep(0)
    signing_keys.must_be_known()


async def test_it_is_told_once_that_the_issuer_is_away_and_once_that_it_is_back() -> None:
    listed, clock = Listed(OSError("away")), Clock()
    signing_keys = SigningKeys(listed, clock=clock)
    with capture_logs() as logs:
        for answer in (OSError("away"), ValueError("nonsense"), OLD.jwks(), OLD.jwks(), TimeoutError()):
            listed.answer, clock.now = answer, clock.now + 10
            with pytest.raises((InvalidToken, KeysUnavailable)):
                await signing_keys.key("unknown", "RS256")
    assert [(log["log_level"], log["event"]) for log in logs] == [
        ("warning", "the issuer's keys cannot be fetched"),
        ("info", "the issuer's keys are fetched again"),
        ("warning", "the issuer's keys cannot be fetched"),
    ]
    assert logs[0]["error"] == "OSError: away"


# Over the wire

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
JWKS = json.dumps(TEST_ISSUER.jwks()).encode()
LARGEST = 256 * 1024


class Address:
    """An issuer behind a socket, which answers as it is told to."""

    def __init__(self) -> None:
        self.answer: Answer = said(JWKS)
        self.asked = 0

    async def respond(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        return await self.answer(request)


def said(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers=headers)

    return answer


async def in_pieces(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for start in range(0, len(JWKS), 100):
        await answer.write(JWKS[start : start + 100])
        await asyncio.sleep(0)
    return answer


async def endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b" " * LARGEST)


async def hung_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def elsewhere(request: web.Request) -> web.StreamResponse:
    return await (said(JWKS) if request.query else said(b"", 302, {"Location": "/keys?there"}))(request)


@pytest.fixture
async def address() -> AsyncGenerator[tuple[Address, SigningKeys]]:
    there, app, clock = Address(), web.Application(), Clock()

    def often() -> float:
        clock.now += 100
        return clock.now

    app.router.add_get("/keys", there.respond)
    async with TestServer(app) as server:
        yield there, SigningKeys(jwks_at(str(server.make_url("/keys"))), clock=often)


async def has_key(signing_keys: SigningKeys) -> bool:
    try:
        await signing_keys.key(TEST_ISSUER.key_id, "RS256")
    except KeysUnavailable:
        return False
    return True


@pytest.mark.parametrize(
    "answer", [said(JWKS), said(JWKS + b" " * (LARGEST - len(JWKS))), in_pieces], ids=["plain", "largest", "in pieces"]
)
async def test_the_issuers_keys_come_from_its_address(address: tuple[Address, SigningKeys], answer: Answer) -> None:
    there, signing_keys = address
    there.answer = answer
    assert await has_key(signing_keys)
    assert there.asked == 1


WRONG: dict[str, Answer] = {
    "an error": said(JWKS, 500),
    "nothing there": said(JWKS, 404),
    "accepted": said(JWKS, 202),
    "elsewhere": elsewhere,
    "too long": said(JWKS + b" " * (LARGEST + 1 - len(JWKS))),
    "endless": endless,
    "a page": said(b"<!doctype html>"),
    "nothing": said(b""),
    "cut off": said(JWKS[:-1]),
    "not UTF-8": said(b"\xff" + JWKS),
    "deep": said(b"[" * 200_000),
    "a text": said(b'"keys"'),
    "hung up": hung_up,
    "badly packed": said(JWKS, headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
async def test_whatever_else_an_address_answers_is_no_key_set_and_it_is_asked_again(
    address: tuple[Address, SigningKeys], answer: Answer
) -> None:
    there, signing_keys = address
    there.answer = answer
    assert not await has_key(signing_keys)
    there.answer = said(JWKS)
    assert await has_key(signing_keys)


async def test_an_address_that_does_not_answer_is_waited_for_a_while_alone(
    address: tuple[Address, SigningKeys], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FETCH_SECONDS", 0.05)
    there, signing_keys = address
    answers = asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        await answers.wait()
        return web.Response(body=JWKS)

    there.answer = slow
    async with asyncio.timeout(30):
        while there.asked < 2:
            assert not await has_key(signing_keys)
    answers.set()
    there.answer = said(JWKS)
    assert await has_key(signing_keys)


async def test_an_address_where_nobody_is_has_no_keys() -> None:
    async with TestServer(web.Application()) as server:
        url = str(server.make_url("/keys"))
    assert not await has_key(SigningKeys(jwks_at(url)))


async def test_a_token_that_was_good_is_not_once_it_has_expired_or_its_key_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed, clock = Listed(OLD.jwks()), Clock()
    tokens = keys(listed, clock)
    short, long = OLD.token("minji", exp=NOW + 1000), OLD.token("minji", exp=NOW + 100_000)
    for token in (short, long, short, long):
        assert (await tokens.read(token)).subject == "minji"
    monkeypatch.setattr(module.time, "time", lambda: NOW + 1000.0)
    assert (await tokens.read(long)).subject == "minji"
    monkeypatch.undo()
    with monkeypatch.context() as later:
        later.setattr(module, "_LEEWAY_SECONDS", -1001)  # so that only what is remembered could let it in
        later.setattr(module.time, "time", lambda: NOW + 1000.0)
        with pytest.raises(InvalidToken):
            await tokens.read(short)
    listed.answer = NEW.jwks()
    clock.now += 3600
    await tokens.read(NEW.token("minji"))
    with pytest.raises(InvalidToken):
        await tokens.read(long)


async def test_no_more_tokens_are_remembered_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 2)
    tokens = keys(Listed(OLD.jwks()))
    for number in range(4):
        await tokens.read(OLD.token(f"user-{number}"))
    assert len(tokens._good) == 2  # pyright: ignore[reportPrivateUsage]
