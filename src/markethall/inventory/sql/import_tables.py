"""The tables of imports. An upload lies here in parts, so that any process can read on."""

import sqlalchemy as sa

from markethall.inventory.sql.tables import metadata
from markethall.shared.sql import timestamp


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=False)


def _count(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=False)


uploads = sa.Table(
    "import_upload",
    metadata,
    sa.Column("upload_id", sa.Uuid, primary_key=True),
    timestamp("created_at", index=True),
)

parts = sa.Table(
    "import_part",
    metadata,
    sa.Column(
        "upload_id", sa.ForeignKey(uploads.c.upload_id, ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

jobs = sa.Table(
    "import_job",
    metadata,
    sa.Column("import_id", sa.Uuid, primary_key=True),
    sa.Column("upload_id", sa.Uuid, nullable=False, unique=True),
    _count("size"),
    _text("format"),
    sa.Column("dry_run", sa.Boolean, nullable=False),
    _text("currency"),
    _text("actor"),
    _text("status"),
    _count("place_offset"),
    _count("place_line"),
    sa.Column("place_skipping", sa.Boolean, nullable=False),
    _text("place_full"),
    _count("read"),
    _count("created"),
    _count("updated"),
    _count("unchanged"),
    _count("failed"),
    _count("flaws"),
    _text("failure_code"),
    _text("failure_message"),
    timestamp("created_at"),
    timestamp("started_at", nullable=True),
    timestamp("finished_at", nullable=True),
    timestamp("moved_at", nullable=True),
    sa.Column("token", sa.Uuid),
    timestamp("lease_until", nullable=True),
    sa.CheckConstraint("status IN ('waiting', 'running', 'done', 'failed')", name="status"),
    sa.CheckConstraint("format IN ('csv', 'ndjson', 'shopify')", name="format"),
    sa.CheckConstraint("place_offset >= 0 AND read >= 0 AND flaws >= 0", name="counts"),
    sa.CheckConstraint(
        "(finished_at IS NOT NULL) = (status IN ('done', 'failed'))", name="finished"
    ),
)
sa.Index(
    "ix_import_job_open",
    jobs.c.created_at,
    jobs.c.import_id,
    postgresql_where=jobs.c.finished_at.is_(None),
)

errors = sa.Table(
    "import_error",
    metadata,
    sa.Column("import_id", sa.ForeignKey(jobs.c.import_id, ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    _count("line"),
    _text("field"),
    _text("code"),
    _text("message"),
)
