"""The tables of carts, in the schema `orders`."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from markethall.orders.carts.contract import CartStatus
from markethall.orders.configuration.sql import enum_check, metadata
from markethall.orders.contract import MAX_LINES, MAX_QUANTITY
from markethall.shared.kernel.email_address import MAX_EMAIL_LENGTH
from markethall.shared.persistence.postgres import sql_literal
from markethall.shared.persistence.sql import timestamp_column

carts: Final = sa.Table(
    "cart",
    metadata,
    sa.Column("cart_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.Uuid, nullable=False),
    sa.Column("is_guest", sa.Boolean, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("currency", sa.Text),
    sa.Column("email", sa.Text),
    sa.Column("shipping_address", JSONB),
    sa.Column("billing_address", JSONB),
    sa.Column("shipping_method", sa.Text),
    sa.Column("voucher_code", sa.Text),
    sa.Column("note", sa.Text),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("order_id", sa.Uuid),
    sa.Column("merged_into", sa.Uuid),
    timestamp_column("created_at"),
    timestamp_column("updated_at"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.UniqueConstraint("order_id"),
    enum_check("status", CartStatus),
    sa.CheckConstraint("(status = 'checked_out') = (order_id IS NOT NULL)", name="order_id"),
    sa.CheckConstraint(
        "(status = 'merged') = (merged_into IS NOT NULL) AND merged_into <> cart_id",
        name="merged_into",
    ),
    sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    sa.CheckConstraint(f"length(email) <= {MAX_EMAIL_LENGTH}", name="email"),
    sa.CheckConstraint("jsonb_typeof(metadata) = 'object'", name="metadata"),
    sa.CheckConstraint("version >= 1", name="version"),
)
sa.Index("ix_cart_user_id", carts.c.user_id)
sa.Index("ix_cart_updated_at", carts.c.updated_at)

cart_lines: Final = sa.Table(
    "cart_line",
    metadata,
    sa.Column("cart_id", sa.ForeignKey(carts.c.cart_id, ondelete="CASCADE"), primary_key=True),
    sa.Column("product_id", sa.Uuid, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("quantity", sa.Integer, nullable=False),
    sa.Column("sku", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    # the offer that the owner saw last; `seen_available` is null if the product was no longer sold
    sa.Column("seen_amount", sa.BigInteger, nullable=False),
    sa.Column("seen_currency", sa.Text, nullable=False),
    sa.Column("seen_available", sa.Integer),
    sa.CheckConstraint(f"position BETWEEN 1 AND {MAX_LINES}", name="position"),
    sa.CheckConstraint(f"quantity BETWEEN 1 AND {MAX_QUANTITY}", name="quantity"),
    sa.CheckConstraint(f"seen_available BETWEEN 0 AND {MAX_QUANTITY}", name="seen_available"),
)
OPEN: Final = sql_literal(CartStatus.OPEN.value)
