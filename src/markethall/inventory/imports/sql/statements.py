from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import TSVECTOR, insert

from markethall.inventory.catalogue.sql.expressions import (
    LIMIT,
    NOW,
    PRODUCT_IDS,
    ZERO,
    bigint_parameter,
    insert_row,
    new_values,
    read_columns,
    text_parameter,
    texts_parameter,
    uuid_parameter,
)
from markethall.inventory.catalogue.sql.statements import (
    PRODUCT_COLUMNS,
    WRITABLE_COLUMNS,
    insert_new_words,
)
from markethall.inventory.catalogue.sql.tables import products
from markethall.inventory.imports.sql.tables import (
    import_jobs,
    import_members,
    row_notes,
    upload_parts,
    uploads,
)
from markethall.inventory.stock.sql.tables import stock
from markethall.shared.persistence.postgres import Statement, sql_literal

# Uploads


def _time(name: str) -> "sa.BindParameter[Any]":
    return bindparam(name, type_=sa.TIMESTAMP(timezone=True))


# a failed import needs its upload too, because it can be retried
_is_needed: Final = (
    sa.exists()
    .where(import_jobs.c.upload_id == uploads.c.upload_id, import_jobs.c.status != "done")
    .correlate(uploads)
)
CREATE_UPLOAD: Final = Statement(
    insert(uploads).values(upload_id=bindparam("upload_id"), created_at=bindparam("created_at"))
)
ADD_UPLOAD_PART: Final = Statement(
    insert(upload_parts).values(
        upload_id=bindparam("upload_id"), number=bindparam("number"), data=bindparam("data")
    )
)
GET_UPLOAD_PART: Final = Statement(
    sa.select(upload_parts.c.data).where(
        upload_parts.c.upload_id == uuid_parameter("upload_id"),
        upload_parts.c.number == bigint_parameter("number"),
    )
)
DELETE_UPLOAD_IF_UNUSED: Final = Statement(
    sa.delete(uploads).where(uploads.c.upload_id == uuid_parameter("upload_id"), ~_is_needed)
)
DELETE_STALE_UPLOADS: Final = Statement(
    sa.delete(uploads).where(
        uploads.c.created_at < _time("before"),
        ~_is_needed.where(
            sa.or_(
                import_jobs.c.finished_at.is_(None),
                import_jobs.c.finished_at >= _time("failed_before"),
            )
        ),
    )
)

# Jobs

