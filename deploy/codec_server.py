"""Decrypts histories for people: `python -m deploy.codec_server`, which the Temporal Web UI and command line ask.

Speaks Temporal's remote codec protocol: `POST /decode` and `/encode` take `{"payloads": […]}` and answer the same. What
stands in clear comes back as it is. Whose keys and origins, and whether operators need a token, say the settings.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from temporalio.api.common.v1 import Payload, Payloads

from deploy.this_machine import is_this_machine
from services.gateway.caller import Role
from services.gateway.tokens import InvalidToken, KeysUnavailable, SigningKeys, Tokens, jwks_at
from services.shared.health import background, keep_alive
from services.shared.logs import configure_logs
from services.shared.settings import (
    AuthSettings,
    CodecServerSettings,
    CodecSettings,
    LogSettings,
    WrongSetting,
    read_settings,
)
from workflows.codec import HistoryCodec, Unreadable

LARGEST_BODY = 8 * 1024 * 1024
"""A page of a history has 4 MB at most, and is longer in base64."""
_REQUEST_SECONDS = 15.0
_SHUTDOWN_SECONDS = 5.0
_ASKED = ("/decode", "/encode")
_PREFLIGHT = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "POST",
    # The second token is the Web UI's own (who somebody is), and not looked at.
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Authorization-Extras, Content-Type, X-Namespace",
    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
}
_KEPT_BY_NOBODY = {hdrs.CACHE_CONTROL: "no-store"}
_log = structlog.get_logger(__name__)
Admit = Callable[[web.Request], Awaitable[None]]
"""Lets those pass who may ask. Raises `Refusal`."""


class Refusal(Exception):
    """Why somebody gets no answer, as they are told."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def create_app(
    codec: HistoryCodec, admit: Admit, *, origins: Sequence[str], ready: Callable[[], bool] = lambda: True
) -> web.Application:
    """What an HTTP server serves. From a browser only pages of these origins may ask."""

    async def decode(request: web.Request) -> web.Response:
        return _answer(await codec.decode(await _payloads(request)))

    async def encode(request: web.Request) -> web.Response:
        return _answer(await codec.encode(await _payloads(request)))

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        if ready():
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "the issuer's keys are not known, or it is stopping"}, status=503)

    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                if request.path in _ASKED and request.method == hdrs.METH_POST:
                    await admit(request)  # before their body arrives
                return await handler(request)
        except Refusal as refusal:
            return _error(refusal.status, refusal.code, str(refusal))
        except Unreadable as error:
            _log.warning("cannot be decrypted", error=str(error))
            return _error(422, "unreadable", str(error))
        except web.HTTPRequestEntityTooLarge:
            return _error(413, "too-large", f"a body has {LARGEST_BODY} bytes at most")
        except web.HTTPException as error:
            return _error(error.status, "refused", error.reason)
        except TimeoutError:
            return _error(408, "too-slow", f"the request did not arrive within {_REQUEST_SECONDS:.0f} s")

    @web.middleware
    async def across_origins(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)  # every browser names it with each POST
        if origin is None:
            return await answer(request, handler)
        if origin not in origins:
            return _error(403, "origin-refused", "the page that asks is not of STREET12_CODEC_ORIGINS")
        if request.method == hdrs.METH_OPTIONS and request.path in _ASKED:
            answered: web.StreamResponse = web.Response(status=204, headers=_PREFLIGHT)
        else:
            answered = await answer(request, handler)
        answered.headers.update({hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin, hdrs.VARY: "Origin"})
        return answered

    app = web.Application(middlewares=[across_origins], client_max_size=LARGEST_BODY)
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz)])
    app.add_routes([web.post("/decode", decode), web.post("/encode", encode)])
    return app


def operators(tokens: Tokens, role: str = Role.OPERATOR) -> Admit:
    """Whoever shows an operator's token."""

    async def admit(request: web.Request) -> None:
        given = request.headers.getall(hdrs.AUTHORIZATION, [])
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer":
            raise Refusal(401, "unauthorized", "it takes one Authorization: Bearer token of an operator")
        try:
            claims = await tokens.read(token.strip())
        except InvalidToken:
            raise Refusal(401, "invalid-token", "the token is not a good one") from None
        except KeysUnavailable:
            raise Refusal(503, "keys-unavailable", "the issuer's keys are not known yet") from None
        if claims.role != role:
            raise Refusal(403, "forbidden", "the token is not an operator's")

    return admit


def this_machine(own_addresses: Collection[str] = ()) -> Admit:
    """This machine alone, by its own names; `own_addresses` are its own beside the loopback."""

    async def admit(request: web.Request) -> None:
        try:
            name = urlsplit(f"//{request.host}").hostname
        except ValueError:
            name = None
        if not is_this_machine(name, request.remote, own_addresses):
            raise Refusal(403, "host-refused", "it answers this machine alone, as 127.0.0.1 and localhost")

    return admit


async def _payloads(request: web.Request) -> list[Payload]:
    if request.content_type != "application/json":
        raise Refusal(415, "not-json", "the body must be application/json")
    try:
        return list(Parse(await request.text(), Payloads()).payloads)
    except (ParseError, ValueError, LookupError, RecursionError):  # also a charset that nobody knows
        raise Refusal(
            400, "malformed", 'the body must be {"payloads": [{"metadata": {…}, "data": "base64"}, …]}'
        ) from None


def _answer(payloads: Sequence[Payload]) -> web.Response:
    text = MessageToJson(Payloads(payloads=payloads), indent=None)
    return web.Response(text=text, content_type="application/json", headers=_KEPT_BY_NOBODY)


def _error(status: int, code: str, message: str) -> web.Response:
    challenge = {hdrs.WWW_AUTHENTICATE: "Bearer"} if status == 401 else {}
    return web.json_response({"code": code, "message": message}, status=status, headers=_KEPT_BY_NOBODY | challenge)


async def _serve(settings: CodecServerSettings, codec: HistoryCodec) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    admit, keys, fetching = this_machine(settings.this_machine), None, None
    if settings.tokens:
        auth = read_settings(AuthSettings)
        keys = SigningKeys(jwks_at(str(auth.jwks_url)))
        admit = operators(Tokens(keys, issuer=auth.issuer, audience=auth.audience, role_claim=auth.role_claim))
        fetching = asyncio.create_task(keys.keep_fresh())

    def ready() -> bool:
        try:
            if keys is not None:
                keys.must_be_known()
        except KeysUnavailable:
            return False
        return not stopped.is_set()

    app = create_app(codec, admit, origins=settings.origins, ready=ready)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        async with background(keep_alive(settings.liveness_file)):
            await web.TCPSite(runner, settings.host, settings.port).start()
            _log.info("decrypting", addresses=[str(address) for address in runner.addresses], tokens=settings.tokens)
            await stopped.wait()
    finally:
        await runner.cleanup()
        if fetching is not None:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)


def main() -> int:
    """Serve until SIGTERM or SIGINT. Exit status 1 when a setting is wrong or the port is taken."""
    try:
        configure_logs("codec", read_settings(LogSettings))
        settings = read_settings(CodecServerSettings)
        keys = read_settings(CodecSettings, encrypt=True).by_id  # also while the shop itself does not encrypt yet
        asyncio.run(_serve(settings, HistoryCodec(keys, accept_plain=True)))
    except WrongSetting as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, OverflowError) as error:
        print(f"The codec server cannot listen at its address: {error}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
