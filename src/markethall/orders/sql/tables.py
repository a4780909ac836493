"""The tables of the schema `orders`. The migration also creates triggers on them."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from markethall.orders.configuration.sql import enum_check, metadata
from markethall.orders.contract import (
    MAX_ORDER_TAG_LENGTH,
    MAX_ORDER_TAGS,
    MAX_STAFF_NOTE_LENGTH,
    EditStatus,
    FulfilmentStatus,
    OrderFulfilmentStatus,
    OrderPaymentStatus,
    OrderStatus,
)
from markethall.shared.kernel.email_address import MAX_EMAIL_LENGTH
from markethall.shared.kernel.metadata import MAX_METADATA_ENTRIES
from markethall.shared.persistence.postgres import sql_literal
from markethall.shared.persistence.sql import timestamp_column


def _amount_column(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=False)


def _text_column(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=False)


# an object of texts; the limit of its length is enough for all metadata that the API accepts
METADATA_CHECK: Final = (
    "jsonb_typeof(metadata) = 'object' AND length(metadata::text) <= 160000"
    f" AND jsonb_array_length(jsonb_path_query_array(metadata, '$.*')) <= {MAX_METADATA_ENTRIES}"
    """ AND NOT jsonb_path_exists(metadata, '$.* ? (@.type() <> "string")')"""
)

orders = sa.Table(
    "order",
    metadata,
    sa.Column("order_id", sa.Uuid, primary_key=True),
    sa.Column("number", sa.BigInteger, sa.Identity(always=True, start=1001), nullable=False),
    sa.Column("user_id", sa.Uuid, nullable=False),
    sa.Column("is_guest", sa.Boolean, nullable=False),
    sa.Column("email", sa.Text),
    sa.Column("email_key", sa.Text),
    _text_column("status"),
    _text_column("payment_status"),
    _text_column("fulfilment_status"),
    _text_column("currency"),
    _amount_column("subtotal"),
    _amount_column("discount"),
    _amount_column("shipping"),
    _amount_column("tax"),
    _amount_column("total"),
    sa.Column("included_tax", sa.BigInteger, nullable=False, server_default="0"),
    # the shipping method with the breakdown of its price; null if the order has none
    sa.Column("shipping_line", JSONB),
    # the terms of the promotions with which the order was placed; null if it had none
    sa.Column("promotions", JSONB),
    sa.Column("number_prefix", sa.Text, nullable=False, server_default="MH-"),
    _amount_column("refunded"),
    # null if it equals the total; edits of a paid order change the total, not the payment
    sa.Column("payment_amount", sa.BigInteger),
    # the sum of the captured payments of edits
    sa.Column("additional_paid", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("shipping_address", JSONB, nullable=False),
    sa.Column("billing_address", JSONB),
    sa.Column("note", sa.Text),
    sa.Column("tags", sa.ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("staff_note", sa.Text),
    sa.Column("on_hold", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("metadata", JSONB, nullable=False, server_default="{}"),
    sa.Column("payment_id", sa.Uuid, nullable=False),
    _text_column("provider_payment_status"),
    sa.Column("payment_version", sa.Integer, nullable=False),
    sa.Column("reservation_id", sa.Uuid, nullable=False),
    # a cart has one order at most; carts are deleted after some time, so there is no foreign key
    sa.Column("cart_id", sa.Uuid),
    timestamp_column("expires_at"),
    timestamp_column("overdue_check_at"),
    timestamp_column("created_at"),
    timestamp_column("updated_at"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.UniqueConstraint("number"),
    sa.UniqueConstraint("payment_id"),
    sa.UniqueConstraint("cart_id"),
    enum_check("status", OrderStatus),
    enum_check("payment_status", OrderPaymentStatus),
    enum_check("fulfilment_status", OrderFulfilmentStatus),
    sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    sa.CheckConstraint("total = subtotal - discount + shipping + tax", name="total"),
    sa.CheckConstraint(
        "subtotal >= 0 AND discount >= 0 AND shipping >= 0 AND tax >= 0 AND total >= 0"
        " AND refunded >= 0",
        name="amounts",
    ),
    sa.CheckConstraint("included_tax BETWEEN 0 AND total", name="included_tax"),
    # a paid order never costs more than its payments
    sa.CheckConstraint("payment_amount + additional_paid >= total", name="payment_amount"),
    sa.CheckConstraint(
        "additional_paid = 0 OR additional_paid > 0 AND payment_amount IS NOT NULL",
        name="additional_paid",
    ),
    sa.CheckConstraint(
        "status IN ('processing', 'completed') OR fulfilment_status = 'unfulfilled'",
        name="nothing_shipped",
    ),
    sa.CheckConstraint(
        # `unfulfilled`: all shipments have failed, and their units were cancelled
        "status <> 'completed' OR fulfilment_status IN ('delivered', 'unfulfilled')",
        name="completed",
    ),
    sa.CheckConstraint(
        "CASE WHEN status IN ('processing', 'completed')"
        " THEN payment_status NOT IN ('none', 'failed')"
        " ELSE status <> 'pending' OR payment_status <> 'paid' END",
        name="paid",
    ),
    sa.CheckConstraint(
        f"(email IS NULL) = (email_key IS NULL) AND length(email) <= {MAX_EMAIL_LENGTH}",
        name="email",
    ),
    sa.CheckConstraint(
        f"cardinality(tags) <= {MAX_ORDER_TAGS}"
        f" AND length(array_to_string(tags, '')) <= {MAX_ORDER_TAGS * MAX_ORDER_TAG_LENGTH}",
        name="tags",
    ),
    sa.CheckConstraint(f"length(staff_note) <= {MAX_STAFF_NOTE_LENGTH}", name="staff_note"),
    sa.CheckConstraint(METADATA_CHECK, name="metadata"),
    sa.CheckConstraint("version >= 1", name="version"),
)
sa.Index("ix_order_user_id_created_at", orders.c.user_id, orders.c.created_at, orders.c.order_id)
sa.Index("ix_order_email_key", orders.c.email_key, orders.c.created_at, orders.c.order_id)
sa.Index("ix_order_created_at", orders.c.created_at, orders.c.order_id)
sa.Index(
    "ix_order_overdue",
    orders.c.overdue_check_at,
    orders.c.order_id,
    postgresql_where=orders.c.status == sql_literal("pending"),
)

# a row for each guest who has placed an order or was claimed; `user_id` is the user who has claimed
# the guest. The row is locked when an order is placed and when its guest is claimed, so that these
# two are serialized.
guest_owners = sa.Table(
    "guest_owner",
    metadata,
    sa.Column("guest_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.Uuid),
)

lines = sa.Table(
    "order_line",
    metadata,
    sa.Column("line_id", sa.Uuid, primary_key=True),
    sa.Column("order_id", sa.ForeignKey(orders.c.order_id), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("product_id", sa.Uuid, nullable=False),
    _text_column("sku"),
    _text_column("name"),
    _amount_column("unit_price"),
    sa.Column("quantity", sa.Integer, nullable=False),
    sa.Column("fulfilled", sa.Integer, nullable=False),
    sa.Column("delivered", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False, server_default="0"),
    sa.Column("cancelled", sa.Integer, nullable=False, server_default="0"),
    sa.Column("in_return", sa.Integer, nullable=False, server_default="0"),
    sa.Column("returned", sa.Integer, nullable=False, server_default="0"),
    _amount_column("total"),
    *(
        sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
        for name in ("discount", "tax", "included_tax")
    ),
    # the discounts by promotion and the taxes by rate; null if there are none
    sa.Column("breakdown", JSONB),
    sa.UniqueConstraint("order_id", "product_id"),
    sa.CheckConstraint("discount BETWEEN 0 AND total", name="discount"),
    sa.CheckConstraint(
        "tax >= 0 AND included_tax BETWEEN 0 AND total - discount"
        " AND (tax = 0 OR included_tax = 0)",
        name="tax",
    ),
    sa.CheckConstraint("quantity BETWEEN 1 AND 999", name="quantity"),
    sa.CheckConstraint("fulfilled BETWEEN 0 AND quantity", name="fulfilled"),
    sa.CheckConstraint("delivered BETWEEN 0 AND fulfilled", name="delivered"),
    sa.CheckConstraint("failed BETWEEN 0 AND quantity - fulfilled", name="failed"),
    sa.CheckConstraint("cancelled BETWEEN 0 AND quantity - fulfilled - failed", name="cancelled"),
    sa.CheckConstraint(
        "in_return >= 0 AND returned >= 0 AND in_return + returned <= delivered", name="returned"
    ),
    sa.CheckConstraint("unit_price >= 0", name="unit_price"),
    sa.CheckConstraint("total = unit_price * quantity", name="total"),
)

order_edits = sa.Table(
    "order_edit",
    metadata,
    sa.Column("edit_id", sa.Uuid, primary_key=True),
    sa.Column("order_id", sa.ForeignKey(orders.c.order_id), nullable=False),
    # the version of the order after the edit
    sa.Column("version", sa.Integer, nullable=False),
    _amount_column("total"),
    timestamp_column("created_at"),
    sa.Column("status", sa.Text, nullable=False, server_default="applied"),
    # The columns below are null or 0, unless the edit makes a paid order cost more. They describe
    # the additional payment, and the reservation of the additional units. `content` is the edit to
    # apply; it is null unless the edit is open.
    sa.Column("payment_id", sa.Uuid),
    sa.Column("amount", sa.BigInteger),
    sa.Column("refunded", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("reservation_id", sa.Uuid),
    timestamp_column("expires_at", nullable=True),
    sa.Column("content", JSONB),
    sa.UniqueConstraint("order_id", "version"),
    sa.UniqueConstraint("payment_id"),
    sa.CheckConstraint("total >= 0", name="total"),
    enum_check("status", EditStatus),
    sa.CheckConstraint(
        "(payment_id IS NULL) = (amount IS NULL) AND (payment_id IS NULL) = (expires_at IS NULL)"
        " AND (payment_id IS NOT NULL OR status = 'applied' AND reservation_id IS NULL)",
        name="payment",
    ),
    sa.CheckConstraint("amount > 0", name="amount"),
    sa.CheckConstraint(
        "refunded = 0 OR refunded > 0 AND status = 'applied' AND refunded <= amount",
        name="refunded",
    ),
    sa.CheckConstraint("(status = 'open') = (content IS NOT NULL)", name="content"),
)
# an order has one open edit at most
sa.Index(
    "uq_order_edit_open",
    order_edits.c.order_id,
    unique=True,
    postgresql_where=order_edits.c.status == sql_literal("open"),
)
sa.Index(
    "ix_order_edit_overdue",
    order_edits.c.expires_at,
    order_edits.c.edit_id,
    postgresql_where=order_edits.c.status == sql_literal("open"),
)

timeline = sa.Table(
    "timeline",
    metadata,
    sa.Column("order_id", sa.ForeignKey(orders.c.order_id), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    _text_column("change"),
    _text_column("actor"),
    timestamp_column("at"),
    _text_column("reason"),
    _text_column("status"),
    _text_column("payment_status"),
    _text_column("fulfilment_status"),
)

fulfilments = sa.Table(
    "fulfilment",
    metadata,
    sa.Column("fulfilment_id", sa.Uuid, primary_key=True),
    sa.Column("order_id", sa.ForeignKey(orders.c.order_id), nullable=False, index=True),
    _text_column("status"),
    sa.Column("carrier", sa.Text),
    sa.Column("tracking_number", sa.Text),
    timestamp_column("shipped_at"),
    timestamp_column("delivered_at", nullable=True),
    timestamp_column("failed_at", nullable=True),
    sa.Column("restocked", sa.Boolean, nullable=False, server_default="false"),
    enum_check("status", FulfilmentStatus),
    sa.CheckConstraint("(status = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_at"),
    sa.CheckConstraint(
        "(status IN ('lost', 'returned_to_sender')) = (failed_at IS NOT NULL)", name="failed_at"
    ),
    sa.CheckConstraint("NOT restocked OR status = 'returned_to_sender'", name="restocked"),
)

fulfilment_lines = sa.Table(
    "fulfilment_line",
    metadata,
    sa.Column("fulfilment_id", sa.ForeignKey(fulfilments.c.fulfilment_id), primary_key=True),
    sa.Column("line_id", sa.ForeignKey(lines.c.line_id), primary_key=True),
    sa.Column("quantity", sa.Integer, nullable=False),
    sa.CheckConstraint("quantity BETWEEN 1 AND 999", name="quantity"),
)
