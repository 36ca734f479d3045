"""An order team that sells tea: what the tests of its services have in common."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from services.order.acceptance import Acceptance, Accepted, NewOrder
from services.order.admission import Admission
from services.order.catalogue import Catalogue
from services.order.circuit import AdmissionRules
from services.shared.clock import Clock, utc_now
from services.shared.database import Database

R = TypeVar("R", bound=SQLModel)

LEASE = timedelta(seconds=10)
NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
TEA = NewOrder(
    product_id="tea",
    qty=3,
    username="김하늘",
    address="서울",
    phone_no="010-0000-0000",
    payment_method="pm_card_visa",
)


class HeldClock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def accepting(
    database: Database,
    clock: Clock = utc_now,
    *,
    rules: AdmissionRules | None = None,
    on_hand: Mapping[str, int] | None = None,
) -> Acceptance:
    """Acceptance with room for many, or by these rules, where so many pieces are known to be in stock."""

    async def known(_: Collection[str]) -> Mapping[str, int]:
        return on_hand or {}

    admission = Admission(rules or AdmissionRules(max_pending=1000), clock)
    return Acceptance(database, admission, lease=LEASE, on_hand=known, clock=clock)


async def selling_tea(database: Database, clock: Clock, on_hand: Mapping[str, int] | None = None) -> Acceptance:
    """Acceptance in a shop that has tea in its catalogue, at 1000 won."""
    await Catalogue(database).put(product_id="tea", product_name="녹차", product_price=1000)
    return accepting(database, clock, on_hand=on_hand)


async def rows(database: Database, table: type[R]) -> Sequence[R]:
    async def work(session: AsyncSession) -> Sequence[R]:
        return (await session.exec(select(table))).all()

    return await database.read(work)


async def accept(
    acceptance: Acceptance,
    key: str = "k1",
    request: NewOrder = TEA,
    *,
    user_id: str = "u1",
    traceparent: str | None = None,
) -> Accepted:
    return await acceptance.accept(user_id=user_id, idempotency_key=key, request=request, traceparent=traceparent)
