"""SQL statements of the category tree."""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.inventory.catalogue.sql.parameters import LIMIT, sum_or_zero, uuid_parameter
from markethall.inventory.catalogue.sql.tables import ACTIVE, categories, products
from markethall.shared.persistence.postgres import Statement, sql_literal


def _subtree() -> "sa.ColumnElement[Any]":
    key = bindparam("category", type_=sa.Text)
    tree = (
        sa.select(categories.c.category)
        .where(categories.c.category == key)
        .cte("category_below", recursive=True)
    )
    child = sa.select(categories.c.category).where(categories.c.parent == tree.c.category)
    tree = tree.union_all(child)
    return sa.func.array(sa.select(tree.c.category).scalar_subquery(), type_=ARRAY(sa.Text))


# an array of the category and all categories below it, for `== sa.any_(SUBTREE)`
SUBTREE: Final = _subtree()

_category_key: Final = categories.c.category.collate("C")
_text_columns: Final = [
    sa.cast(column, sa.Text).label(column.name) if column.name == "translations" else column
    for column in categories.c
]
_PARENT_FILTERS: Final[Mapping[str, "sa.ColumnElement[bool]"]] = {
    "any": sa.true(),
    "root": categories.c.parent.is_(None),
    "child": categories.c.parent == bindparam("parent", type_=sa.Text),
}


def _with_product_counts(selected: "sa.CTE") -> Statement:
    """Select categories with their number of active products, including those of categories below.

    Products are counted once per category, and these counts are added up for each ancestor.
    """
    tree = sa.select(selected.c.category.label("top"), selected.c.category).cte(
        "tree", recursive=True
    )
    child = sa.select(tree.c.top, categories.c.category).where(
        categories.c.parent == tree.c.category
    )
    tree = tree.union_all(child)
    counts = _product_counts(tree)
    active = (
        sa.select(sum_or_zero(counts.c.active))
        .select_from(tree.join(counts, counts.c.category == tree.c.category))
        .where(tree.c.top == selected.c.category)
        .correlate(selected)
        .scalar_subquery()
    )
    order = selected.c.position, selected.c.category.collate("C")
    return Statement(sa.select(selected, active.label("product_count")).order_by(*order))


def _product_counts(tree: "sa.CTE") -> "sa.CTE":
    category_keys = sa.func.array(
        sa.select(tree.c.category).scalar_subquery(), type_=ARRAY(sa.Text)
    )
    counts = (
        sa.select(products.c.category, sa.func.count().label("active"))
        .where(products.c.status == ACTIVE, products.c.category == sa.any_(category_keys))
        .group_by(products.c.category)
        .cte("counts")
    )
    return counts.prefix_with("MATERIALIZED")


def _category_page(parent: str, *, after: bool) -> Statement:
    current = sa.tuple_(categories.c.position, _category_key)
    after_key = sa.tuple_(
        bindparam("position", type_=sa.Integer), bindparam("category", type_=sa.Text)
    )
    query = sa.select(*_text_columns).where(
        _PARENT_FILTERS[parent], *([current > after_key] if after else [])
    )
    return _with_product_counts(
        query.order_by(categories.c.position, _category_key).limit(LIMIT).cte("selected")
    )


LIST_CATEGORIES: Final = {
    (parent, after): _category_page(parent, after=after)
    for parent in _PARENT_FILTERS
    for after in (False, True)
}
GET_CATEGORY: Final = _with_product_counts(
    sa.select(*_text_columns)
    .where(categories.c.category_id == bindparam("category_id"))
    .cte("selected")
)

ADD_CATEGORY: Final = Statement(
    insert(categories)
    .values({column.name: bindparam(column.name) for column in categories.c})
    .on_conflict_do_nothing()
)
LOCK_CATEGORY_TREE: Final = Statement(
    sa.select(
        sa.func.pg_advisory_xact_lock(
            sa.func.hashtextextended(sql_literal("inventory.category"), sa.literal_column("0"))
        )
    )
)
# FOR NO KEY UPDATE, so that inserts of products or children that refer to the row do not wait
GET_CATEGORY_FOR_UPDATE: Final = Statement(
    sa.select(*_text_columns)
    .where(categories.c.category_id == bindparam("category_id"))
    .with_for_update(key_share=True)
)
SAVE_CATEGORY: Final = Statement(
    sa.update(categories)
    .where(categories.c.category_id == bindparam("category_id"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("name", "parent", "position", "translations", "version")
        }
    )
)
REMOVE_CATEGORY: Final = Statement(
    sa.delete(categories).where(categories.c.category_id == uuid_parameter("category_id"))
)


def _ancestors() -> Statement:
    ancestors = (
        sa.select(categories.c.category, categories.c.parent)
        .where(categories.c.category == bindparam("category", type_=sa.Text))
        .cte("category_above", recursive=True)
    )
    parent = sa.select(categories.c.category, categories.c.parent).where(
        categories.c.category == ancestors.c.parent
    )
    return Statement(sa.select(ancestors.union_all(parent).c.category))


GET_ANCESTORS: Final = _ancestors()
