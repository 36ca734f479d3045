"""The shop's REST API as a caller meets it: who calls, what an error says, and what is sent again."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import quote

import httpx2

Json = dict[str, Any]
Query = dict[str, str | int]
Role = Literal["customer", "operator", "carrier"]
Say = Callable[[str], None]
ANSWER_SECONDS = 15.0
QUIET_SECONDS = 60.0
"""How long an answer that comes bit by bit may pause. A timeline's heartbeat comes more often."""
ATTEMPTS = 6
PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
COME_BACK = (429, 503)
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)


class ClientError(Exception):
    """Why a call did not do what was asked, for the person who made it; `hint` is what can be done about it."""

    hint: str = ""


class Unreachable(ClientError):
    """No answer came. `maybe_done`: the request may have arrived all the same."""

    def __init__(self, api: str, why: Exception) -> None:
        super().__init__(f"The shop at {api} does not answer ({str(why) or type(why).__name__}).")
        self.hint = "Start one with `make run`, or look whether its address is right."
        self.maybe_done = not isinstance(why, _NOT_SENT)


class NotTheShop(ClientError):
    """An answer came, but none that the shop's API gives."""

    def __init__(self, asked: str) -> None:
        super().__init__(f"{asked} was not answered as the API of this shop does: is the address right?")


class Refused(ClientError):
    """The shop's answer is a problem; `problem` is its document, empty where there is none."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.status = answer.status_code
        self.problem = _document(answer) or {}
        if location := answer.headers.get("Location"):  # of an order that was accepted and then declined
            self.hint = f"See {location}"
        seconds = answer.headers.get("Retry-After", "")
        self.retry_after_seconds = float(seconds) if seconds.isdecimal() else PAUSE_SECONDS
        super().__init__(str(self.problem.get("detail") or f"{_asked(answer)} was answered {self.status}."))


@dataclass(frozen=True)
class Who:
    """In whose name a call is made where the shop signs tokens itself."""

    sub: str
    role: Role = "customer"


@dataclass(frozen=True)
class Placed:
    """An accepted order. `replayed`: its key had placed it before."""

    order: Json
    replayed: bool


def path(*segments: str) -> str:
    """A path of the API. Whatever is in a segment stays in it."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


