"""The tables of comparisons with the reports of providers."""

import sqlalchemy as sa

from markethall.payments.sql.tables import metadata
from markethall.shared.persistence.sql import timestamp_column

reconciliations = sa.Table(
    "reconciliation",
    metadata,
    sa.Column("reconciliation_id", sa.Uuid, primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    timestamp_column("starts_at"),
    timestamp_column("ends_at"),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("listed_differences", sa.Integer, nullable=False),
    # the JSON of a ReconciliationSummary
    sa.Column("summary", sa.Text, nullable=False),
    timestamp_column("started_at"),
    timestamp_column("finished_at", nullable=True),
    timestamp_column("due_at"),
    sa.UniqueConstraint("provider", "starts_at", "ends_at"),
    sa.CheckConstraint("status IN ('running', 'completed', 'failed')", name="status"),
    sa.CheckConstraint("starts_at < ends_at", name="period"),
)
sa.Index(
    "ix_reconciliation_period", reconciliations.c.starts_at, reconciliations.c.reconciliation_id
)

differences = sa.Table(
    "reconciliation_difference",
    metadata,
    sa.Column(
        "reconciliation_id",
        sa.Uuid,
        sa.ForeignKey(reconciliations.c.reconciliation_id),
        primary_key=True,
    ),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("reason", sa.Text, nullable=False),
    # the JSON of a DifferenceView
    sa.Column("difference", sa.Text, nullable=False),
)
