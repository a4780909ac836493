"""The tables of imports. Postgres stores the uploads, so that any process can read them."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from markethall.inventory.catalogue.sql.tables import metadata
from markethall.shared.persistence.sql import timestamp_column


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text, nullable=False)


def _bigint(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=False)


uploads = sa.Table(
    "import_upload",
    metadata,
    sa.Column("upload_id", sa.Uuid, primary_key=True),
    timestamp_column("created_at", index=True),
)

upload_parts = sa.Table(
    "import_part",
    metadata,
    sa.Column(
        "upload_id", sa.ForeignKey(uploads.c.upload_id, ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

import_jobs = sa.Table(
    "import_job",
    metadata,
    sa.Column("import_id", sa.Uuid, primary_key=True),
    sa.Column("upload_id", sa.Uuid, nullable=False, unique=True),
    _bigint("size"),
    _text("format"),
    sa.Column("dry_run", sa.Boolean, nullable=False),
    sa.Column("with_stock", sa.Boolean, nullable=False),
    _text("missing"),
    # the server default is for processes of an older release
    sa.Column("fetch_images", sa.Boolean, nullable=False, server_default="false"),
    _text("currency"),
    _text("actor"),
    _text("status"),
    _bigint("position_offset"),
    _bigint("position_line"),
    sa.Column("in_oversized_row", sa.Boolean, nullable=False),
    _text("truncated_handle"),
    _bigint("read"),
    _bigint("created"),
    _bigint("updated"),
    _bigint("unchanged"),
    _bigint("failed"),
    _bigint("stock_changed"),
    _bigint("stock_skipped"),
    _bigint("archived"),
    _bigint("warnings"),
    _bigint("families_created"),
    _bigint("families_updated"),
    # the number of changes per field of a product
    sa.Column("changed_fields", JSONB, nullable=False),
    # the number of stored notes by kind
    sa.Column("note_counts", JSONB, nullable=False),
    _text("failure_code"),
    _text("failure_message"),
    timestamp_column("created_at"),
    timestamp_column("started_at", nullable=True),
    timestamp_column("finished_at", nullable=True),
    timestamp_column("progressed_at", nullable=True),
    sa.Column("token", sa.Uuid),
    timestamp_column("lease_until", nullable=True),
    sa.CheckConstraint("status IN ('waiting', 'running', 'done', 'failed')", name="status"),
    sa.CheckConstraint("missing IN ('keep', 'archive')", name="missing"),
    sa.CheckConstraint(
        "format IN ('csv', 'ndjson', 'shopify', 'woocommerce', 'families')", name="format"
    ),
    sa.CheckConstraint("position_offset >= 0 AND read >= 0", name="counts"),
    sa.CheckConstraint(
        "(finished_at IS NOT NULL) = (status IN ('done', 'failed'))", name="finished"
    ),
)
sa.Index(
    "ix_import_job_open",
    import_jobs.c.created_at,
    import_jobs.c.import_id,
    postgresql_where=import_jobs.c.finished_at.is_(None),
)

row_notes = sa.Table(
    "import_note",
    metadata,
    sa.Column(
        "import_id", sa.ForeignKey(import_jobs.c.import_id, ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    _bigint("line"),
    _text("field"),
    _text("code"),
    _text("message"),
    sa.CheckConstraint("kind IN ('error', 'warning', 'change')", name="kind"),
)

# The products in the file, only for imports with `missing` = archive. When the import ends, it
# archives the other products of their families and deletes these rows.
import_members = sa.Table(
    "import_member",
    metadata,
    sa.Column(
        "import_id", sa.ForeignKey(import_jobs.c.import_id, ondelete="CASCADE"), primary_key=True
    ),
    # not a foreign key, because the new products of a dry run do not exist
    sa.Column("product_id", sa.Uuid, primary_key=True),
    _text("family"),
)
