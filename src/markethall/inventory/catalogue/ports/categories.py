"""What the category tree needs from the outside."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from markethall.inventory.catalogue.contract.categories import CategoryQuery, CategoryView
from markethall.inventory.catalogue.domain.categories import Category


class CategoryReads(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def list_categories(
        self, query: CategoryQuery, after: tuple[int, str] | None
    ) -> Sequence[CategoryView]:
        """One more than the page holds, by position and key, later than `after`."""

    async def get_category_view(self, category_id: UUID) -> CategoryView | None: ...


class CategoryStore(CategoryReads, Protocol):
    """Reads and writes of one transaction."""

    async def add_category(self, category: Category) -> bool:
        """False when its id or key is taken. Raises CategoryNotFound (for the parent)."""

    async def lock_category_tree(self) -> None:
        """Nobody else moves a category until the end of the transaction."""

    async def get_category_for_update(self, category_id: UUID) -> Category | None:
        """Locked until the end of the transaction."""

    async def get_ancestors(self, category: str) -> Sequence[str]:
        """The category and all that it is below; nothing when there is no such category."""

    async def save_category(self, category: Category) -> None:
        """Raises CategoryNotFound (for the parent)."""

    async def remove_category(self, category: Category) -> None:
        """Raises CategoryInUse."""
