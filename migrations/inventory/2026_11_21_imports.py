"""Imports: uploads in parts, the work on them, and what was wrong with their rows."""

import sqlalchemy as sa
from alembic import op

revision = "e07b3a91d5f4"
down_revision = "e7409b6d15fc"
branch_labels = None
depends_on = None

SCHEMA = "inventory"


def upgrade() -> None:
    _upload()
    _part()
    _job()
    _error()


def downgrade() -> None:
    for table in ("import_error", "import_job", "import_part", "import_upload"):
        op.drop_table(table, schema=SCHEMA)


def _upload() -> None:
    op.create_table(
        "import_upload",
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("upload_id", name=op.f("pk_import_upload")),
        schema=SCHEMA,
    )
    op.create_index(
        op.f("ix_import_upload_created_at"), "import_upload", ["created_at"], schema=SCHEMA
    )


def _part() -> None:
    op.create_table(
        "import_part",
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            [f"{SCHEMA}.import_upload.upload_id"],
            name=op.f("fk_import_part_upload_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("upload_id", "number", name=op.f("pk_import_part")),
        schema=SCHEMA,
    )


def _job() -> None:
    op.create_table(
        "import_job",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("position_offset", sa.BigInteger(), nullable=False),
        sa.Column("position_line", sa.BigInteger(), nullable=False),
        sa.Column("in_oversized_row", sa.Boolean(), nullable=False),
        sa.Column("truncated_handle", sa.Text(), nullable=False),
        sa.Column("read", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("unchanged", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("error_count", sa.BigInteger(), nullable=False),
        sa.Column("failure_code", sa.Text(), nullable=False),
        sa.Column("failure_message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("progressed_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("token", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('waiting', 'running', 'done', 'failed')", name=op.f("ck_import_job_status")
        ),
        sa.CheckConstraint(
            "format IN ('csv', 'ndjson', 'shopify')", name=op.f("ck_import_job_format")
        ),
        sa.CheckConstraint(
            "position_offset >= 0 AND read >= 0 AND error_count >= 0",
            name=op.f("ck_import_job_counts"),
        ),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('done', 'failed'))",
            name=op.f("ck_import_job_finished"),
        ),
        sa.PrimaryKeyConstraint("import_id", name=op.f("pk_import_job")),
        sa.UniqueConstraint("upload_id", name=op.f("uq_import_job_upload_id")),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_import_job_open",
        "import_job",
        ["created_at", "import_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("finished_at IS NULL"),
    )


def _error() -> None:
    op.create_table(
        "import_error",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["import_id"],
            [f"{SCHEMA}.import_job.import_id"],
            name=op.f("fk_import_error_import_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("import_id", "number", name=op.f("pk_import_error")),
        schema=SCHEMA,
    )
