"""Every write that there is, in each of the situations that make a difference to it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio.testing import ActivityEnvironment

from activities.contract import AdjustStock, IssueCoupon, PayOrder, RecordStatus, StartDelivery
from activities.delivery import DeliveryActivities
from activities.marketing import MarketingActivities
from activities.order import OrderActivities
from services.delivery.deliveries import Deliveries
from services.delivery.stock import Warehouse
from services.marketing.coupons import Coupons
from services.order.acceptance import Acceptance
from services.order.admission import Admission
from services.order.book import OrderBook
from services.order.catalogue import Catalogue
from services.order.circuit import AdmissionRules
from services.order.comparison import Code, Outcome
from services.order.dispatch import Inbox
from services.order.housekeeping import Housekeeping
from services.order.payments import Payments
from services.order.provider import PaymentProvider
from services.order.reconciliation_reports import ReconciliationReports
from services.order.statuses import EventType, OrderState, OrderStatus, PayStatus, TimelineEntry
from services.order.tables import ReconciliationDifference
from services.shared.database import Database
from services.shared.ids import reconciliation_id
from services.shared.settings import Team
from tests.database.orders import LEASE, NOON, accept

PRODUCT, CUP, AMOUNT = "tea", "cup", 3000
KEEP = timedelta(hours=48)
RUN = reconciliation_id(NOON, 0)


class Shop:
    """All that writes to a team's database, for one order, at noon or somewhat `later`."""

    def __init__(self, database: Database, provider: PaymentProvider, order_id: str, new_id: Callable[[], str]) -> None:
        self.order_id = order_id
        self.later = timedelta()
        admission = Admission(AdmissionRules(), clock=self.now)
        self.acceptance = Acceptance(database, admission, lease=LEASE, clock=self.now, new_id=new_id)
        self.inbox = Inbox(database, lease=LEASE, clock=lambda: self.now() + LEASE)
        self.reports = ReconciliationReports(database)
        self.housekeeping = Housekeeping(
            database, keep_keys=KEEP, keep_reports=KEEP, clock=lambda: self.now() + 2 * KEEP
        )
        self.catalogue = Catalogue(database, clock=self.now)
        self.warehouse = Warehouse(database, clock=self.now)
        self.order = OrderActivities(_payments_that_take_no_time(database, provider), OrderBook(database))
        self.delivery = DeliveryActivities(Deliveries(database, clock=self.now), self.warehouse)
        self.marketing = MarketingActivities(Coupons(database, clock=self.now, new_id=new_id))

    def now(self) -> datetime:
        return NOON + self.later


def _payments_that_take_no_time(database: Database, provider: PaymentProvider) -> Payments:
    """What the admission is told stands in its row, and is the same whenever an attempt comes."""
    return Payments(database, provider, Admission(AdmissionRules(), lambda: NOON), lambda: NOON)


Act = Callable[[Shop], Awaitable[object]]


def in_engine(activity: Callable[[PayOrder], Awaitable[object]], command: PayOrder) -> Awaitable[object]:
    """An attempt of the engine's at an activity, to which it gives signs of life when it takes long."""
    return ActivityEnvironment().run(activity, command)


def payment(shop: Shop, payment_method: str = "pm_card_visa") -> PayOrder:
    return PayOrder(order_id=shop.order_id, amount=AMOUNT, currency="KRW", payment_method=payment_method)


def coupon(shop: Shop) -> IssueCoupon:
    return IssueCoupon(order_id=shop.order_id, user_id="minji", amount=AMOUNT, currency="KRW")


def parcel(shop: Shop, qty: int = 3, product_id: str = PRODUCT) -> StartDelivery:
    return StartDelivery(order_id=shop.order_id, product_id=product_id, qty=qty)


def pieces(shop: Shop, qty: int = 3, product_id: str = PRODUCT) -> AdjustStock:
    return AdjustStock(order_id=shop.order_id, product_id=product_id, qty=qty)


async def stock_tea(shop: Shop) -> None:
    await shop.warehouse.open_if_new(PRODUCT, 10)


async def sell_tea(shop: Shop) -> None:
    await shop.catalogue.put_if_new(product_id=PRODUCT, product_name="녹차", product_price=1000)


async def ordered(shop: Shop) -> object:
    accepted = await accept(shop.acceptance)
    return sorted(accepted.order.model_dump().items()), accepted.replayed


def recorded(*versions: int) -> Act:
    """The order's status after what happened at these versions."""

    async def record(shop: Shop) -> None:
        state = OrderState(order_status=OrderStatus.ORDER_PLACED, pay_status=PayStatus.PAID)
        timeline = [TimelineEntry(version=version, type=EventType.ORDER_PLACED, at=NOON) for version in versions]
        await shop.order.record_status(RecordStatus(order_id=shop.order_id, state=state, timeline=timeline))

    return record


