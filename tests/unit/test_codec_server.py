"""Who may have histories decrypted, from where, and what is said to everybody else."""

import asyncio
import base64
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request
from google.protobuf.json_format import MessageToDict
from temporalio.api.common.v1 import Payload

from deploy.codec_server import LARGEST_BODY, Refusal, create_app, operators, this_machine
from deploy.issuer import AUDIENCE, ISSUER
from deploy.local import ROOT
from services.gateway.caller import Role
from services.gateway.tokens import SigningKeys, Tokens
from tests.issuer import TEST_ISSUER, bearer, running_issuer
from workflows.codec import HistoryCodec

UI = "http://127.0.0.1:8233"
OPERATOR = bearer("op", Role.OPERATOR)
KEYS = {"new": os.urandom(32), "old": os.urandom(32)}
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data='"얼룩말"'.encode())
Shown = dict[str, Any]


@asynccontextmanager
async def running(*, tokens: bool) -> AsyncGenerator[httpx2.AsyncClient]:
    async def keys() -> object:
        return TEST_ISSUER.jwks()

    admit = operators(Tokens(SigningKeys(keys), issuer=ISSUER, audience=AUDIENCE)) if tokens else this_machine()
    codec = HistoryCodec(KEYS, accept_plain=True)
    async with (
        TestServer(create_app(codec, admit, origins=(UI,))) as server,
        httpx2.AsyncClient(base_url=str(server.make_url("/")), trust_env=False) as http,
    ):
        yield http


@pytest.fixture
async def here() -> AsyncGenerator[httpx2.AsyncClient]:
    """As on one machine."""
    async with running(tokens=False) as http:
        yield http


@pytest.fixture
async def there() -> AsyncGenerator[httpx2.AsyncClient]:
    """As in production."""
    async with running(tokens=True) as http:
        yield http


def body(*payloads: Payload) -> Shown:
    return {"payloads": [MessageToDict(payload) for payload in payloads]}


async def sealed(key_id: str) -> Payload:
    [payload] = await HistoryCodec({key_id: KEYS.get(key_id) or os.urandom(32)}).encode([PLAIN])
    return payload