_is_job: Final = import_jobs.c.import_id == uuid_parameter("import_id")
ADD_IMPORT_JOB: Final = Statement(insert_row(import_jobs))
_job_columns: Final = read_columns(import_jobs.c)
GET_IMPORT_JOB: Final = Statement(sa.select(*_job_columns).where(_is_job))
GET_IMPORT_JOB_FOR_UPDATE: Final = Statement(
    sa.select(*_job_columns).where(_is_job).with_for_update()
)
_new_values: Final = new_values(import_jobs.c, "import_id", "created_at")
SAVE_IMPORT_JOB: Final = Statement(sa.update(import_jobs).where(_is_job).values(_new_values))
ADVANCE_IMPORT_JOB: Final = Statement(
    sa.update(import_jobs)
    # the offset is compared, so that a batch is not applied twice after the response of its
    # commit was lost
    .where(
        _is_job,
        import_jobs.c.token == uuid_parameter("token"),
        import_jobs.c.position_offset == bigint_parameter("expected_offset"),
    )
    .values(_new_values)
)
DELETE_OLD_IMPORT_JOBS: Final = Statement(
    sa.delete(import_jobs).where(import_jobs.c.finished_at < _time("before"))
)
RELEASE_IMPORT_LEASE: Final = Statement(
    sa.update(import_jobs)
    .where(_is_job, import_jobs.c.token == uuid_parameter("token"))
    .values(token=sa.null(), lease_until=sa.null())
)
_requested_import_id: Final = uuid_parameter("import_id")
_next_job: Final = (
    sa.select(import_jobs.c.import_id)
    .where(
        import_jobs.c.finished_at.is_(None),
        sa.or_(import_jobs.c.lease_until.is_(None), import_jobs.c.lease_until < NOW),
        sa.or_(_requested_import_id.is_(None), import_jobs.c.import_id == _requested_import_id),
    )
    .order_by(import_jobs.c.created_at, import_jobs.c.import_id)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
LEASE_IMPORT_JOB: Final = Statement(
    sa.update(import_jobs)
    .where(import_jobs.c.import_id == _next_job)
    .values(
        status="running",
        token=uuid_parameter("token"),
        lease_until=bindparam("lease_until", type_=sa.TIMESTAMP(timezone=True)),
        started_at=sa.func.coalesce(import_jobs.c.started_at, NOW),
    )
    .returning(*_job_columns)
)

# Notes

LIST_ROW_NOTES: Final = Statement(
    sa.select(row_notes)
    .where(
        row_notes.c.import_id == uuid_parameter("import_id"),
        row_notes.c.kind == text_parameter("kind"),
        row_notes.c.number > bigint_parameter("after"),
    )
    .order_by(row_notes.c.number)
    .limit(LIMIT)
)
ADD_ROW_NOTE: Final = Statement(insert_row(row_notes))

# Products

_skus: Final = texts_parameter("skus")
_families: Final = texts_parameter("families")
GET_PRODUCTS_FOR_UPDATE: Final = Statement(
    sa.select(*PRODUCT_COLUMNS)
    .where(
        sa.or_(
            products.c.sku_key == sa.any_(_skus),
            products.c.family == sa.any_(_families),
        )
    )
    .order_by(products.c.product_id)
    .with_for_update(key_share=True)
)
LIST_FAMILIES_BY_SKU: Final = Statement(
    sa.select(products.c.sku_key, products.c.family).where(
        products.c.sku_key == sa.any_(_skus), products.c.family.is_not(None)
    )
)
_new_members: Final = (
    sa.func.unnest(PRODUCT_IDS, _families)
    .table_valued("product_id", "family")
    .render_derived()
    .alias("new_members")
)
ADD_IMPORT_MEMBERS: Final = Statement(
    insert(import_members)
    .from_select(
        ["import_id", "product_id", "family"],
        sa.select(
            uuid_parameter("import_id"),
            sa.cast(_new_members.c.product_id, sa.Uuid),
            sa.cast(_new_members.c.family, sa.Text),
        ),
    )
    .on_conflict_do_nothing()
)
_is_member: Final = import_members.c.import_id == uuid_parameter("import_id")
LIST_MISSING_PRODUCTS_FOR_UPDATE: Final = Statement(
    sa.select(*PRODUCT_COLUMNS)
    .where(
        products.c.family.in_(sa.select(import_members.c.family).where(_is_member)),
        ~sa.exists()
        .where(_is_member, import_members.c.product_id == products.c.product_id)
        .correlate(products),
        products.c.status != sql_literal("archived"),
    )
    .order_by(products.c.product_id)
    .with_for_update(key_share=True)
)
DELETE_IMPORT_MEMBERS: Final = Statement(sa.delete(import_members).where(_is_member))
# Lock the stock rows of all warehouses, because a trigger updates all of them when a limit of the
# product changes. The order avoids deadlocks.
GET_STOCK_FOR_UPDATE: Final = Statement(
    sa.select(stock)
    .where(stock.c.product_id == sa.any_(PRODUCT_IDS))
    .order_by(stock.c.product_id, stock.c.warehouse_id)
    .with_for_update(key_share=True)
)
_after: Final = uuid_parameter("after")
LIST_PRODUCTS_WITH_STOCK: Final = Statement(
    sa.select(*PRODUCT_COLUMNS, stock.c.on_hand)
    .select_from(
        products.join(
            stock,
            sa.and_(
                stock.c.product_id == products.c.product_id,
                stock.c.warehouse_id == uuid_parameter("warehouse_id"),
            ),
        )
    )
    .where(sa.or_(_after.is_(None), products.c.product_id > _after))
    .order_by(products.c.product_id)
    .limit(LIMIT)
)

# a temporary table with the columns of a product; Postgres drops it at the end of the transaction
STAGING_TABLE: Final = "product_staging"
STAGED_COLUMNS: Final = [column.name for column in WRITABLE_COLUMNS]


def _staging_column(column: "sa.Column[Any]") -> str:
    """Cast a tsvector to text: COPY needs a binary codec, and asyncpg has none for tsvector."""
    return f"{column.name}::text" if isinstance(column.type, TSVECTOR) else column.name


CREATE_STAGING_TABLE: Final = Statement(
    sa.text(
        f"CREATE TEMP TABLE {STAGING_TABLE} ON COMMIT DROP AS"
        f" SELECT {', '.join(map(_staging_column, WRITABLE_COLUMNS)).replace(':', chr(92) + ':')},"
        " 0 AS chunk_number, 0 AS row_number FROM inventory.product WITH NO DATA"
    )
)
_staging: Final = sa.table(
    STAGING_TABLE,
    *(sa.column(column.name, column.type) for column in WRITABLE_COLUMNS),
    sa.column("chunk_number", sa.Integer),
    sa.column("row_number", sa.Integer),
)
_is_chunk: Final = _staging.c.chunk_number == bindparam("chunk_number", type_=sa.Integer)


def _staged_value(column: "sa.Column[Any]") -> "sa.ColumnElement[Any]":
    staged = _staging.c[column.name]
    return sa.cast(staged, TSVECTOR) if isinstance(column.type, TSVECTOR) else staged


_new_product: Final = (
    insert(products)
    .from_select(
        STAGED_COLUMNS,
        sa.select(*map(_staged_value, WRITABLE_COLUMNS))
        .where(_is_chunk)
        .order_by(_staging.c.row_number),
    )
    .on_conflict_do_nothing()
    .returning(products.c.product_id)
    .cte("new_product")
)
ADD_STAGED_PRODUCTS: Final = Statement(
    insert(stock).from_select(
        ["product_id", "warehouse_id", "on_hand", "reserved"],
        sa.select(_new_product.c.product_id, uuid_parameter("warehouse_id"), ZERO, ZERO),
    )
)
SAVE_STAGED_PRODUCTS: Final = Statement(
    sa.update(products)
    .where(products.c.product_id == _staging.c.product_id, _is_chunk)
    .values(
        {
            column.name: _staged_value(column)
            for column in WRITABLE_COLUMNS
            if column.name not in {"product_id", "created_at"}
        }
    )
)
ADD_NEW_WORDS: Final = Statement(sa.select(sa.literal_column("1")).add_cte(insert_new_words()))
