"""The category tree in memory."""

from collections.abc import Container, Sequence
from uuid import UUID

from markethall.inventory.catalogue.contract.categories import (
    CategoryInUse,
    CategoryNotFound,
    CategoryQuery,
    CategoryView,
)
from markethall.inventory.catalogue.domain.categories import Category
from markethall.inventory.reservations.memory import MemoryStock, is_active
from markethall.shared.kernel.ids import new_id


class MemoryCategoryStore(MemoryStock):
    """One transaction, or reads without one: the categories."""

    async def list_categories(
        self, query: CategoryQuery, after: tuple[int, str] | None
    ) -> Sequence[CategoryView]:
        def wanted(node: Category) -> bool:
            is_in_parent = query.parent is None or (node.parent or "") == query.parent
            return is_in_parent and (after is None or _sort_key(node) > after)

        nodes = sorted(self._tables.categories.where(wanted), key=_sort_key)
        return [self._to_view(node) for node in nodes[: query.limit + 1]]

    async def get_category_view(self, category_id: UUID) -> CategoryView | None:
        node = await self.get_category_for_update(category_id)
        return self._to_view(node) if node else None

    async def add_category(self, node: Category) -> bool:
        if await self.get_category_for_update(node.category_id) is not None:
            return False
        if node.category in self._tables.categories:
            return False
        await self.save_category(node)
        return True

    async def lock_category_tree(self) -> None:
        """Nobody else is here."""

    async def get_category_for_update(self, category_id: UUID) -> Category | None:
        found = self._tables.categories.where(lambda node: node.category_id == category_id)
        return found[0] if found else None

    async def get_ancestors(self, category: str) -> Sequence[str]:
        keys: list[str] = []
        node = self._tables.categories.get(category)
        while node is not None:
            keys.append(node.category)
            node = self._tables.categories.get(node.parent) if node.parent else None
        return keys

    async def save_category(self, node: Category) -> None:
        if node.parent is not None and node.parent not in self._tables.categories:
            raise CategoryNotFound(category=node.parent)
        self._tables.categories.put(node.category, node)

    async def remove_category(self, node: Category) -> None:
        in_it = self._tables.products.where(lambda product: product.category == node.category)
        if in_it or self._children({node.category}):
            raise CategoryInUse(category=node.category)
        self._tables.categories.remove(node.category)

    def _ensure_category(self, category: str | None) -> None:
        """A product names it: then it is there."""
        if category is not None and category not in self._tables.categories:
            self._tables.categories.put(category, Category.create_implicit(new_id(), category))

    def _subtree(self, category: str) -> set[str]:
        """The category and all that is below it; nothing when there is no such category."""
        subtree: set[str] = set()
        level = {category} if category in self._tables.categories else set()
        while level:
            subtree |= level
            level = self._children(level)
        return subtree

    def _children(self, categories: Container[object]) -> set[str]:
        found = self._tables.categories.where(lambda node: node.parent in categories)
        return {node.category for node in found}

    def _to_view(self, node: Category) -> CategoryView:
        subtree = self._subtree(node.category)
        products = self._tables.products.where(
            lambda product: product.category in subtree and is_active(product)
        )
        return node.to_view(len(products))


def _sort_key(node: Category) -> tuple[int, str]:
    return node.position, node.category