def put(name: str, price: int) -> Act:
    async def put(shop: Shop) -> object:
        product = await shop.catalogue.put(product_id=PRODUCT, product_name=name, product_price=price)
        return sorted(product.model_dump(exclude={"updated_at"}).items())

    return put


def moved(qty: int, product_id: str = PRODUCT) -> Act:
    return lambda shop: shop.warehouse.move(product_id=product_id, qty=qty, reason="recount", reference="m1")


async def claimed(shop: Shop) -> object:
    return [order.order_id for order in await shop.inbox.claim(5)]


async def reconciling(shop: Shop) -> None:
    await shop.reports.begin(RUN, NOON)


async def compared(shop: Shop) -> None:
    await shop.reports.progress(RUN, compared=7, found=2, repaired=1, not_compared=["charges"], finished_at=NOON)


async def differing(shop: Shop) -> None:
    found = [
        ReconciliationDifference(
            reconciliation_id=RUN, number=number, code=Code.VIEW_BEHIND, detail="", outcome=Outcome.REPAIRED, at=NOON
        )
        for number in (1, 2)
    ]
    await shop.reports.note(found)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A write, and what was done before it."""

    name: str
    """Begins with the activity's name, if it is one's."""
    team: Team
    writes: set[str]
    """The methods that hand over the transactions."""
    write: Act
    before: Sequence[Act] = ()
    charged: int = 0
    refunded: int = 0
    same_again: bool = True
    """Whether a second call gives the same answer. One that claims, or that tells a replay, does not."""
    answer_lost: str = ""
    """What is answered when the reply to the last commit is lost, where that is not the same."""


PAYING = {"Payments._begin", "Payments._with_intent", "Payments._settle"}
SCENARIOS = (
    Scenario(
        name="pay_order",
        team="order",
        writes=PAYING,
        write=lambda shop: in_engine(shop.order.pay_order, payment(shop)),
        charged=AMOUNT,
    ),
    Scenario(
        name="pay_order declined",
        team="order",
        writes=PAYING,
        write=lambda shop: in_engine(shop.order.pay_order, payment(shop, "pm_card_chargeDeclined")),
    ),
    Scenario(
        name="refund_payment after pay_order",
        team="order",
        before=[lambda shop: in_engine(shop.order.pay_order, payment(shop))],
        writes={"Payments._call_off", "Payments._end"},
        write=lambda shop: in_engine(shop.order.refund_payment, payment(shop)),
        charged=AMOUNT,
        refunded=AMOUNT,
    ),
    Scenario(
        name="refund_payment before pay_order",
        team="order",
        writes={"Payments._call_off"},
        write=lambda shop: in_engine(shop.order.refund_payment, payment(shop)),
    ),
    Scenario(
        name="record_status",
        team="order",
        before=[sell_tea, ordered],
        writes={"OrderBook._record"},
        write=recorded(2, 3),
    ),
    Scenario(
        name="record_status of what is partly there",
        team="order",
        before=[sell_tea, ordered, recorded(2)],
        writes={"OrderBook._record"},
        write=recorded(2, 3),
    ),
    Scenario(
        name="issue_coupon",
        team="marketing",
        writes={"Coupons.issue"},
        write=lambda shop: shop.marketing.issue_coupon(coupon(shop)),
    ),
    Scenario(
        name="revoke_coupon after issue_coupon",
        team="marketing",
        before=[lambda shop: shop.marketing.issue_coupon(coupon(shop))],
        writes={"Coupons.revoke"},
        write=lambda shop: shop.marketing.revoke_coupon(coupon(shop)),
    ),
    Scenario(
        name="revoke_coupon before issue_coupon",
        team="marketing",
        writes={"Coupons.revoke"},
        write=lambda shop: shop.marketing.revoke_coupon(coupon(shop)),
    ),
    Scenario(
        name="start_delivery",
        team="delivery",
        before=[stock_tea],
        writes={"Deliveries.start"},
        write=lambda shop: shop.delivery.start_delivery(parcel(shop)),
    ),
    Scenario(
        name="start_delivery of more than there is",
        team="delivery",
        before=[stock_tea],
        writes={"Deliveries.start"},
        write=lambda shop: shop.delivery.start_delivery(parcel(shop, 11)),
    ),
    Scenario(
        name="cancel_delivery after start_delivery",
        team="delivery",
        before=[stock_tea, lambda shop: shop.delivery.start_delivery(parcel(shop))],
        writes={"Deliveries.cancel"},
        write=lambda shop: shop.delivery.cancel_delivery(parcel(shop)),
    ),
    Scenario(
        name="cancel_delivery before start_delivery",
        team="delivery",
        writes={"Deliveries.cancel"},
        write=lambda shop: shop.delivery.cancel_delivery(parcel(shop)),
    ),
    Scenario(
        name="complete_delivery",
        team="delivery",
        before=[stock_tea, lambda shop: shop.delivery.start_delivery(parcel(shop))],
        writes={"Deliveries.complete"},
        write=lambda shop: shop.delivery.complete_delivery(parcel(shop)),
    ),
    Scenario(
        name="adjust_stock",
        team="delivery",
        before=[stock_tea],
        writes={"Warehouse.sell"},
        write=lambda shop: shop.delivery.adjust_stock(pieces(shop)),
    ),
    Scenario(
        name="adjust_stock by more than there is",
        team="delivery",
        before=[stock_tea],
        writes={"Warehouse.sell"},
        write=lambda shop: shop.delivery.adjust_stock(pieces(shop, 11)),
    ),
    Scenario(
        name="adjust_stock of an unknown product",
        team="delivery",
        writes={"Warehouse.sell"},
        write=lambda shop: shop.delivery.adjust_stock(pieces(shop, 1, CUP)),
    ),
    Scenario(
        name="restore_stock after adjust_stock",
        team="delivery",
        before=[stock_tea, lambda shop: shop.delivery.adjust_stock(pieces(shop))],
        writes={"Warehouse.restore"},
        write=lambda shop: shop.delivery.restore_stock(pieces(shop)),
    ),
    Scenario(
        name="restore_stock before adjust_stock",
        team="delivery",
        before=[stock_tea],
        writes={"Warehouse.restore"},
        write=lambda shop: shop.delivery.restore_stock(pieces(shop)),
    ),
    Scenario(
        name="Acceptance.accept",
        team="order",
        before=[sell_tea],
        writes={"Acceptance._transaction"},
        write=ordered,
        same_again=False,
    ),
    Scenario(
        name="Acceptance.accept of a repeated request",
        team="order",
        before=[sell_tea, ordered],
        writes=set(),
        write=ordered,
    ),
    Scenario(
        name="Inbox.claim",
        team="order",
        before=[sell_tea, ordered],
        writes={"Inbox.claim"},
        write=claimed,
        same_again=False,
        answer_lost="[]",  # they are claimed again when their lease has run out
    ),
    Scenario(
        name="Inbox.mark_started",
        team="order",
        before=[sell_tea, ordered, claimed],
        writes={"Inbox._mark_started"},
        write=lambda shop: shop.inbox.mark_started(shop.order_id),
    ),
    Scenario(
        name="Housekeeping.tidy",
        team="order",
        before=[sell_tea, ordered, reconciling, differing],
        writes={"Housekeeping._forget"},
        write=lambda shop: shop.housekeeping.tidy(),
    ),
    Scenario(
        name="ReconciliationReports.begin", team="order", writes={"ReconciliationReports.begin"}, write=reconciling
    ),
    Scenario(
        name="ReconciliationReports.progress",
        team="order",
        before=[reconciling],
        writes={"ReconciliationReports.progress"},
        write=compared,
    ),
    Scenario(
        name="ReconciliationReports.note",
        team="order",
        before=[reconciling],
        writes={"ReconciliationReports.note"},
        write=differing,
    ),
    Scenario(name="Catalogue.put of a new product", team="order", writes={"Catalogue.put"}, write=put("홍차", 1200)),
    Scenario(
        name="Catalogue.put of a known product",
        team="order",
        before=[sell_tea],
        writes={"Catalogue.put"},
        write=put("홍차", 1200),
    ),
    Scenario(name="Catalogue.put_if_new", team="order", writes={"Catalogue.put_if_new"}, write=sell_tea),
    Scenario(name="Warehouse.move in", team="delivery", before=[stock_tea], writes={"Warehouse.move"}, write=moved(5)),
    Scenario(
        name="Warehouse.move out", team="delivery", before=[stock_tea], writes={"Warehouse.move"}, write=moved(-4)
    ),
    Scenario(
        name="Warehouse.move out more than there is",
        team="delivery",
        before=[stock_tea],
        writes={"Warehouse.move"},
        write=moved(-11),
    ),
    Scenario(name="Warehouse.move in a new product", team="delivery", writes={"Warehouse.move"}, write=moved(5, CUP)),
    Scenario(name="Warehouse.open_if_new", team="delivery", writes={"Warehouse.open_if_new"}, write=stock_tea),
)
