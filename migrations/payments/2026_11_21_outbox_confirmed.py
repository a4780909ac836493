"""The outbox knows what has arrived at listeners in other processes."""

import sqlalchemy as sa
from alembic import op

revision = "ea0514dc3267"
down_revision = "3c9d41e7a2b5"
branch_labels = None
depends_on = None

SCHEMA = "payments"


def upgrade() -> None:
    confirmed = sa.Column("confirmed_at", sa.TIMESTAMP(timezone=True), nullable=True)
    op.add_column("outbox", confirmed, schema=SCHEMA)
    # until now every listener shared the process: what was published has arrived
    op.execute(f"UPDATE {SCHEMA}.outbox SET confirmed_at = published_at")
    op.drop_index(op.f("ix_outbox_published_at"), "outbox", schema=SCHEMA)
    op.create_index(op.f("ix_outbox_confirmed_at"), "outbox", ["confirmed_at"], schema=SCHEMA)
    op.create_index(
        op.f("ix_outbox_unconfirmed"),
        "outbox",
        ["seq"],
        schema=SCHEMA,
        postgresql_where=sa.text("published_at IS NOT NULL AND confirmed_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_outbox_unconfirmed"), "outbox", schema=SCHEMA)
    op.drop_index(op.f("ix_outbox_confirmed_at"), "outbox", schema=SCHEMA)
    op.create_index(op.f("ix_outbox_published_at"), "outbox", ["published_at"], schema=SCHEMA)
    op.drop_column("outbox", "confirmed_at", schema=SCHEMA)
