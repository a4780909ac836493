"""Goods can go from one warehouse to another."""

import sqlalchemy as sa
from alembic import op

revision = "b83d05f1c6e2"
down_revision = "0d62fb85e1a7"
branch_labels = None
depends_on = None

SCHEMA = "inventory"
REASONS = "'received', 'adjusted', 'counted', 'damaged', 'lost', 'found', 'returned', 'sold'"


def upgrade() -> None:
    _allow(f"{REASONS}, 'transferred'")
    _check("transferred", "reason <> 'transferred' OR reference IS NOT NULL")


def downgrade() -> None:
    if op.get_bind().scalar(
        sa.text("SELECT EXISTS (SELECT FROM inventory.stock_movement WHERE reason = 'transferred')")
    ):
        raise RuntimeError("goods were transferred: the release before knows no such movement")
    op.drop_constraint(op.f("ck_stock_movement_transferred"), "stock_movement", schema=SCHEMA)
    _allow(REASONS)


def _allow(reasons: str) -> None:
    op.drop_constraint(op.f("ck_stock_movement_reason"), "stock_movement", schema=SCHEMA)
    _check("reason", f"reason IN ({reasons})")


def _check(name: str, rule: str) -> None:
    op.create_check_constraint(
        op.f(f"ck_stock_movement_{name}"), "stock_movement", rule, schema=SCHEMA
    )