class ShopClient:
    """Calls on the shop's API. Each raises `Unreachable`, `Refused` or `NotTheShop`.

    With a token of the caller's own, all are made with that. Without one, the one-machine shop signs one for whoever
    calls. `language` is that of the problems.
    """

    def __init__(
        self,
        api: str,
        *,
        token: str | None = None,
        language: str = "en",
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.sleep = sleep
        self._api = api
        self._own_token = token
        self._signed: dict[Who, str] = {}
        try:
            self._http = httpx2.Client(
                base_url=api,
                headers={"Accept-Language": language},
                timeout=ANSWER_SECONDS,
                trust_env=False,
                transport=transport,
            )
        except httpx2.InvalidURL as error:
            raise Unreachable(api, error) from None

    def sign(self, who: Who) -> Json:
        """A token of the one-machine shop, as it is answered. Raises `ClientError` where the shop signs none."""
        try:
            return _content(self._send("POST", "/dev/tokens", None, {}, {"sub": who.sub, "role": who.role}))
        except Refused as error:
            if error.status != 404:
                raise
            raise ClientError("This shop signs no tokens itself: give one with --token or STREET12_TOKEN.") from None

    def get(self, where: str, who: Who | None = None, query: Query | None = None) -> Json:
        """What can be read there."""
        return _content(self._send("GET", where, who, {}, query=query))

    def all_items(self, where: str, who: Who, query: Query) -> list[Json]:
        """A list with all its pages."""
        items, query = list[Json](), query | {"limit": 100}
        while True:
            page = self.get(where, who, query)
            items += page["items"]
            if page["nextCursor"] is None:
                return items
            query = query | {"cursor": page["nextCursor"]}

    def post(self, where: str, who: Who, body: Json | None = None, headers: dict[str, str] | None = None) -> Json:
        """Say something to the shop, once."""
        return _content(self._send("POST", where, who, headers or {}, body))

    def place(self, body: Json, who: Who, *, key: str, say: Say, wait: int = 0) -> Placed:
        """Order once, however often it must be sent. Waits for the payment, but no longer than so many seconds."""
        headers = {"Idempotency-Key": key} | ({"Prefer": f"wait={wait}"} if wait else {})
        answer = self._insist("/orders", who, headers, body, say, seconds=ANSWER_SECONDS + wait)
        return Placed(_content(answer), replayed=answer.headers.get("Idempotent-Replayed") == "true")

    def move_stock(self, product_id: str, body: Json, who: Who, *, key: str, say: Say) -> Json:
        """Change a product's stock once, however often it must be sent."""
        where = path("stocks", product_id, "movements")
        return _content(self._insist(where, who, {"Idempotency-Key": key}, body, say, seconds=ANSWER_SECONDS))

    @contextmanager
    def stream(self, where: str, who: Who, headers: dict[str, str]) -> Generator[httpx2.Response]:
        """An answer that is read as it comes. Where it breaks meanwhile, that is `Unreachable`."""
        headers = self._bearer(who) | headers
        try:
            with self._http.stream("GET", where, headers=headers, timeout=QUIET_SECONDS) as answer:
                if not answer.is_success:
                    answer.read()
                    raise Refused(answer)
                yield answer
        except httpx2.RequestError as error:
            raise Unreachable(self._api, error) from None

    def renew(self, who: Who) -> bool:
        """Have a new token signed for the next call. Not where it is the caller's own."""
        return self._signed.pop(who, None) is not None

    def _insist(
        self, where: str, who: Who, headers: dict[str, str], body: Json, say: Say, *, seconds: float
    ) -> httpx2.Response:
        """Send a request with an Idempotency-Key until the shop has said yes or no, or has been asked often enough."""
        key, maybe_done = headers["Idempotency-Key"], False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._send("POST", where, who, headers, body, seconds=seconds)
            except Unreachable as error:
                trouble, pause = error, PAUSE_SECONDS
                maybe_done = maybe_done or error.maybe_done
                worthwhile = maybe_done
            except Refused as error:
                trouble, pause = error, error.retry_after_seconds
                worthwhile = error.status in COME_BACK
            if not worthwhile:
                raise trouble
            if attempt == ATTEMPTS or pause > LONGEST_PAUSE_SECONDS:
                trouble.hint = f"Sent again with the Idempotency-Key {key}, it is done once."
                raise trouble
            say(f"{trouble} It is sent again in {pause:g} s, with the same Idempotency-Key {key}.")
            self.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _send(
        self,
        method: str,
        where: str,
        who: Who | None,
        headers: dict[str, str],
        body: Json | None = None,
        *,
        query: Query | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> httpx2.Response:
        headers = self._bearer(who) | headers if who else headers
        try:
            answer = self._http.request(method, where, headers=headers, params=query, json=body, timeout=seconds)
        except httpx2.RequestError as error:
            raise Unreachable(self._api, error) from None
        if not answer.is_success:
            raise Refused(answer)
        return answer

    def _bearer(self, who: Who) -> dict[str, str]:
        token = self._own_token or self._signed.get(who)
        if token is None:
            token = self._signed[who] = str(self.sign(who)["accessToken"])
        return {"Authorization": f"Bearer {token}"}


def _content(answer: httpx2.Response) -> Json:
    content = _document(answer)
    if content is None:
        raise NotTheShop(_asked(answer))
    return content


def _document(answer: httpx2.Response) -> Json | None:
    try:
        content = answer.json()
    except ValueError:
        return None
    return cast(Json, content) if isinstance(content, dict) else None


def _asked(answer: httpx2.Response) -> str:
    return f"{answer.request.method} {answer.request.url}"
