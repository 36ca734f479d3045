"""The payment simulator's books: an SQLite file that holds every intent, refund and answer, and survives a kill.

An effect and the answer that tells of it are written in one transaction, so a repeated request finds both or neither.
"""

import json
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_APPLICATION_ID = 0x73743132  # "st12": marks the file as ours
_TABLES = """
CREATE TABLE IF NOT EXISTS intents (
    id TEXT PRIMARY KEY, order_id TEXT NOT NULL, metadata TEXT NOT NULL, amount INTEGER NOT NULL,
    currency TEXT NOT NULL, status TEXT NOT NULL, payment_method TEXT, created INTEGER NOT NULL,
    charged INTEGER NOT NULL DEFAULT 0 CHECK (charged IN (0, amount)),
    refunded INTEGER NOT NULL DEFAULT 0 CHECK (refunded BETWEEN 0 AND charged)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS intents_by_order ON intents (order_id);
CREATE INDEX IF NOT EXISTS intents_by_time ON intents (created, id);
CREATE TABLE IF NOT EXISTS refunds (
    id TEXT PRIMARY KEY, intent_id TEXT NOT NULL REFERENCES intents (id), amount INTEGER NOT NULL CHECK (amount > 0)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outages (subject TEXT PRIMARY KEY, tries INTEGER NOT NULL) WITHOUT ROWID;
"""
_INTENT = "id, metadata, amount, currency, status, payment_method, created, charged, refunded"


class NotALedger(Exception):
    """The file cannot be used as the simulator's books; the message says why."""


@dataclass(frozen=True)
class Intent:
    """One payment intent. Amounts are in the currency's minor unit; the currency is lower case, as on the wire."""

    id: str
    metadata: dict[str, str]
    amount: int
    currency: str
    status: str
    payment_method: str | None
    created: int
    charged: int = 0
    refunded: int = 0


@dataclass(frozen=True)
class Refund:
    """What was given back of an intent's charge."""

    intent_id: str
    amount: int


@dataclass(frozen=True)
class StoredAnswer:
    """What was answered under an idempotency key, and to which request."""

    fingerprint: str
    status: int
    body: str


class Ledger:
    """The books. Every method that changes them belongs inside `transaction()`, which ends on the disk."""

    def __init__(self, path: Path) -> None:
        """Open or start the books. Raises `NotALedger`."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise NotALedger(f"{path} cannot be opened: {error}") from error
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._database.close()
            raise NotALedger(f"{path} is not a payment ledger: {error}") from error
        except NotALedger:
            self._database.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All of the block's changes, on the disk when this ends; none if anything fails."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def open_intent(self, intent: Intent) -> None:
        """Write a new intent down."""
        self._database.execute(
            f"INSERT INTO intents ({_INTENT}, order_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                intent.id,
                json.dumps(intent.metadata),
                intent.amount,
                intent.currency,
                intent.status,
                intent.payment_method,
                intent.created,
                intent.charged,
                intent.refunded,
                intent.metadata.get("order_id", intent.id),
            ),
        )

    def find_intent(self, intent_id: str) -> Intent | None:
        """The intent as it stands, if there is one."""
        row = self._database.execute(f"SELECT {_INTENT} FROM intents WHERE id = ?", (intent_id,)).fetchone()
        return row and Intent(row[0], json.loads(row[1]), *row[2:])

    def intents(self, *, since: int, until: int, after: Intent | None, limit: int) -> list[Intent]:
        """So many intents that were made at `since` or later and before `until`, newest first, from behind one."""
        behind = (after.created, after.id) if after else (until, "")  # one condition: the index is read from there
        rows = self._database.execute(
            f"SELECT {_INTENT} FROM intents WHERE created >= ? AND (created, id) < (?, ?)"
            " ORDER BY created DESC, id DESC LIMIT ?",
            (since, *behind, limit),
        )
        return [Intent(row[0], json.loads(row[1]), *row[2:]) for row in rows]

    def intent(self, intent_id: str) -> Intent:
        """An intent that is known to exist."""
        found = self.find_intent(intent_id)
        assert found is not None
        return found

    def charge(self, intent_id: str, payment_method: str) -> None:
        """Take the whole amount. Whether that is allowed was decided before."""
        self._database.execute(
            "UPDATE intents SET status = 'succeeded', charged = amount, payment_method = ? WHERE id = ?",
            (payment_method, intent_id),
        )

    def cancel(self, intent_id: str) -> None:
        """Void the intent."""
        self._database.execute("UPDATE intents SET status = 'canceled' WHERE id = ?", (intent_id,))

    def refund(self, refund_id: str, intent_id: str, amount: int) -> None:
        """Give back this much of the charge; more than was charged fails."""
        self._database.execute("INSERT INTO refunds VALUES (?, ?, ?)", (refund_id, intent_id, amount))
        self._database.execute("UPDATE intents SET refunded = refunded + ? WHERE id = ?", (amount, intent_id))

    def find_refund(self, refund_id: str) -> Refund | None:
        """A refund, if there is one."""
        row = self._database.execute("SELECT intent_id, amount FROM refunds WHERE id = ?", (refund_id,)).fetchone()
        return row and Refund(*row)

    def refunds_of(self, intent_id: str) -> list[tuple[str, int]]:
        """The ids and amounts of an intent's refunds."""
        return self._database.execute("SELECT id, amount FROM refunds WHERE intent_id = ?", (intent_id,)).fetchall()

    def count_try(self, subject: str) -> int:
        """Which try this is, counted from 1."""
        [tries] = self._database.execute(
            "INSERT INTO outages VALUES (?, 1) ON CONFLICT DO UPDATE SET tries = tries + 1 RETURNING tries",
            (subject,),
        ).fetchone()
        return tries

    def find_answer(self, key: str) -> StoredAnswer | None:
        """What was answered under an idempotency key, if anything was."""
        row = self._database.execute("SELECT fingerprint, status, body FROM answers WHERE key = ?", (key,)).fetchone()
        return row and StoredAnswer(*row)

    def store_answer(self, key: str, answer: StoredAnswer) -> None:
        """Keep an answer; a second one under the same key fails."""
        self._database.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?)", (key, answer.fingerprint, answer.status, answer.body)
        )

    def totals(self) -> list[dict[str, Any]]:
        """Per order that was ever charged: what was charged and given back, and how often, over all its intents.

        An intent that names no order counts under its own id.
        """
        rows = self._database.execute(
            "SELECT order_id, SUM(charged), SUM(refunded), UPPER(currency), COUNT(*), SUM(times) FROM"
            " (SELECT *, (SELECT COUNT(*) FROM refunds WHERE intent_id = intents.id) AS times FROM intents)"
            " WHERE charged > 0 GROUP BY order_id, currency ORDER BY order_id"
        )
        names = ("orderId", "charged", "refunded", "currency", "charges", "refunds")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _prepare(self, path: Path) -> None:
        tables = self._one("SELECT COUNT(*) FROM sqlite_master")
        if tables and self._one("PRAGMA application_id") != _APPLICATION_ID:
            raise NotALedger(f"{path} is not a payment ledger but another database")
        damage = self._one("PRAGMA quick_check")
        if damage != "ok":
            raise NotALedger(f"{path} is damaged: {damage}")
        # FULL: what was answered survives a power cut, too.
        for setting in ("journal_mode = WAL", "synchronous = FULL", f"application_id = {_APPLICATION_ID}"):
            self._database.execute(f"PRAGMA {setting}").fetchall()
        self._database.executescript(_TABLES)

    def _one(self, query: str) -> Any:
        return self._database.execute(query).fetchone()[0]
