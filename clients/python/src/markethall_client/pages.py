"""Pages of a list."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

ItemT_co = TypeVar("ItemT_co", covariant=True)


class Page(Protocol[ItemT_co]):
    """A page of a list, as the generated operations return it."""

    @property
    def items(self) -> Sequence[ItemT_co]:
        """Items of this page."""
        ...

    @property
    def next_cursor(self) -> str | None:
        """Cursor of the next page; None on the last page."""
        ...
