"""What the documents promise of each restore, in one table: docs/deployment.md, "Disaster recovery"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.order.comparison import Code
from tests.restores.cast import Part

Codes = Mapping[Part, frozenset[Code]]


@dataclass(frozen=True, kw_only=True)
class Restore:
    """A store that is restored from the older backup, alone or with others; and what must come of it.

    What is not expected must not be found: a false alarm costs a person's night.
    """

    name: str
    files: Sequence[str]
    lost: str
    found: Sequence[Codes]
    """By the first run of the reconciliation, and by a second one where the first repairs what others hang on."""
    person: str
    """What no run can tell, and a person must know or do."""
    left: Sequence[Codes] = ({},)
    """By the runs after the remedy was followed."""
    unsound: Mapping[str, Sequence[Part]] = field(default_factory=dict[str, Sequence[Part]])
    """The promises of the audit that stay broken, and of which orders."""
    payments_first: bool = False
    """Whether the payments are noted from the provider's list before the shop opens. The provider, too, has forgotten
    the keys of the calls that it answered before: Stripe keeps them for a day."""
    keys_lost: bool = False
    """Whether a request that was accepted since the backup brings a second order when it is sent again."""


def _all(codes: Mapping[Part, Sequence[Code]]) -> Codes:
    return {part: frozenset(found) for part, found in codes.items()}


_UNKNOWN = (Code.CHARGE_WITHOUT_ORDER, Code.EFFECTS_WITHOUT_ORDER)
_SENT_SINCE = (Part.WAITED, Part.IN_PAYMENT, Part.ACCEPTED, Part.NEW_UNDER_WAY, Part.NEW_DELIVERED)

_UNKNOWN_THROUGHOUT = {
    Part.NEW_UNDER_WAY: (Code.WORKFLOW_WITHOUT_ORDER, *_UNKNOWN),
    Part.NEW_DELIVERED: _UNKNOWN,
    Part.NEW_WAITS: (Code.WORKFLOW_WITHOUT_ORDER, *_UNKNOWN),
    Part.NEW_IN_PAYMENT: (Code.WORKFLOW_WITHOUT_ORDER, *_UNKNOWN),
}
_MOVED_SINCE = (
    *(Part.ARRIVED, Part.CALLED_OFF),
    *(Part.WAITED, Part.WAITED_CALLED_OFF, Part.IN_PAYMENT, Part.ACCEPTED),
)
_ENTERED = (
    *(Part.NEW_UNDER_WAY, Part.NEW_DELIVERED, Part.NEW_WAITS, Part.NEW_IN_PAYMENT),
    *(Part.NEW_CANCELED, Part.NEW_DECLINED),
)

RESTORES = (
    Restore(
        name="order",
        files=["order.db"],
        lost="orders since, with their timelines, payments and callers' keys; where the others stood",
        found=[
            _all({**_UNKNOWN_THROUGHOUT, **dict.fromkeys(_MOVED_SINCE, (Code.VIEW_BEHIND,))}),
            _all(
                {
                    **_UNKNOWN_THROUGHOUT,
                    **dict.fromkeys((Part.CALLED_OFF, Part.WAITED_CALLED_OFF), (Code.PAYMENT_DISAGREES,)),
                    **dict.fromkeys((Part.IN_PAYMENT, Part.ACCEPTED), (Code.PAYMENT_MISSING, Code.CHARGE_NOT_NOTED)),
                }
            ),
        ],
        left=[_all(dict.fromkeys(_ENTERED, (Code.VIEW_BEHIND,))), {}],
        person="orders that had no workflow yet, and everybody's names and addresses: only the customers know",
        keys_lost=True,
    ),
    Restore(
        name="delivery",
        files=["delivery.db"],
        lost="deliveries and stock movements since; stock reads as it did",
        found=[
            _all(
                {
                    Part.ARRIVED: (Code.ARRIVAL_NOT_NOTED,),
                    Part.CALLED_OFF: (Code.DELIVERY_THOUGH_CANCELED, Code.STOCK_NOT_RESTORED),
                    **dict.fromkeys(_SENT_SINCE, (Code.DELIVERY_MISSING, Code.STOCK_NOT_SOLD)),
                }
            )
        ],
        # Of what was cancelled since, or is cancelled before it was entered again, there is no delivery to show.
        unsound={
            "the view agrees with the teams": (Part.NEW_CANCELED, Part.NEW_UNDER_WAY),
            "a timeline is one that the saga writes": (Part.NEW_UNDER_WAY,),
        },
        person="movements by hand, and products stocked since: count",
    ),
    Restore(
        name="marketing",
        files=["marketing.db"],
        lost="coupons issued and revoked since",
        found=[
            _all(
                {
                    Part.CALLED_OFF: (Code.COUPON_THOUGH_CANCELED,),
                    **dict.fromkeys(_SENT_SINCE, (Code.COUPON_MISSING,)),
                }
            )
        ],
        # Of what was cancelled since, there is no coupon to show.
        unsound={
            "the view agrees with the teams": (Part.NEW_CANCELED,),
            "a step follows the step before it": (Part.NEW_CANCELED,),
        },
        person="which coupons were used since",
    ),
    Restore(
        name="engine",
        files=["temporal.db"],
        lost="workflows begun since; what the others were told since",
        found=[
            _all(
                {
                    **dict.fromkeys((Part.ARRIVED, Part.CALLED_OFF), (Code.VIEW_AHEAD,)),
                    **dict.fromkeys(
                        (Part.ACCEPTED, Part.NEW_UNDER_WAY, Part.NEW_WAITS, Part.NEW_IN_PAYMENT),
                        (Code.WORKFLOW_MISSING,),
                    ),
                }
            )
        ],
        # Of what has ended since, the engine knows nothing; and what it takes up where the order had been cancelled
        # fails there, which is told once more.
        unsound={
            "an order has one workflow": (Part.NEW_DELIVERED, Part.NEW_CANCELED, Part.NEW_DECLINED),
            "a timeline is one that the saga writes": (Part.WAITED_CALLED_OFF,),
        },
        person="orders cancelled since that had not been sent: they are flagged, and read that a step failed",
    ),
    Restore(
        name="all four",
        files=["order.db", "delivery.db", "marketing.db", "temporal.db"],
        lost="everything since, but what the provider knows",
        found=[
            _all(
                {
                    **dict.fromkeys((Part.CALLED_OFF, Part.WAITED_CALLED_OFF), (Code.PAYMENT_MISSING,)),
                    **dict.fromkeys(
                        (Part.NEW_UNDER_WAY, Part.NEW_DELIVERED, Part.NEW_WAITS), (Code.CHARGE_WITHOUT_ORDER,)
                    ),
                }
            )
        ],
        # Those whose charges were given back at the provider.
        unsound={"nothing is made up": (Part.NEW_UNDER_WAY, Part.NEW_DELIVERED, Part.NEW_CANCELED, Part.NEW_WAITS)},
        person="new orders (refund, and ask), arrivals (ask the carrier), the stock (count)",
        payments_first=True,
        keys_lost=True,
    ),
)
