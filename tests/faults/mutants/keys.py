"""The unique keys. Tables are made by the migrations, so that is where they are taken away; an index stays."""

from collections.abc import Sequence

from tests.faults.mutants.mutant import Edit, Mutant, Proof, Tests
from tests.faults.mutants.runs import SHORT

_FIRST = "services/{team}/migrations/versions/0001_the_first_schema.py"
_NONE_TAKES_TWO = "database/test_contention.py::test_no_table_takes_a_second_row_for_what_happens_once"


def _often(*steps: str) -> Proof:
    """Steps that run often at once and have one effect."""
    test = "database/test_contention.py::test_a_step_that_runs_often_at_once_and_again_has_one_effect"
    return Tests.of(*(f"{test}[sqlite-{step}]" for step in steps), *(f"{test}[mysql-{step}]" for step in steps))


def _key(table: str, file: str, columns: Sequence[str], guards: str, *proofs: Proof) -> Mutant:
    """The primary key of a table."""
    named = ", ".join(f'"{column}"' for column in columns)
    edit = Edit(
        file=file,
        old=f'sa.PrimaryKeyConstraint({named}, name=op.f("pk_{table}"))',
        new=f'sa.Index("ix_{table}_key", {named})',
    )
    return Mutant(name=f"key of {table}", guards=guards, edits=(edit,), proofs=proofs)


KEYS = (
    _key(
        "idempotency_keys",
        _FIRST.format(team="order"),
        ["user_id", "idempotency_key"],
        "a request that comes twice is one order",
        Tests.of(
            "database/test_contention.py"
            "::test_a_request_that_comes_often_at_once_to_two_processes_is_one_order_paid_once"
        ),
        SHORT,
    ),
    _key("orders", _FIRST.format(team="order"), ["order_id"], "an order is there once", Tests.of(_NONE_TAKES_TWO)),
    _key(
        "order_views",
        _FIRST.format(team="order"),
        ["order_id"],
        "an order stands at one place",
        Tests.of(_NONE_TAKES_TWO),
    ),
    _key(
        "order_events",
        _FIRST.format(team="order"),
        ["order_id", "version"],
        "what happened once is told once",
        _often("record"),
        SHORT,
    ),
    _key("payments", _FIRST.format(team="order"), ["order_id"], "an order has one payment", _often("pay"), SHORT),
    _key(
        "admission",
        "services/order/migrations/versions/0003_admission.py",
        ["name"],
        "all who take orders look at one circuit",
        Tests.of(_NONE_TAKES_TWO),
    ),
    _key(
        "products",
        _FIRST.format(team="order"),
        ["product_id"],
        "a product has one price",
        _often("put a product"),
    ),
    _key("coupons", _FIRST.format(team="marketing"), ["order_id"], "an order has one coupon", _often("issue")),
    Mutant(
        name="key of coupon ids",
        guards="a coupon's id is of one coupon",
        edits=(
            Edit(
                file=_FIRST.format(team="marketing"),
                old='sa.UniqueConstraint("coupon_id", name=op.f("uq_coupons_coupon_id"))',
                new='sa.Index("ix_coupons_coupon_id", "coupon_id")',
            ),
            Edit(
                file="services/marketing/tables.py",
                old="coupon_id: str = Field(max_length=64, unique=True)",
                new="coupon_id: str = Field(max_length=64, index=True)",
            ),
        ),
        proofs=(Tests.of(_NONE_TAKES_TWO),),
    ),
    _key(
        "deliveries",
        _FIRST.format(team="delivery"),
        ["order_id"],
        "an order is delivered once",
        _often("start"),
        SHORT,
    ),
    _key("stock", _FIRST.format(team="delivery"), ["product_id"], "a product has one shelf", _often("open")),
    Mutant(
        name="key of stock_movements",
        guards="an order's pieces are taken once, and put back once",
        edits=(
            Edit(
                file=_FIRST.format(team="delivery"),
                old='sa.UniqueConstraint("reference", "kind", name="uq_stock_movements_reference_kind")',
                new='sa.Index("ix_stock_movements_reference_kind", "reference", "kind")',
            ),
            Edit(
                file="services/delivery/tables.py",
                old='UniqueConstraint("reference", "kind", name="uq_stock_movements_reference_kind")',
                new='Index("ix_stock_movements_reference_kind", "reference", "kind")',
            ),
        ),
        proofs=(_often("sell"), _often("restore"), SHORT),
    ),
)
