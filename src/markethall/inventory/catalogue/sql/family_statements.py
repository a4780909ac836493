"""SQL statements of families. `family_summaries` has the query that summarizes their products."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from markethall.inventory.catalogue.sql.expressions import (
    LIMIT,
    insert_row,
    integer_literal,
    new_values,
    read_columns,
    text_parameter,
    texts_parameter,
    uuid_parameter,
)
from markethall.inventory.catalogue.sql.tables import families, family_slugs
from markethall.shared.persistence.postgres import Statement, sql_literal

FAMILY_COLUMNS: Final = read_columns(families.c, "label_key", "number")

LIST_FAMILY_NAMES: Final = Statement(
    sa.union_all(
        sa.select(families.c.label, families.c.label_key, sa.null().label("slug")).where(
            families.c.label_key == sa.any_(texts_parameter("keys"))
        ),
        sa.select(families.c.label, families.c.label_key, family_slugs.c.slug)
        .join_from(family_slugs, families, families.c.family_id == family_slugs.c.family_id)
        .where(family_slugs.c.slug == sa.any_(texts_parameter("keys"))),
    )
)
LIST_TAKEN_SLUGS: Final = Statement(
    sa.select(family_slugs.c.slug).where(family_slugs.c.slug == sa.any_(texts_parameter("slugs")))
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
        family_slugs.c.slug == text_parameter("key")
    )
    by_label = sa.select(families.c.family_id, integer_literal(2)).where(
        families.c.label_key == text_parameter("key")
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
    .where(families.c.label == sa.any_(texts_parameter("labels")))
    .order_by(families.c.label.collate("C"))
    .with_for_update(key_share=True)
)
LIST_FAMILIES: Final = Statement(
    sa.select(*FAMILY_COLUMNS)
    .where(families.c.label_key > text_parameter("after"))
    .order_by(families.c.label_key)
    .limit(LIMIT)
)
_new_family: Final = (
    insert_row(families).returning(families.c.family_id, families.c.slug).cte("new_family")
)
ADD_FAMILY: Final = Statement(
    insert(family_slugs).from_select(
        ["slug", "family_id"], sa.select(_new_family.c.slug, _new_family.c.family_id)
    )
)
SAVE_FAMILY: Final = Statement(
    sa.update(families)
    .where(families.c.family_id == uuid_parameter("family_id"))
    .values(new_values(families.c, "family_id", "label", "label_key", "number", "created_at"))
)
ADD_SLUG: Final = Statement(insert_row(family_slugs))
