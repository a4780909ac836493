"""The category tree in SQL: what the rest of the context sees of the statements."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from markethall.inventory.contract import (
    Category,
    CategoryInUse,
    CategoryNames,
    CategoryNotFound,
    CategoryQuery,
)
from markethall.inventory.domain import Branch
from markethall.inventory.sql import categories
from markethall.shared import sql as shared

if TYPE_CHECKING:
    from asyncpg.protocol import Record

_NAMES: Final = TypeAdapter(dict[str, CategoryNames])


class SqlCategories(shared.SqlStore):
    """One transaction, or reads without one: the categories."""

    async def categories(
        self, query: CategoryQuery, after: tuple[int, str] | None
    ) -> Sequence[Category]:
        where: dict[str, Any] = {}
        if query.parent:
            where["parent"] = query.parent
        if after is not None:
            where["position"], where["category"] = after
        which = "any" if query.parent is None else "child" if query.parent else "root"
        statement = categories.PAGES[which, after is not None]
        rows = await self._session.all(statement, limit=query.limit + 1, **where)
        return [_seen(row) for row in rows]

    async def category(self, category_id: UUID) -> Category | None:
        row = await self._session.one(categories.ONE, of=category_id)
        return _seen(row) if row else None

    async def add_category(self, branch: Branch) -> bool:
        row = {**vars(branch), "translations": _names(branch)}
        try:
            return bool(await self._session.run(categories.ADD, **row))
        except asyncpg.ForeignKeyViolationError:
            raise CategoryNotFound(category=branch.parent) from None

    async def hold_tree(self) -> None:
        await self._session.value(categories.HOLD)

    async def branch(self, category_id: UUID) -> Branch | None:
        row = await self._session.one(categories.BRANCH, of=category_id)
        return Branch(**_kept(row)) if row else None

    async def above(self, category: str) -> Sequence[str]:
        rows = await self._session.all(categories.ABOVE, category=category)
        return [row["category"] for row in rows]

    async def save_branch(self, branch: Branch) -> None:
        row = {f"new_{name}": value for name, value in vars(branch).items()}
        row["new_translations"] = _names(branch)
        del row["new_category_id"], row["new_category"]
        try:
            await self._session.run(categories.SAVE, of=branch.category_id, **row)
        except asyncpg.ForeignKeyViolationError:
            raise CategoryNotFound(category=branch.parent) from None

    async def remove_branch(self, branch: Branch) -> None:
        try:
            await self._session.run(categories.REMOVE, of=branch.category_id)
        except asyncpg.ForeignKeyViolationError:
            raise CategoryInUse(category=branch.category) from None


def _names(branch: Branch) -> str:
    return _NAMES.dump_json(dict(branch.translations)).decode()


def _kept(row: "Record") -> Mapping[str, Any]:
    return {**row, "translations": _NAMES.validate_json(row["translations"])}


def _seen(row: "Record") -> Category:
    return Category(**_kept(row))
