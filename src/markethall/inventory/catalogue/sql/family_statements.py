"""SQL statements of families. `family_summaries` has the query that summarizes their products."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from markethall.inventory.catalogue.sql.expressions import LIMIT, integer_literal, uuid_parameter
from markethall.inventory.catalogue.sql.tables import families, family_slugs
from markethall.shared.persistence.postgres import Statement, sql_literal


def _texts(name: str) -> "sa.BindParameter[Any]":
    return bindparam(name, type_=ARRAY(sa.Text))


# JSON columns are read as text, because the connection has no JSON codec
FAMILY_COLUMNS: Final = [
    sa.cast(column, sa.Text).label(column.name) if isinstance(column.type, JSONB) else column
    for column in families.c
    if column.name not in {"label_key", "number"}
]

LIST_FAMILY_NAMES: Final = Statement(
    sa.union_all(
        sa.select(families.c.label, families.c.label_key, sa.null().label("slug")).where(
            families.c.label_key == sa.any_(_texts("keys"))
        ),
        sa.select(families.c.label, families.c.label_key, family_slugs.c.slug)
        .join_from(family_slugs, families, families.c.family_id == family_slugs.c.family_id)
        .where(family_slugs.c.slug == sa.any_(_texts("keys"))),
    )
)
LIST_TAKEN_SLUGS: Final = Statement(
    sa.select(family_slugs.c.slug).where(family_slugs.c.slug == sa.any_(_texts("slugs")))
)
LOCK_FAMILY_NAMES: Final = Statement(
    sa.select(
        sa.func.pg_advisory_xact_lock(
            sa.func.hashtextextended(sql_literal("inventory.family"), sa.literal_column("0"))
        )
    )
)


def find_family_id() -> "sa.ScalarSelect[Any]":
    """Select the id of the family with this id, slug, former slug or `label_key`."""
    by_id = sa.select(families.c.family_id, integer_literal(0).label("rank")).where(
        families.c.family_id == uuid_parameter("family_id")
    )
    by_slug = sa.select(family_slugs.c.family_id, integer_literal(1)).where(
        family_slugs.c.slug == bindparam("key", type_=sa.Text)
    )
    by_label = sa.select(families.c.family_id, integer_literal(2)).where(
        families.c.label_key == bindparam("key", type_=sa.Text)
    )
    found = sa.union_all(by_id, by_slug, by_label).subquery("found")
    return sa.select(found.c.family_id).order_by(found.c.rank).limit(1).scalar_subquery()


# FOR NO KEY UPDATE, so that inserts of products that refer to the row do not wait
GET_FAMILY_FOR_UPDATE: Final = Statement(
    sa.select(*FAMILY_COLUMNS)
    .where(families.c.family_id == find_family_id())
    .with_for_update(key_share=True, of=families)
)
GET_FAMILIES_FOR_UPDATE: Final = Statement(
    sa.select(*FAMILY_COLUMNS)
    .where(families.c.label == sa.any_(_texts("labels")))
    .order_by(families.c.label.collate("C"))
    .with_for_update(key_share=True)
)
LIST_FAMILIES: Final = Statement(
    sa.select(*FAMILY_COLUMNS)
    .where(families.c.label_key > bindparam("after", type_=sa.Text))
    .order_by(families.c.label_key)
    .limit(LIMIT)
)
_new_family: Final = (
    insert(families)
    .values({column.name: bindparam(column.name) for column in families.c if not column.identity})
    .on_conflict_do_nothing()
    .returning(families.c.family_id, families.c.slug)
    .cte("new_family")
)
ADD_FAMILY: Final = Statement(
    insert(family_slugs).from_select(
        ["slug", "family_id"], sa.select(_new_family.c.slug, _new_family.c.family_id)
    )
)
SAVE_FAMILY: Final = Statement(
    sa.update(families)
    .where(families.c.family_id == uuid_parameter("family_id"))
    .values(
        {
            column.name: bindparam(f"new_{column.name}", type_=column.type)
            for column in families.c
            if column.name not in {"family_id", "label", "label_key", "number", "created_at"}
        }
    )
)
ADD_SLUG: Final = Statement(
    insert(family_slugs)
    .values(slug=bindparam("slug"), family_id=bindparam("family_id"))
    .on_conflict_do_nothing()
)
