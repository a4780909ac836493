"""Statements of imports and exports."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, TSVECTOR, insert

from markethall.inventory.sql.import_tables import errors, jobs, parts, uploads
from markethall.inventory.sql.parameters import IDS, LIMIT, NOW, ZERO, units, uuid
from markethall.inventory.sql.products import ITEM_COLUMNS, WRITTEN, learnt
from markethall.inventory.sql.tables import movements, products, stock
from markethall.shared.db import Statement

# Uploads


def _time(name: str) -> "sa.BindParameter[Any]":
    return bindparam(name, type_=sa.TIMESTAMP(timezone=True))


# one that has failed may be retried
_wanted: Final = (
    sa.exists()
    .where(jobs.c.upload_id == uploads.c.upload_id, jobs.c.status != "done")
    .correlate(uploads)
)
OPEN_UPLOAD: Final = Statement(
    insert(uploads).values(upload_id=bindparam("upload_id"), created_at=bindparam("created_at"))
)
ADD_PART: Final = Statement(
    insert(parts).values(
        upload_id=bindparam("upload_id"), number=bindparam("number"), data=bindparam("data")
    )
)
PART: Final = Statement(
    sa.select(parts.c.data).where(parts.c.upload_id == uuid("of"), parts.c.number == units("which"))
)
DROP_UPLOAD: Final = Statement(
    sa.delete(uploads).where(uploads.c.upload_id == uuid("of"), ~_wanted)
)
DROP_STALE: Final = Statement(
    sa.delete(uploads).where(
        uploads.c.created_at < _time("before"),
        ~_wanted.where(
            sa.or_(jobs.c.finished_at.is_(None), jobs.c.finished_at >= _time("failed_before"))
        ),
    )
)

# Jobs

_of_job: Final = jobs.c.import_id == uuid("of")
ADD_JOB: Final = Statement(
    insert(jobs)
    .values({column.name: bindparam(column.name) for column in jobs.c})
    .on_conflict_do_nothing()
)
JOB: Final = Statement(sa.select(jobs).where(_of_job))
LOCK_JOB: Final = Statement(sa.select(jobs).where(_of_job).with_for_update())
_new_values: Final = {
    column.name: bindparam(f"new_{column.name}", type_=column.type)
    for column in jobs.c
    if column.name not in {"import_id", "created_at"}
}
SAVE_JOB: Final = Statement(sa.update(jobs).where(_of_job).values(_new_values))
ADVANCE_JOB: Final = Statement(
    sa.update(jobs)
    # the place too: a batch of which the answer was lost is not applied twice
    .where(_of_job, jobs.c.token == uuid("mine"), jobs.c.place_offset == units("old_offset"))
    .values(_new_values)
)
DROP_OLD_JOBS: Final = Statement(sa.delete(jobs).where(jobs.c.finished_at < _time("before")))
HAND_BACK_JOB: Final = Statement(
    sa.update(jobs)
    .where(_of_job, jobs.c.token == uuid("mine"))
    .values(token=None, lease_until=None)
)
_only: Final = uuid("only")
_next_job: Final = (
    sa.select(jobs.c.import_id)
    .where(
        jobs.c.finished_at.is_(None),
        sa.or_(jobs.c.lease_until.is_(None), jobs.c.lease_until < NOW),
        sa.or_(_only.is_(None), jobs.c.import_id == _only),
    )
    .order_by(jobs.c.created_at, jobs.c.import_id)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
TAKE_JOB: Final = Statement(
    sa.update(jobs)
    .where(jobs.c.import_id == _next_job)
    .values(
        status="running",
        token=uuid("mine"),
        lease_until=bindparam("until", type_=sa.TIMESTAMP(timezone=True)),
        started_at=sa.func.coalesce(jobs.c.started_at, NOW),
    )
    .returning(jobs)
)

# Errors

FLAWS: Final = Statement(
    sa.select(errors)
    .where(errors.c.import_id == uuid("of"), errors.c.number > units("after"))
    .order_by(errors.c.number)
    .limit(LIMIT)
)
NOTE_FLAW: Final = Statement(
    insert(errors)
    .values({column.name: bindparam(column.name) for column in errors.c})
    .on_conflict_do_nothing()
)

# Products

_skus: Final = bindparam("skus", type_=ARRAY(sa.Text))
KNOWN_ITEMS: Final = Statement(
    sa.select(*ITEM_COLUMNS)
    .where(sa.func.lower(products.c.sku) == sa.any_(_skus))
    .order_by(products.c.product_id)
    .with_for_update(key_share=True)
)
# all of each product, at once and in the order of all others: what its limits follow is changed too
SHELVES: Final = Statement(
    sa.select(stock)
    .where(stock.c.product_id == sa.any_(IDS))
    .order_by(stock.c.product_id, stock.c.warehouse_id)
    .with_for_update(key_share=True)
)
_after: Final = uuid("after")
ITEMS_AFTER: Final = Statement(
    sa.select(*ITEM_COLUMNS, stock.c.on_hand)
    .select_from(
        products.join(
            stock,
            sa.and_(
                stock.c.product_id == products.c.product_id, stock.c.warehouse_id == uuid("main")
            ),
        )
    )
    .where(sa.or_(_after.is_(None), products.c.product_id > _after))
    .order_by(products.c.product_id)
    .limit(LIMIT)
)

# A table of this transaction alone, with just the columns that a product has: it needs no
# migration, and nothing is left of it when a process dies.
STAGING: Final = "product_staging"
STAGED: Final = [column.name for column in WRITTEN]


def _staged_as(column: "sa.Column[Any]") -> str:
    """COPY speaks binary, which for words there is not: they travel as text."""
    return f"{column.name}::text" if isinstance(column.type, TSVECTOR) else column.name


STAGE: Final = Statement(
    sa.text(
        f"CREATE TEMP TABLE {STAGING} ON COMMIT DROP AS"  # noqa: S608 - names of our own columns
        f" SELECT {', '.join(map(_staged_as, WRITTEN)).replace(':', chr(92) + ':')},"
        " 0 AS piece, 0 AS place FROM inventory.product WITH NO DATA"
    )
)
_staging: Final = sa.table(
    STAGING,
    *(sa.column(column.name, column.type) for column in WRITTEN),
    sa.column("piece", sa.Integer),
    sa.column("place", sa.Integer),
)
_of_piece: Final = _staging.c.piece == bindparam("piece", type_=sa.Integer)


def _unstaged(column: "sa.Column[Any]") -> "sa.ColumnElement[Any]":
    staged = _staging.c[column.name]
    return sa.cast(staged, TSVECTOR) if isinstance(column.type, TSVECTOR) else staged


_new: Final = (
    insert(products)
    .from_select(
        STAGED,
        sa.select(*map(_unstaged, WRITTEN)).where(_of_piece).order_by(_staging.c.place),
    )
    .on_conflict_do_nothing()
    .returning(products.c.product_id)
    .cte("new_product")
)
ADD_STAGED: Final = Statement(
    insert(stock).from_select(
        ["product_id", "warehouse_id", "on_hand", "reserved"],
        sa.select(_new.c.product_id, uuid("main"), ZERO, ZERO),
    )
)
SAVE_STAGED: Final = Statement(
    sa.update(products)
    .where(products.c.product_id == _staging.c.product_id, _of_piece)
    .values(
        {
            column.name: _unstaged(column)
            for column in WRITTEN
            if column.name not in {"product_id", "created_at"}
        }
    )
)
LEARN: Final = Statement(sa.select(sa.literal_column("1")).add_cte(learnt()))

# Stock: the shelves are locked, or as new as their products


_moved: Final = (
    sa.func.unnest(
        bindparam("movements", type_=ARRAY(sa.Uuid)),
        IDS,
        bindparam("deltas", type_=ARRAY(sa.BigInteger)),
    )
    .table_valued("movement_id", "product_id", "delta")
    .render_derived()
    .alias("moved")
)
MOVE_ALL: Final = Statement(
    insert(movements).from_select(
        [column.name for column in movements.c if column.name != "number"],
        sa.select(
            sa.cast(_moved.c.movement_id, sa.Uuid),
            stock.c.product_id,
            stock.c.warehouse_id,
            sa.cast(_moved.c.delta, sa.BigInteger),
            stock.c.on_hand + sa.cast(_moved.c.delta, sa.BigInteger),
            bindparam("why", type_=sa.Text),
            bindparam("words", type_=sa.Text),
            sa.cast(sa.null(), sa.Uuid),
            bindparam("who", type_=sa.Text),
            NOW,
        )
        .select_from(
            _moved.join(
                stock,
                sa.and_(
                    stock.c.product_id == sa.cast(_moved.c.product_id, sa.Uuid),
                    stock.c.warehouse_id == uuid("main"),
                ),
            )
        )
        .order_by(stock.c.product_id),
    )
)
