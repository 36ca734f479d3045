"""An order team that sells tea: what the tests of its services have in common."""

from collections.abc import Sequence
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


def accepting(database: Database, clock: Clock = utc_now, *, max_pending: int = 1000) -> Acceptance:
    """Acceptance with room for many."""
    return Acceptance(database, Admission(AdmissionRules(max_pending=max_pending), clock), lease=LEASE, clock=clock)


async def selling_tea(database: Database, clock: Clock) -> Acceptance:
    """Acceptance in a shop that has tea in its catalogue, at 1000 won."""
    await Catalogue(database).put(product_id="tea", product_name="녹차", product_price=1000)
    return accepting(database, clock)


async def rows(database: Database, table: type[R]) -> Sequence[R]:
    async def work(session: AsyncSession) -> Sequence[R]:
        return (await session.exec(select(table))).all()

    return await database.read(work)


async def accept(
    acceptance: Acceptance, key: str = "k1", request: NewOrder = TEA, *, user_id: str = "u1", out: bool = False
) -> Accepted:
    async def known_out() -> bool:
        return out

    return await acceptance.accept(user_id=user_id, idempotency_key=key, request=request, known_out_of_stock=known_out)
