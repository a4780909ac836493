"""What the category tree needs from the outside."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from markethall.inventory.contract import Category, CategoryQuery
from markethall.inventory.domain import Branch


class Tree(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def categories(
        self, query: CategoryQuery, after: tuple[int, str] | None
    ) -> Sequence[Category]:
        """One more than the page holds, by position and key, later than `after`."""

    async def category(self, category_id: UUID) -> Category | None: ...


class TreeStore(Tree, Protocol):
    """Reads and writes of one transaction."""

    async def add_category(self, branch: Branch) -> bool:
        """False when its id or key is taken. Raises CategoryNotFound (for the parent)."""

    async def hold_tree(self) -> None:
        """Nobody else moves a category until the end of the transaction."""

    async def branch(self, category_id: UUID) -> Branch | None:
        """Locked until the end of the transaction."""

    async def above(self, category: str) -> Sequence[str]:
        """The category and all that it is below; nothing when there is no such category."""

    async def save_branch(self, branch: Branch) -> None:
        """Raises CategoryNotFound (for the parent)."""

    async def remove_branch(self, branch: Branch) -> None:
        """Raises CategoryInUse."""
