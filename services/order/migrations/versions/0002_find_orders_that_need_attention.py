"""Find the orders that need attention by an index"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_order_views_attention", "order_views", ["needs_attention", "order_id"])


def downgrade() -> None:
    op.drop_index("ix_order_views_attention", "order_views")
