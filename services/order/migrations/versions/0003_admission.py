"""Keep what the circuit breaker of the order intake knows"""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "admission",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("open_since", UtcDateTime(), nullable=True),
        sa.Column("trial_at", UtcDateTime(), nullable=True),
        sa.Column("trial_order_id", sa.String(length=64), nullable=True),
        sa.Column("recent", sa.JSON(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_admission")),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_engine="InnoDB",
    )


def downgrade() -> None:
    op.drop_table("admission")
