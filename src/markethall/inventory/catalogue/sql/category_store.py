from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY

from markethall.inventory.catalogue.contract.categories import (
    CategoryInUse,
    CategoryNotFound,
    CategoryQuery,
    CategoryTaken,
    CategoryTranslationView,
    CategoryView,
)
from markethall.inventory.catalogue.domain.categories import Category, CategoryNode, category_key
from markethall.inventory.catalogue.sql.expressions import (
    LIMIT,
    insert_row,
    integer_literal,
    new_values,
    read_columns,
    sum_or_zero,
    text_parameter,
    texts_parameter,
    uuid_parameter,
)
from markethall.inventory.catalogue.sql.tables import ACTIVE, categories, products
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.persistence.postgres import Statement, sql_literal

if TYPE_CHECKING:
    from asyncpg.protocol import Record


def _subtree() -> "sa.ColumnElement[Any]":
    keys = texts_parameter("category")
    tree = (
        sa.select(categories.c.category)
        .where(categories.c.category_key == sa.any_(keys))
        .cte("category_below", recursive=True)
    )
    child = sa.select(categories.c.category).where(categories.c.parent == tree.c.category)
    # UNION removes duplicates: a requested category may be below another requested category
    tree = tree.union(child)
    return sa.func.array(sa.select(tree.c.category).scalar_subquery(), type_=ARRAY(sa.Text))


# An array of categories, for `== sa.any_(SUBTREE)`: the categories with the keys in the bind
# parameter `category`, and all categories below them.
SUBTREE: Final = _subtree()

_category_key: Final = categories.c.category.collate("C")
_parents: Final = categories.alias("parents")
_read_columns: Final = read_columns(categories.c, "category_key", "label_key")
_PARENT_FILTERS: Final[Mapping[str, "sa.ColumnElement[bool]"]] = {
    "any": sa.true(),
    "root": categories.c.parent.is_(None),
    "child": categories.c.parent
    == sa.select(_parents.c.category)
    .where(_parents.c.category_key == text_parameter("parent_key"))
    .scalar_subquery(),
}


def _with_product_counts(selected: "sa.CTE") -> Statement:
    """Select categories with the number of active products in them and all categories below.

    Products are counted once per category, and these counts are added up for each ancestor.
    """
    tree = sa.select(selected.c.category.label("top"), selected.c.category).cte(
        "tree", recursive=True
    )
    child = sa.select(tree.c.top, categories.c.category).where(
        categories.c.parent == tree.c.category
    )
    tree = tree.union_all(child)
    category_keys = sa.func.array(
        sa.select(tree.c.category).scalar_subquery(), type_=ARRAY(sa.Text)
    )
    counts = (
        sa.select(products.c.category, sa.func.count().label("active"))
        .where(products.c.status == ACTIVE, products.c.category == sa.any_(category_keys))
        .group_by(products.c.category)
        .cte("counts")
        .prefix_with("MATERIALIZED")
    )
    active = (
        sa.select(sum_or_zero(counts.c.active))
        .select_from(tree.join(counts, counts.c.category == tree.c.category))
        .where(tree.c.top == selected.c.category)
        .correlate(selected)
        .scalar_subquery()
    )
    order = selected.c.position, selected.c.category.collate("C")
    return Statement(sa.select(selected, active.label("product_count")).order_by(*order))


def _category_page(parent: str, *, after: bool) -> Statement:
    current = sa.tuple_(categories.c.position, _category_key)
    after_key = sa.tuple_(bindparam("position", type_=sa.Integer), text_parameter("category"))
    query = sa.select(*_read_columns).where(
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
    sa.select(*_read_columns)
    .where(categories.c.category_id == bindparam("category_id"))
    .cte("selected")
)

ADD_CATEGORY: Final = Statement(insert_row(categories))
LIST_ALL_CATEGORY_NODES: Final = Statement(sa.select(categories.c.category, categories.c.parent))
_nodes: Final = sa.select(categories.c.category, categories.c.parent).where(
    categories.c.label_key == sa.any_(texts_parameter("label_keys"))
)
LIST_CATEGORY_NODES: Final = Statement(_nodes)
# FOR KEY SHARE, so that no category is deleted before this transaction inserts a product or child
# that refers to it
LIST_CATEGORY_NODES_FOR_SHARE: Final = Statement(
    _nodes.order_by(categories.c.category_id).with_for_update(read=True, key_share=True)
)
LOCK_CATEGORY_TREE: Final = Statement(
    sa.select(
        sa.func.pg_advisory_xact_lock(
            sa.func.hashtextextended(sql_literal("inventory.category"), sa.literal_column("0"))
        )
    )
)
# FOR NO KEY UPDATE, so that inserts of products or children that refer to the row do not wait
_category: Final = sa.select(*_read_columns).where(
    categories.c.category_id == bindparam("category_id")
)
GET_CATEGORY_FOR_UPDATE: Final = Statement(_category.with_for_update(key_share=True))
# FOR UPDATE at once, because the DELETE needs this lock. With a weaker lock at first, three
# transactions could deadlock: the DELETE waits for a transaction that adds a child, this one waits
# for the lock of the tree, and a change that holds the lock of the tree waits for the weaker lock.
GET_CATEGORY_FOR_DELETION: Final = Statement(_category.with_for_update())
SAVE_CATEGORY: Final = Statement(
    sa.update(categories)
    .where(categories.c.category_id == bindparam("category_id"))
    .values(new_values(categories.c, "category_id", "category", "category_key", "label_key"))
)
REMOVE_CATEGORY: Final = Statement(
    sa.delete(categories).where(categories.c.category_id == uuid_parameter("category_id"))
)


