"""Create the reviews schema: orders, shipped products, reviews, and the common tables."""

import sqlalchemy as sa
from alembic import op

revision = "9c4e1b7a2d05"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotency_record",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("response", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_idempotency_record")),
        schema="reviews",
    )
    op.create_index(
        op.f("ix_idempotency_record_expires_at"),
        "idempotency_record",
        ["expires_at"],
        unique=False,
        schema="reviews",
    )
    op.create_table(
        "inbox",
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source_seq", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("received_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("due_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("done_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'done', 'dead')", name=op.f("ck_inbox_state")),
        sa.PrimaryKeyConstraint("handler", "event_id", name=op.f("pk_inbox")),
        schema="reviews",
    )
    op.create_index("ix_inbox_done_at", "inbox", ["done_at"], unique=False, schema="reviews")
    op.create_index(
        "ix_inbox_waiting",
        "inbox",
        ["position"],
        unique=False,
        schema="reviews",
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index(
        "ix_inbox_waiting_key",
        "inbox",
        ["key", "position"],
        unique=False,
        schema="reviews",
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "order",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("is_completed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_order")),
        schema="reviews",
    )
    op.create_index(op.f("ix_order_user_id"), "order", ["user_id"], unique=False, schema="reviews")
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("published_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("confirmed_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_event_id")),
        schema="reviews",
    )
    op.create_index(
        "ix_outbox_confirmed_at", "outbox", ["confirmed_at"], unique=False, schema="reviews"
    )
    op.create_index(
        "ix_outbox_unconfirmed",
        "outbox",
        ["seq"],
        unique=False,
        schema="reviews",
        postgresql_where=sa.text("published_at IS NOT NULL AND confirmed_at IS NULL"),
    )
    op.create_index(
        "ix_outbox_unpublished",
        "outbox",
        ["seq"],
        unique=False,
        schema="reviews",
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.create_table(
        "review",
        sa.Column("review_id", sa.Uuid(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("rating", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("rating BETWEEN 1 AND 5", name=op.f("ck_review_rating")),
        sa.PrimaryKeyConstraint("review_id", name=op.f("pk_review")),
        sa.UniqueConstraint("user_id", "product_id", name=op.f("uq_review_user_id_product_id")),
        schema="reviews",
    )
    op.create_index(
        "ix_review_list",
        "review",
        ["product_id", "created_at", "review_id"],
        unique=False,
        schema="reviews",
    )
    op.create_table(
        "shipped_product",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", "product_id", name=op.f("pk_shipped_product")),
        schema="reviews",
    )


def downgrade() -> None:
    op.drop_table("shipped_product", schema="reviews")
    op.drop_index("ix_review_list", table_name="review", schema="reviews")
    op.drop_table("review", schema="reviews")
    op.drop_index(
        "ix_outbox_unpublished",
        table_name="outbox",
        schema="reviews",
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.drop_index(
        "ix_outbox_unconfirmed",
        table_name="outbox",
        schema="reviews",
        postgresql_where=sa.text("published_at IS NOT NULL AND confirmed_at IS NULL"),
    )
    op.drop_index("ix_outbox_confirmed_at", table_name="outbox", schema="reviews")
    op.drop_table("outbox", schema="reviews")
    op.drop_index(op.f("ix_order_user_id"), table_name="order", schema="reviews")
    op.drop_table("order", schema="reviews")
    op.drop_index(
        "ix_inbox_waiting_key",
        table_name="inbox",
        schema="reviews",
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.drop_index(
        "ix_inbox_waiting",
        table_name="inbox",
        schema="reviews",
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.drop_index("ix_inbox_done_at", table_name="inbox", schema="reviews")
    op.drop_table("inbox", schema="reviews")
    op.drop_index(
        op.f("ix_idempotency_record_expires_at"), table_name="idempotency_record", schema="reviews"
    )
    op.drop_table("idempotency_record", schema="reviews")
