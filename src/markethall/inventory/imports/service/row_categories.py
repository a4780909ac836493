"""Find the categories that the rows of a batch name, and create the new ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from markethall.inventory.catalogue.contract.categories import CategoryAmbiguous
from markethall.inventory.catalogue.domain.categories import (
    Category,
    CategoryTree,
    label_keys,
    path_of_ancestors,
)
from markethall.inventory.imports.domain.file_records import RowError
from markethall.inventory.imports.domain.row_validation import FamilyRow, RowResult, ValidatedRow
from markethall.inventory.imports.ports import Store
from markethall.shared.kernel.ids import new_id

_MAX_PATHS_IN_MESSAGE: Final = 5


@dataclass(frozen=True)
class RowCategories:
    """The categories that the rows name.

    `keys` maps the text in a row to the key of its category. `ambiguous` maps a text that names
    several categories to the paths of at most five of them.
    """

    tree: CategoryTree
    keys: Mapping[str, str]
    ambiguous: Mapping[str, Sequence[str]]

    @classmethod
    async def load(cls, store: Store, rows: Iterable[RowResult], *, is_dry_run: bool) -> Self:
        """Find the categories and lock them against deletion.

        If some are new, also lock the tree, except in a dry run.
        """
        # in the order of the file, because the first spelling becomes the name of a new category
        texts = list(dict.fromkeys(text for row in rows if (text := _category_of(row)) is not None))
        tree, found = await _load_tree(store, texts)
        if tree.planned and not is_dry_run:
            # load again: another transaction may have created them before the tree was locked
            await store.lock_category_tree()
            tree, found = await _load_tree(store, texts)
        keys = {text: keys[0] for text, keys in found.items() if len(keys) == 1}
        ambiguous = {
            text: [await _path_of(store, key) for key in sorted(keys)[:_MAX_PATHS_IN_MESSAGE]]
            for text, keys in found.items()
            if len(keys) > 1
        }
        return cls(tree, keys, ambiguous)

    def resolve(self, row: RowResult) -> RowResult:
        """Replace the category of the row by its key. Return an error if it is ambiguous."""
        text = _category_of(row)
        if text is None or isinstance(row, tuple):
            return row
        if paths := self.ambiguous.get(text):
            choices = " or ".join(sorted(paths))
            message = f"{text[:80]!r} may be {choices}: give the path"
            return (RowError(*row.locate(("category",)), CategoryAmbiguous.code, message[:300]),)
        key = self.keys[text]
        if isinstance(row, FamilyRow):
            return replace(row, values={**row.values, "category": key})
        # most rows have the key already, and copying the product takes as long as reading a row
        return row if key == text else replace(row, product=replace(row.product, category=key))

    async def create(self, store: Store, keys: Iterable[str | None]) -> None:
        """Create the new categories among these, and their parents."""
        for node in self.tree.planned_with_parents(keys):
            await store.add_category(Category.create_implicit(new_id(), node))


async def _load_tree(
    store: Store, texts: Sequence[str]
) -> tuple[CategoryTree, Mapping[str, Sequence[str]]]:
    nodes = await store.list_category_nodes_for_share(label_keys(texts)) if texts else ()
    tree = CategoryTree(nodes)
    return tree, {text: tree.get_or_plan(text) for text in texts}


async def _path_of(store: Store, category: str) -> str:
    # a category in `tree.planned` has no ancestors in the store, because it is not stored yet; its
    # key is its path
    return path_of_ancestors(await store.get_ancestors(category)) or category


def _category_of(row: RowResult) -> str | None:
    if isinstance(row, FamilyRow):
        return row.category
    return row.product.category if isinstance(row, ValidatedRow) else None