def _ancestors() -> Statement:
    depth: sa.ColumnElement[int] = integer_literal(0)
    ancestors = (
        sa.select(categories.c.category, categories.c.parent, depth.label("depth"))
        .where(categories.c.category == text_parameter("category"))
        .cte("category_above", recursive=True)
    )
    parent = sa.select(
        categories.c.category, categories.c.parent, ancestors.c.depth + integer_literal(1)
    ).where(categories.c.category == ancestors.c.parent)
    above = ancestors.union_all(parent)
    return Statement(sa.select(above.c.category).order_by(above.c.depth))


GET_ANCESTORS: Final = _ancestors()


_TRANSLATIONS: Final = TypeAdapter(dict[str, CategoryTranslationView])


class SqlCategoryStore(SqlUnitOfWork):
    async def list_categories(
        self, query: CategoryQuery, after: tuple[int, str] | None
    ) -> Sequence[CategoryView]:
        values: dict[str, Any] = {}
        if query.parent:
            values["parent_key"] = category_key(query.parent)
        if after is not None:
            values["position"], values["category"] = after
        parent_filter = "any" if query.parent is None else "child" if query.parent else "root"
        statement = LIST_CATEGORIES[parent_filter, after is not None]
        rows = await self._connection.fetch_all(statement, limit=query.limit + 1, **values)
        return [_to_view(row) for row in rows]

    async def get_category_view(self, category_id: UUID) -> CategoryView | None:
        row = await self._connection.fetch_one(GET_CATEGORY, category_id=category_id)
        return _to_view(row) if row else None

    async def add_category(self, category: Category) -> bool:
        row = {
            **vars(category),
            "category_key": category.key,
            "label_key": category.node.label_key,
            "translations": _dump_translations(category),
        }
        try:
            return await self._has_effect(ADD_CATEGORY, **row)
        except asyncpg.ForeignKeyViolationError:
            raise CategoryNotFound(category=category.parent) from None

    async def list_category_nodes(self, label_keys: Collection[str]) -> Sequence[CategoryNode]:
        return await self._list_nodes(LIST_CATEGORY_NODES, label_keys=list(label_keys))

    async def list_all_category_nodes(self) -> Sequence[CategoryNode]:
        return await self._list_nodes(LIST_ALL_CATEGORY_NODES)

    async def list_category_nodes_for_share(
        self, label_keys: Collection[str]
    ) -> Sequence[CategoryNode]:
        return await self._list_nodes(LIST_CATEGORY_NODES_FOR_SHARE, label_keys=list(label_keys))

    async def _list_nodes(self, statement: Statement, **values: Any) -> Sequence[CategoryNode]:
        rows = await self._connection.fetch_all(statement, **values)
        return [CategoryNode(*row) for row in rows]

    async def lock_category_tree(self) -> None:
        await self._connection.fetch_value(LOCK_CATEGORY_TREE)

    async def get_category_for_update(self, category_id: UUID) -> Category | None:
        row = await self._connection.fetch_one(GET_CATEGORY_FOR_UPDATE, category_id=category_id)
        return Category(**_parse_row(row)) if row else None

    async def get_category_for_deletion(self, category_id: UUID) -> Category | None:
        row = await self._connection.fetch_one(GET_CATEGORY_FOR_DELETION, category_id=category_id)
        return Category(**_parse_row(row)) if row else None

    async def get_ancestors(self, category: str) -> Sequence[str]:
        rows = await self._connection.fetch_all(GET_ANCESTORS, category=category)
        return [row["category"] for row in rows]

    async def save_category(self, category: Category) -> None:
        row = {f"new_{name}": value for name, value in vars(category).items()}
        row["new_translations"] = _dump_translations(category)
        try:
            await self._connection.execute(SAVE_CATEGORY, category_id=category.category_id, **row)
        except asyncpg.UniqueViolationError:
            raise CategoryTaken(category=category.category) from None
        except asyncpg.ForeignKeyViolationError:
            raise CategoryNotFound(category=category.parent) from None

    async def remove_category(self, category: Category) -> None:
        try:
            await self._connection.execute(REMOVE_CATEGORY, category_id=category.category_id)
        except asyncpg.ForeignKeyViolationError:
            raise CategoryInUse(category=category.category) from None


def _dump_translations(category: Category) -> str:
    return _TRANSLATIONS.dump_json(dict(category.translations)).decode()


def _parse_row(row: "Record") -> Mapping[str, Any]:
    return {**row, "translations": _TRANSLATIONS.validate_json(row["translations"])}


def _to_view(row: "Record") -> CategoryView:
    return CategoryView(**_parse_row(row))
