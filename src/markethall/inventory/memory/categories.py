"""The category tree in memory."""

from collections.abc import Container, Sequence
from uuid import UUID

from markethall.inventory.contract import (
    Category,
    CategoryInUse,
    CategoryNotFound,
    CategoryQuery,
)
from markethall.inventory.domain import Branch
from markethall.inventory.memory.stock import MemoryStock, is_active
from markethall.shared.ids import new_id


class MemoryCategories(MemoryStock):
    """One transaction, or reads without one: the categories."""

    async def categories(
        self, query: CategoryQuery, after: tuple[int, str] | None
    ) -> Sequence[Category]:
        def wanted(branch: Branch) -> bool:
            here = query.parent is None or (branch.parent or "") == query.parent
            return here and (after is None or _place(branch) > after)

        branches = sorted(self._tables.categories.where(wanted), key=_place)
        return [self._seen(branch) for branch in branches[: query.limit + 1]]

    async def category(self, category_id: UUID) -> Category | None:
        branch = await self.branch(category_id)
        return self._seen(branch) if branch else None

    async def add_category(self, branch: Branch) -> bool:
        if await self.branch(branch.category_id) is not None:
            return False
        if branch.category in self._tables.categories:
            return False
        await self.save_branch(branch)
        return True

    async def hold_tree(self) -> None:
        """Nobody else is here."""

    async def branch(self, category_id: UUID) -> Branch | None:
        found = self._tables.categories.where(lambda branch: branch.category_id == category_id)
        return found[0] if found else None

    async def above(self, category: str) -> Sequence[str]:
        keys: list[str] = []
        branch = self._tables.categories.get(category)
        while branch is not None:
            keys.append(branch.category)
            branch = self._tables.categories.get(branch.parent) if branch.parent else None
        return keys

    async def save_branch(self, branch: Branch) -> None:
        if branch.parent is not None and branch.parent not in self._tables.categories:
            raise CategoryNotFound(category=branch.parent)
        self._tables.categories.put(branch.category, branch)

    async def remove_branch(self, branch: Branch) -> None:
        in_it = self._tables.items.where(lambda item: item.category == branch.category)
        if in_it or self._children({branch.category}):
            raise CategoryInUse(category=branch.category)
        self._tables.categories.remove(branch.category)

    def _name(self, category: str | None) -> None:
        """A product names it: then it is there."""
        if category is not None and category not in self._tables.categories:
            self._tables.categories.put(category, Branch.named(new_id(), category))

    def _below(self, category: str) -> set[str]:
        """The category and all that is below it; nothing when there is no such category."""
        below: set[str] = set()
        level = {category} if category in self._tables.categories else set()
        while level:
            below |= level
            level = self._children(level)
        return below

    def _children(self, categories: Container[object]) -> set[str]:
        found = self._tables.categories.where(lambda branch: branch.parent in categories)
        return {branch.category for branch in found}

    def _seen(self, branch: Branch) -> Category:
        below = self._below(branch.category)
        items = self._tables.items.where(lambda item: item.category in below and is_active(item))
        return branch.seen_with(len(items))


def _place(branch: Branch) -> tuple[int, str]:
    return branch.position, branch.category
