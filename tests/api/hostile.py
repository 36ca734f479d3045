"""Hostile requests. Most of each is in order, so that it gets past the first door."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import quote

from tests.api.test_access import BODIES, RULES
from tests.api.world import CARRIER, HANEUL, MINJI, OPERATOR
from tests.issuer import bearer

Headers = list[tuple[bytes, bytes]]
SAID, TOLD = "canary-said", "canary-told"
"""In values, which come back where they were taken; and in headers, which never come back."""
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "G\u00cbT"]
IDS = [
    *("tea", "pot", "2001", "TEA", "tea%20", "%74ea", "%F0%9F%8D%B5", "order_0", "null", "0", "-1", "%00", "a%00b"),
    *("%0a", "%ff", "%ed%a0%80", "..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a%2fb", "%252e", "%", "%zz", "a" * 65),
    *("a" * 20_000, "'%20OR%201=1--", "%E2%80%AE", "%EF%BB%BF", "%5f", "{orderId}", "a;b=c", "%3Fa", "a%23b"),
    *("%20", SAID),
]
PATHS = [
    *("/", "//", "", "*", "/..", "/../etc/passwd", "//orders", "/orders/", "/ORDERS", "/orders//", "/orders/x/y/z"),
    *("/.git", "/docs", "/openapi.json", "/docs/", "/docs/../api.py", "/favicon.ico", "/problems/not-found"),
    *("/dev/tokens", f"/{SAID}", "/" + "a/" * 3_000, "/%2e%2e/%2e%2e/etc/passwd", "/orders%2f", "/livez/"),
    *("/metrics%00",),
]
QUERIES = [
    *(f"limit={value}" for value in ("1", "0", "101", "-1", "1.0", "9" * 400, "%00", SAID)),
    *(f"cursor={value}" for value in ("", "AAAA", "a" * 201, "%ff", SAID)),
    *("orderStatus=OrderReceived", f"orderStatus={SAID}", "needsAttention=true", "needsAttention=1"),
    *("from=2026-11-24T00:00:00%2B09:00", "to=9999-12-31T23:59:59Z", "from=0000-00-00T00:00:00Z", f"to={SAID}"),
    *("limit=1&limit=2", "surplus=1", "&&&==", "%=%", "a" * 10_000, "\u00ff"),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 100, 101, 1.0, 1.5, -0.0, 1e308, 10**18, 2**63, 10**400, [], {}, [[]]),
    *({"": None}, float("nan"), float("inf"), -float("inf"), "", " ", "\u3000", "\u200b", "\u115f", "1", "01"),
    *("1.0", "\uff11", "1e2", "a\x00b", "a\nb", "a\x1b[31mb", "\x7f", "a\x85b", "\u2028", "\u202eabc", "\u200f"),
    *("\u2066x", "\ufeffx", "\uffff", "\ud800", "\udc00\ud800", "x\U0001f375"),
    *("\U0001f469\u200d\U0001f469\u200d\U0001f466", "\U0010ffff", "\ufb2c" * 90, "e\u0301" * 60),
    *("\u1100\u1161\u11a8", "x" * 64, "x" * 65, "x" * 301, "x" * 20_000, "\u00a0x\u00a0", "\tx\n", "م ع"),
    *("' OR 1=1 --", "<script>alert(1)</script>", "${jndi:ldap://x}", "%s%n", "../../etc/passwd", "{{7*7}}"),
    *("=1+1", "+82 10 1234 5678", "010.1234.5678", "02-123-4567", "010-1234-567", "+1 212 555 0000"),
    *("０１０-1234-5678", "minji", "haneul", "tea", "pot", "OrderCanceled", "Order Canceled", "Delivered", "retry"),
    *("NotPaid", "KRW", "USD"),
]
FIELDS = [
    *("productId", "qty", "username", "address", "phoneNo", "paymentMethod", "productPrice", "userId", "payStatus"),
    *("productName", "currency", "reason", "step", "action", "event", "orderStatus", "__proto__", "constructor"),
    *("orderId", "amount", "version", "", "\x00", "\ud800", "qty ", "QTY", "surplus"),
]
TEXTS = [
    *(b"*/*", b"application/json", b"text/event-stream", b"text/html", b"application/*;q=0", b"", b",", b";"),
    *(b"a" * 9_000, b"\xff\xfe", b"\xed\x95\x9c", b"\x00", b"\x01", b"a\tb", b'"v1"', b'W/"v1"', b'"v2", "v1"'),
    *(b'"v1', b"*", b"v1", b'""', b"0", b"1", b"-1", b"\xb2", b"9" * 400, b"wait=1", b"wait=99999999999"),
    *(b"wait=-1", b"respond-async, wait=0", b"null", b"https://evil.example", b"gzip", b"identity", b"chunked"),
    *(b"en", b"ko;q=0.1, en;q=0.9", b"127.0.0.1", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    *(b"00-" + b"0" * 32, TOLD.encode(), b"{}", b"%00"),
]
NAMES = [
    *(b"accept", b"accept-language", b"accept-encoding", b"content-encoding", b"content-length", b"if-match"),
    *(b"if-none-match", b"last-event-id", b"prefer", b"traceparent", b"tracestate", b"x-request-id", b"origin"),
    *(b"host", b"cookie", b"range", b"expect", b"x-forwarded-for", b"x-http-method-override", b"x-user-id"),
    *(b"forwarded", b"access-control-request-method", b"idempotency-key", b"authorization", b"content-type"),
    *(TOLD.encode(), b""),
]
STALE = bearer("minji", exp=1), bearer("minji", aud="another"), bearer("")


@dataclass(frozen=True)
class Sent:
    """A request: what it is made of, as it goes over the wire."""

    method: str
    target: bytes
    headers: Headers
    body: Sequence[bytes]

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("ascii", "replace")

    def header(self, name: bytes) -> bytes | None:
        return next((value for known, value in self.headers if known == name), None)


class Attacker:
    """Makes requests up, the same ones from the same seed. What it learned is put into later ones."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._number = 0
        self.order_ids: list[str] = []

    def request(self) -> Sent:
        self._number += 1
        call = self._random.choice([*RULES, *["POST /orders"] * 8, *["PATCH /orders/{orderId}"] * 2])
        method, template = call.split(" ")
        if self._rarely():
            method = self._random.choice(METHODS)
        body = self._body(BODIES.get(call), keyed="movements" in template)
        headers = self._headers(call, body)
        size = self._random.choice([1, 7, 1000]) if len(body) < 1000 and self._rarely() else 65_536
        return Sent(method, self._target(template), headers, [body[at : at + size] for at in range(0, len(body), size)])

    def _rarely(self, chance: float = 0.08) -> bool:
        return self._random.random() < chance

    def _target(self, template: str) -> bytes:
        if self._rarely():
            path = self._random.choice(PATHS)
        else:
            order_id = self._random.choice(self.order_ids[-30:] if self.order_ids and not self._rarely(0.2) else IDS)
            product_id = self._random.choice(["tea", "pot", "2001"] if not self._rarely(0.2) else IDS)
            path = template.replace("{orderId}", order_id).replace("{productId}", product_id)
        query = self._random.choice(QUERIES) if self._rarely(0.15) else ""
        return quote(f"{path}?{query}" if query else path, safe="%/?&=:;{}'*,.~+#[]@!$()").encode()

    def _headers(self, call: str, body: bytes) -> Headers:
        who = self._random.choice(RULES[call]) or MINJI
        if self._rarely(0.15):
            who = self._random.choice([MINJI, HANEUL, OPERATOR, CARRIER, {}, *STALE])
        found = {name.lower().encode(): value.encode() for name, value in who.items()}
        if self._rarely(0.05):
            found[b"authorization"] = self._random.choice(
                [f"Bearer {TOLD}".encode(), b"Bearer", b"Basic eDp5", b"Bearer \xff", b"Bearer a.b.c", *TEXTS]
            )
        if not self._rarely(0.05):
            found[b"content-type"] = b"application/json"
        if not self._rarely(0.05):
            fresh = f"{TOLD}-{self._number}".encode()
            found[b"idempotency-key"] = fresh if not self._rarely(0.1) else b"k%d" % self._random.randrange(10)
        listed = [*found.items()]
        if body and not self._rarely(0.3):
            listed.append((b"content-length", b"%d" % len(body)))
        for _ in range(3):
            if self._rarely(0.3):
                listed.append((self._random.choice(NAMES), self._random.choice(TEXTS)))
        return listed

    def _body(self, usual: dict[str, Any] | None, *, keyed: bool) -> bytes:
        if usual is None and not self._rarely():
            return b""
        fields = {**(usual or {})}
        if keyed:
            fields["qty"] = self._random.choice([1, 5, -1, 1_000_000, -1_000_000])
        for _ in range(self._random.choice([0, 0, 0, 1, 1, 2, 4])):
            self._spoil(fields)
        text = json.dumps(fields, ensure_ascii=self._rarely(0.5))
        return self._packed(text) if self._rarely() else text.encode("utf-8", "surrogatepass")

    def _spoil(self, fields: dict[str, Any]) -> None:
        name = self._random.choice([*fields, self._random.choice(FIELDS)])
        if self._rarely(0.15):
            fields.pop(name, None)
        elif self._rarely(0.3):
            fields[name] = f"{SAID}{self._random.choice(['', '-굿', ' ', 'e' + chr(0x301)])}"
        else:
            fields[name] = self._random.choice(VALUES)

    def _packed(self, text: str) -> bytes:
        plain = text.encode("utf-8", "replace")
        deep = 10 ** self._random.randrange(5)
        cut = self._random.randrange(len(plain))
        broken = [
            plain[:cut],
            b"\xef\xbb\xbf" + plain,
            gzip.compress(plain),
            b"\xff" + plain,
            plain * 2,
            b"x" * 1_000_000,
        ]
        other = [text.encode("utf-16", "replace"), text.encode("utf-32", "replace"), plain.replace(b'"', b"'"), b"\x00"]
        nested = [b"[" * deep + b"]" * deep, b'{"a":' * deep + b"1" + b"}" * deep, b"null", b"[]", b'"x"', b"1"]
        strange = [
            plain[:-1] + b', "qty": 3, "qty": 4, "qty": 5}',
            plain[:-1] + b', "surplus": {"a": [NaN, Infinity, -Infinity]}}',
            plain.replace(b":", b": " + b" " * 30_000, 1),
        ]
        return self._random.choice([*broken, *other, *nested, *strange])
