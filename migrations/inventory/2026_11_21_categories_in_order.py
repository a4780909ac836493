"""A category has its products in each order of the list: a page of it reads no more than a page."""

import sqlalchemy as sa
from alembic import op

revision = "a94c07e6b2d8"
down_revision = "47c2e9b1d08a"
branch_labels = None
depends_on = None

SCHEMA = "inventory"
KEYS = {"created_at": "created_at", "price": "price_amount", "name": "name_key"}


def upgrade() -> None:
    for name, key in KEYS.items():
        _index(f"ix_product_category_{name}", ["category", key, "product_id"])
    op.drop_index(op.f("ix_product_category"), "product", schema=SCHEMA)


def downgrade() -> None:
    _index("ix_product_category", ["category", "created_at"])
    for name in KEYS:
        op.drop_index(op.f(f"ix_product_category_{name}"), "product", schema=SCHEMA)


def _index(name: str, columns: list[str]) -> None:
    active = sa.text("status = 'active'")
    op.create_index(op.f(name), "product", columns, schema=SCHEMA, postgresql_where=active)
