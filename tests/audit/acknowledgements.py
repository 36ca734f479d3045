"""What a load client was told, kept outside the system: one line of JSON each, on the disk before the client goes on.

What stands here is what the shop promised somebody, whatever its own books say afterwards.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Self

from services.order.statuses import OrderStatus


@dataclass(frozen=True, kw_only=True)
class OrderAccepted:
    """An order was answered with 2xx or 402: what it is, and the key that it was asked for with."""

    kind: ClassVar[str] = "accepted"
    order_id: str
    user: str
    product_id: str
    qty: int
    amount: int
    key: str
    status: int
    replayed: bool


@dataclass(frozen=True, kw_only=True)
class Paid:
    """The customer was told that the order is paid (201)."""

    kind: ClassVar[str] = "paid"
    order_id: str


@dataclass(frozen=True, kw_only=True)
class Declined:
    """The customer was told that the payment was declined (402)."""

    kind: ClassVar[str] = "declined"
    order_id: str


@dataclass(frozen=True, kw_only=True)
class Canceled:
    """Somebody was told that the order will be undone (202)."""

    kind: ClassVar[str] = "canceled"
    order_id: str


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """The carrier was told that the delivery is noted (202)."""

    kind: ClassVar[str] = "delivered"
    order_id: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Somebody was shown where the order stands."""

    kind: ClassVar[str] = "shown"
    order_id: str
    version: int
    status: OrderStatus


Acknowledgement = OrderAccepted | Paid | Declined | Canceled | Delivered | Shown
_KINDS: dict[str, type[Acknowledgement]] = {
    kind.kind: kind for kind in (OrderAccepted, Paid, Declined, Canceled, Delivered, Shown)
}


class NotALog(Exception):
    """The file is no log of acknowledgements, or a damaged one; the message says where."""


class Acknowledgements:
    """Writes the log, going on behind what is there. Each note is on the disk when its method returns.

    One at a time: notes of several tasks of one process come in the order in which they were made. What is `shown` of
    one order must be noted in the order in which it was asked for, so by one reader who asks again only afterwards.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._end_torn_line()

    def accepted(
        self,
        order_id: str,
        *,
        user: str,
        product_id: str,
        qty: int,
        amount: int,
        key: str,
        status: int,
        replayed: bool = False,
    ) -> None:
        """`POST /orders` named this order, with this HTTP status."""
        self._note(
            OrderAccepted(
                order_id=order_id,
                user=user,
                product_id=product_id,
                qty=qty,
                amount=amount,
                key=key,
                status=status,
                replayed=replayed,
            )
        )

    def paid(self, order_id: str) -> None:
        """An order was answered with 201."""
        self._note(Paid(order_id=order_id))

    def declined(self, order_id: str) -> None:
        """An order was answered with 402."""
        self._note(Declined(order_id=order_id))

    def cancel(self, order_id: str) -> None:
        """A cancel was answered with 202."""
        self._note(Canceled(order_id=order_id))

    def delivered(self, order_id: str) -> None:
        """A carrier's event was answered with 202."""
        self._note(Delivered(order_id=order_id))

    def shown(self, order_id: str, version: int, status: str) -> None:
        """The order was shown in this version, with this status. Raises `ValueError` for a status there is not."""
        self._note(Shown(order_id=order_id, version=version, status=OrderStatus(status)))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note(self, acknowledgement: Acknowledgement) -> None:
        line = json.dumps({"kind": acknowledgement.kind, **asdict(acknowledgement)}, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _end_torn_line(self) -> None:
        """Cut off what a killed client left of its last note, which nobody relied on yet."""
        self._file.seek(0)
        whole = self._file.read().rpartition(b"\n")
        self._file.truncate(len(whole[0]) + len(whole[1]))


def read(path: Path) -> list[Acknowledgement]:
    """What was noted, in that order. A last line that was cut off does not count. Raises `NotALog`, `OSError`."""
    lines = path.read_bytes().split(b"\n")
    return list(_parsed(path, lines[:-1]))  # what comes behind the last end of line is torn, or nothing


def _parsed(path: Path, lines: Iterable[bytes]) -> Iterable[Acknowledgement]:
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line)
            kind = _KINDS[fields.pop("kind")]
            if "status" in fields and kind is Shown:
                fields["status"] = OrderStatus(fields["status"])
            yield kind(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotALog(f"{path}, line {number}, is no acknowledgement: {error}") from error
