from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from markethall.inventory.catalogue.contract.categories import (
    CategoryInUse,
    CategoryNotFound,
    CategoryQuery,
    CategoryTaken,
    CategoryTranslationView,
    CategoryView,
)
from markethall.inventory.catalogue.domain.categories import Category
from markethall.inventory.catalogue.domain.category_tree import CategoryNode, category_key
from markethall.inventory.catalogue.sql import category_statements
from markethall.shared.composition.sql import SqlUnitOfWork

if TYPE_CHECKING:
    from asyncpg.protocol import Record

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
        statement = category_statements.LIST_CATEGORIES[parent_filter, after is not None]
        rows = await self._connection.fetch_all(statement, limit=query.limit + 1, **values)
        return [_to_view(row) for row in rows]

    async def get_category_view(self, category_id: UUID) -> CategoryView | None:
        row = await self._connection.fetch_one(
            category_statements.GET_CATEGORY, category_id=category_id
        )
        return _to_view(row) if row else None

    async def add_category(self, category: Category) -> bool:
        row = {
            **vars(category),
            "category_key": category.key,
            "label_key": category.node.label_key,
            "translations": _dump_translations(category),
        }
        try:
            return bool(await self._connection.execute(category_statements.ADD_CATEGORY, **row))
        except asyncpg.ForeignKeyViolationError:
            raise CategoryNotFound(category=category.parent) from None

    async def list_category_nodes(self, label_keys: Collection[str]) -> Sequence[CategoryNode]:
        rows = await self._connection.fetch_all(
            category_statements.LIST_CATEGORY_NODES, label_keys=list(label_keys)
        )
        return [CategoryNode(*row) for row in rows]

    async def list_all_category_nodes(self) -> Sequence[CategoryNode]:
        rows = await self._connection.fetch_all(category_statements.LIST_ALL_CATEGORY_NODES)
        return [CategoryNode(*row) for row in rows]

    async def list_category_nodes_for_share(
        self, label_keys: Collection[str]
    ) -> Sequence[CategoryNode]:
        rows = await self._connection.fetch_all(
            category_statements.LIST_CATEGORY_NODES_FOR_SHARE, label_keys=list(label_keys)
        )
        return [CategoryNode(*row) for row in rows]

    async def lock_category_tree(self) -> None:
        await self._connection.fetch_value(category_statements.LOCK_CATEGORY_TREE)

    async def get_category_for_update(self, category_id: UUID) -> Category | None:
        row = await self._connection.fetch_one(
            category_statements.GET_CATEGORY_FOR_UPDATE, category_id=category_id
        )
        return Category(**_parse_row(row)) if row else None

    async def get_category_for_deletion(self, category_id: UUID) -> Category | None:
        row = await self._connection.fetch_one(
            category_statements.GET_CATEGORY_FOR_DELETION, category_id=category_id
        )
        return Category(**_parse_row(row)) if row else None

    async def get_ancestors(self, category: str) -> Sequence[str]:
        rows = await self._connection.fetch_all(
            category_statements.GET_ANCESTORS, category=category
        )
        return [row["category"] for row in rows]

    async def save_category(self, category: Category) -> None:
        row = {f"new_{name}": value for name, value in vars(category).items()}
        row["new_translations"] = _dump_translations(category)
        del row["new_category_id"], row["new_category"]
        try:
            await self._connection.execute(
                category_statements.SAVE_CATEGORY, category_id=category.category_id, **row
            )
        except asyncpg.UniqueViolationError:
            raise CategoryTaken(category=category.category) from None
        except asyncpg.ForeignKeyViolationError:
            raise CategoryNotFound(category=category.parent) from None

    async def remove_category(self, category: Category) -> None:
        try:
            await self._connection.execute(
                category_statements.REMOVE_CATEGORY, category_id=category.category_id
            )
        except asyncpg.ForeignKeyViolationError:
            raise CategoryInUse(category=category.category) from None


def _dump_translations(category: Category) -> str:
    return _TRANSLATIONS.dump_json(dict(category.translations)).decode()


def _parse_row(row: "Record") -> Mapping[str, Any]:
    return {**row, "translations": _TRANSLATIONS.validate_json(row["translations"])}


def _to_view(row: "Record") -> CategoryView:
    return CategoryView(**_parse_row(row))
