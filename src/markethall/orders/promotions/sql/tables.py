"""The tables of promotions."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from markethall.orders.configuration.sql import metadata
from markethall.shared.persistence.sql import timestamp_column

promotions: Final = sa.Table(
    "promotion",
    metadata,
    sa.Column("promotion_id", sa.Uuid, primary_key=True),
    # null: the promotion applies by itself
    sa.Column("code_key", sa.Text),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("usage_limit", sa.Integer),
    sa.Column("per_customer_limit", sa.Integer),
    sa.Column("first_order", sa.Boolean, nullable=False),
    # the uses that count against `usage_limit`; not kept up to date without this limit
    sa.Column("used", sa.Integer, nullable=False, server_default="0"),
    sa.Column("fields", JSONB, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    timestamp_column("created_at"),
    sa.CheckConstraint("code_key <> ''", name="code_key"),
    sa.CheckConstraint("usage_limit >= 1 AND per_customer_limit >= 1", name="limits"),
    sa.CheckConstraint("used >= 0 AND used <= usage_limit", name="used"),
    sa.CheckConstraint("jsonb_typeof(fields) = 'object'", name="fields"),
    sa.CheckConstraint("version >= 1", name="version"),
)
sa.Index("ix_promotion_code_key", promotions.c.code_key, promotions.c.promotion_id)
sa.Index(
    "uq_promotion_active_code_key",
    promotions.c.code_key,
    unique=True,
    postgresql_where=promotions.c.is_active,
)
sa.Index(
    "ix_promotion_automatic",
    promotions.c.promotion_id,
    postgresql_where=promotions.c.is_active & promotions.c.code_key.is_(None),
)

# an order that has the discount of a promotion and is not cancelled or expired
promotion_uses: Final = sa.Table(
    "promotion_use",
    metadata,
    sa.Column(
        "promotion_id",
        sa.ForeignKey(promotions.c.promotion_id, ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("order_id", sa.ForeignKey(f"{metadata.schema}.order.order_id"), primary_key=True),
    # the owner of the order
    sa.Column("customer_id", sa.Uuid, nullable=False),
    # the customer who placed it: the guest, if a user has claimed the order of a guest since then
    sa.Column("used_by", sa.Uuid, nullable=False),
    sa.Column("is_first_order", sa.Boolean, nullable=False),
    timestamp_column("used_at"),
)
sa.Index("ix_promotion_use_order_id", promotion_uses.c.order_id)
# a customer has at most one use that counts as a first order
sa.Index(
    "uq_promotion_use_first_order",
    promotion_uses.c.used_by,
    unique=True,
    postgresql_where=promotion_uses.c.is_first_order,
)

# the number of uses by customer
promotion_customers: Final = sa.Table(
    "promotion_customer",
    metadata,
    sa.Column("customer_id", sa.Uuid, primary_key=True),
    sa.Column(
        "promotion_id",
        sa.ForeignKey(promotions.c.promotion_id, ondelete="CASCADE"),
        primary_key=True,
        index=True,
    ),
    sa.Column("used", sa.Integer, nullable=False),
    sa.CheckConstraint("used >= 0", name="used"),
)
