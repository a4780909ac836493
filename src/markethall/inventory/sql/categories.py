"""Statements on the category tree."""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, insert

from markethall.inventory.sql.parameters import LIMIT, total, uuid
from markethall.inventory.sql.tables import ACTIVE, categories, products
from markethall.shared.db import Statement, constant


def _below() -> "sa.ColumnElement[Any]":
    key = bindparam("category", type_=sa.Text)
    tree = (
        sa.select(categories.c.category)
        .where(categories.c.category == key)
        .cte("below", recursive=True)
    )
    child = sa.select(categories.c.category).where(categories.c.parent == tree.c.category)
    tree = tree.union_all(child)
    return sa.func.array(sa.select(tree.c.category).scalar_subquery(), type_=ARRAY(sa.Text))


# an array: the category and all that is below it, for `== sa.any_(BELOW)`
BELOW: Final = _below()

# The tree as it is seen

_key: Final = categories.c.category.collate("C")
_as_kept: Final = [
    sa.cast(column, sa.Text).label(column.name) if column.name == "translations" else column
    for column in categories.c
]
_PARENTS: Final[Mapping[str, "sa.ColumnElement[bool]"]] = {
    "any": sa.true(),
    "root": categories.c.parent.is_(None),
    "child": categories.c.parent == bindparam("parent", type_=sa.Text),
}


def _counted(some: "sa.CTE") -> Statement:
    """With the active products of each, and of all that is below it.

    All that is counted is read once, not once for each that it is below.
    """
    tree = sa.select(some.c.category.label("top"), some.c.category).cte("tree", recursive=True)
    child = sa.select(tree.c.top, categories.c.category).where(
        categories.c.parent == tree.c.category
    )
    tree = tree.union_all(child)
    counts = _counts(tree)
    active = (
        sa.select(total(counts.c.active))
        .select_from(tree.join(counts, counts.c.category == tree.c.category))
        .where(tree.c.top == some.c.category)
        .correlate(some)
        .scalar_subquery()
    )
    place = some.c.position, some.c.category.collate("C")
    return Statement(sa.select(some, active.label("product_count")).order_by(*place))


def _counts(tree: "sa.CTE") -> "sa.CTE":
    wanted = sa.func.array(sa.select(tree.c.category).scalar_subquery(), type_=ARRAY(sa.Text))
    counts = (
        sa.select(products.c.category, sa.func.count().label("active"))
        .where(products.c.status == ACTIVE, products.c.category == sa.any_(wanted))
        .group_by(products.c.category)
        .cte("counts")
    )
    return counts.prefix_with("MATERIALIZED")


def _page(parent: str, *, after: bool) -> Statement:
    place = sa.tuple_(categories.c.position, _key)
    last = sa.tuple_(bindparam("position", type_=sa.Integer), bindparam("category", type_=sa.Text))
    query = sa.select(*_as_kept).where(_PARENTS[parent], *([place > last] if after else []))
    return _counted(query.order_by(categories.c.position, _key).limit(LIMIT).cte("some"))


PAGES: Final = {
    (parent, after): _page(parent, after=after) for parent in _PARENTS for after in (False, True)
}
ONE: Final = _counted(
    sa.select(*_as_kept).where(categories.c.category_id == bindparam("of")).cte("some")
)

# The tree as it is kept

ADD: Final = Statement(
    insert(categories)
    .values({column.name: bindparam(column.name) for column in categories.c})
    .on_conflict_do_nothing()
)
HOLD: Final = Statement(
    sa.select(
        sa.func.pg_advisory_xact_lock(
            sa.func.hashtextextended(constant("inventory.category"), sa.literal_column("0"))
        )
    )
)
# what names it as a parent or as its category goes on meanwhile
BRANCH: Final = Statement(
    sa.select(*_as_kept)
    .where(categories.c.category_id == bindparam("of"))
    .with_for_update(key_share=True)
)
SAVE: Final = Statement(
    sa.update(categories)
    .where(categories.c.category_id == bindparam("of"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("name", "parent", "position", "translations", "version")
        }
    )
)
REMOVE: Final = Statement(sa.delete(categories).where(categories.c.category_id == uuid("of")))


def _above() -> Statement:
    some = (
        sa.select(categories.c.category, categories.c.parent)
        .where(categories.c.category == bindparam("category", type_=sa.Text))
        .cte("above", recursive=True)
    )
    parent = sa.select(categories.c.category, categories.c.parent).where(
        categories.c.category == some.c.parent
    )
    return Statement(sa.select(some.union_all(parent).c.category))


ABOVE: Final = _above()