async def test_it_decrypts_what_each_key_encrypted_and_hands_back_what_is_in_clear(here: httpx2.AsyncClient) -> None:
    mixed = body(await sealed("new"), PLAIN, await sealed("old"), Payload())
    answer = await here.post("/decode", json=mixed, headers={"Origin": UI, "X-Namespace": "default"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == body(PLAIN, PLAIN, PLAIN, Payload())
    assert answer.headers["Cache-Control"] == "no-store"


async def test_what_it_encrypts_it_decrypts(here: httpx2.AsyncClient) -> None:
    answer = (await here.post("/encode?preserveStorageRefs=true", json=body(PLAIN))).json()
    [payload] = answer["payloads"]
    assert base64.b64decode(payload["metadata"]["encryption-key-id"]) == b"new"
    assert (await here.post("/decode", json=answer)).json() == body(PLAIN)
    assert (await here.post("/decode", json={})).json() == {}


async def test_an_unknown_key_is_named_and_a_changed_payload_is_told(here: httpx2.AsyncClient) -> None:
    answer = await here.post("/decode", json=body(PLAIN, await sealed("lost")))
    assert (answer.status_code, answer.json()["code"]) == (422, "unreadable")
    assert "'lost', which STREET12_CODEC_KEYS does not hold" in answer.json()["message"]
    changed = await sealed("new")
    changed.data = changed.data[:-1]
    answer = await here.post("/decode", json=body(changed))
    assert (answer.status_code, answer.json()["code"]) == (422, "unreadable")


@pytest.mark.parametrize("call", ["/decode", "/encode"])
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "unauthorized"),
        ({"Authorization": "Basic b3A6b3A="}, 401, "unauthorized"),
        ({"Authorization": "Bearer made.up.token"}, 401, "invalid-token"),
        (bearer("op", Role.OPERATOR, exp=1), 401, "invalid-token"),
        (bearer("op", Role.OPERATOR, aud="somebody-else"), 401, "invalid-token"),
        (bearer("goodman"), 403, "forbidden"),
        (bearer("carrier", Role.CARRIER), 403, "forbidden"),
    ],
)
async def test_with_tokens_only_operators_are_answered(
    there: httpx2.AsyncClient, call: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await there.post(call, json=body(await sealed("new")), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert (await there.post(call, json=body(await sealed("new")), headers=OPERATOR)).status_code == 200


async def test_two_tokens_are_none(there: httpx2.AsyncClient) -> None:
    two = [*OPERATOR.items(), *OPERATOR.items(), ("Content-Type", "application/json")]
    assert (await there.post("/decode", content=b"{}", headers=two)).status_code == 401


async def test_a_page_of_the_web_ui_may_ask_and_no_other(there: httpx2.AsyncClient) -> None:
    wish = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-namespace"}
    asked = await there.options("/decode", headers={"Origin": UI, **wish})
    assert asked.status_code == 204
    assert asked.headers["Access-Control-Allow-Origin"] == UI
    assert asked.headers["Vary"] == "Origin"
    allowed = {name.strip().lower() for name in asked.headers["Access-Control-Allow-Headers"].split(",")}
    assert {"authorization", "content-type", "x-namespace"} <= allowed
    assert "Access-Control-Allow-Credentials" not in asked.headers
    answers = [await there.post("/decode", json=body(PLAIN), headers={"Origin": UI, **more}) for more in (OPERATOR, {})]
    assert [(one.status_code, one.headers["Access-Control-Allow-Origin"]) for one in answers] == [(200, UI), (401, UI)]

    for other in (
        "http://127.0.0.1:8080",
        "https://127.0.0.1:8233",
        "http://evil.example",
        "null",
        f"{UI}.evil.example",
    ):
        for answer in (
            await there.options("/decode", headers={"Origin": other, **wish}),
            await there.post("/decode", json=body(PLAIN), headers={"Origin": other, **OPERATOR}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "origin-refused")
            assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "[::ffff", "", "10.0.0.1"]
)
async def test_without_tokens_no_page_gets_in_under_a_name_of_its_own(here: httpx2.AsyncClient, host: str) -> None:
    answer = await here.post("/decode", json=body(await sealed("new")), headers={"Host": host})
    assert answer.status_code in (400, 403)
    assert "payloads" not in answer.text


async def test_without_tokens_this_machine_is_answered_by_its_own_names(here: httpx2.AsyncClient) -> None:
    for host in ("127.0.0.1", "localhost:8081", "LOCALHOST"):
        assert (await here.post("/decode", json=body(PLAIN), headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    ("asking", "host"),
    [("172.29.12.1", "evil.example"), ("172.29.12.2", "localhost:8081"), ("192.168.0.7", "127.0.0.1")],
)
async def test_without_tokens_in_a_container_its_gateway_is_this_machine_and_no_neighbour(
    asking: str, host: str
) -> None:
    def request(remote: str, host: str) -> web.BaseRequest:
        return make_mocked_request("POST", "/decode", headers={"Host": host}).clone(remote=remote)

    admit: Any = this_machine(["172.29.12.1"])
    await admit(request("172.29.12.1", "localhost:8081"))
    with pytest.raises(Refusal, match="this machine alone"):
        await admit(request(asking, host))


@pytest.mark.parametrize(
    ("sent", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed"),
        (b"", "application/json", 400, "malformed"),
        (b"[1]", "application/json", 400, "malformed"),
        (b'{"payloads": 1}', "application/json", 400, "malformed"),
        (b'{"payloads": [{"data": "a"}]}', "application/json", 400, "malformed"),
        (b'{"payload": []}', "application/json", 400, "malformed"),
        (b"\xff\xfe", "application/json", 400, "malformed"),
        (b"{}", "application/json; charset=klingon", 400, "malformed"),
        (b'{"payloads": ' + b"[" * 100_000, "application/json", 400, "malformed"),
        (b"{}", "text/plain", 415, "not-json"),  # what a page may send without asking first
        (b"{}", "application/x-www-form-urlencoded", 415, "not-json"),
        (b" " * (LARGEST_BODY + 1), "application/json", 413, "too-large"),
    ],
)
async def test_what_is_no_wish_of_the_protocol_is_told_so(
    here: httpx2.AsyncClient, sent: bytes, kind: str, status: int, code: str
) -> None:
    for call in ("/decode", "/encode"):
        answer = await here.post(call, content=sent, headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert len(answer.content) < 300


async def test_a_whole_page_of_a_history_is_decrypted(here: httpx2.AsyncClient) -> None:
    page = body(*[Payload(metadata={"encoding": b"json/plain"}, data=b"x" * 2_000_000)] * 2)
    sealed = (await here.post("/encode", json=page)).json()
    assert (await here.post("/decode", json=sealed)).json() == page


async def test_there_is_nothing_else(here: httpx2.AsyncClient) -> None:
    assert (await here.get("/decode")).status_code == 405
    assert (await here.post("/download", json={})).status_code == 404
    for call in ("/livez", "/readyz"):
        assert (await here.get(call, headers={"Host": "10.0.0.1:8081"})).status_code == 200


async def started(**settings: str) -> asyncio.subprocess.Process:
    own = {name: value for name, value in os.environ.items() if not name.startswith("STREET12_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.codec_server"), cwd=ROOT, env=own | settings, stderr=asyncio.subprocess.PIPE
    )


async def test_the_process_answers_operators_once_it_knows_the_issuer_and_ends_when_asked_to(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    keys = ",".join(f"{key_id}:{base64.b64encode(key).decode()}" for key_id, key in KEYS.items())
    async with running_issuer() as auth:
        alive = tmp_path / "run" / "alive"
        settings = {
            "STREET12_CODEC_KEYS": keys,
            "STREET12_CODEC_PORT": port,
            "STREET12_CODEC_LIVENESS_FILE": str(alive),
        }
        process = await started(**auth, **settings)
        try:
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
                async with asyncio.timeout(30):
                    while not await is_ready(http):  # noqa: ASYNC110  (another process: no event to wait for)
                        await asyncio.sleep(0.05)
                asked = body(await sealed("old"), PLAIN)
                assert (await http.post("/decode", json=asked)).status_code == 401
                assert (await http.post("/decode", json=asked, headers=OPERATOR)).json() == body(PLAIN, PLAIN)
            assert alive.exists()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert (process.returncode, b"Traceback" in said) == (0, False), said


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "The setting STREET12_CODEC_KEYS is not set"),
        ({"STREET12_CODEC_KEYS": f"a:{base64.b64encode(KEYS['new']).decode()}"}, "The setting STREET12_AUTH_ISSUER is"),
        ({"STREET12_CODEC_ORIGINS": "*"}, "The setting STREET12_CODEC_ORIGINS is '*'"),
    ],
)
async def test_a_wrong_setting_ends_it_with_one_sentence(settings: dict[str, str], sentence: str) -> None:
    process = await started(**settings)
    async with asyncio.timeout(30):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().startswith(sentence)
    assert said.count(b"\n") == 1


async def is_ready(http: httpx2.AsyncClient) -> bool:
    try:
        return (await http.get("/readyz")).status_code == 200
    except httpx2.ConnectError:
        return False
