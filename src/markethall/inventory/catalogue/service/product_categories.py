"""Find the category that a text names. Create the categories of a path that does not exist."""

from collections.abc import Sequence

from markethall.inventory.catalogue.contract.categories import (
    MAX_AMBIGUOUS_PATHS,
    CategoryAmbiguous,
    CategoryNotFound,
)
from markethall.inventory.catalogue.domain.categories import (
    Category,
    CategoryTree,
    label_keys,
    path_of_ancestors,
)
from markethall.inventory.catalogue.ports import ReadStore, Store
from markethall.shared.kernel.ids import new_id


async def get_or_create_category(store: Store, text: str) -> str:
    """Return the key of the category that the text names; create the category if it is missing.

    Lock the category against deletion until the transaction ends. Raises CategoryAmbiguous.
    """
    tree = await _load_tree(store, text)
    found = tree.get_or_plan(text)
    if tree.planned:
        # look it up again under the lock, because a concurrent transaction may have created it
        await store.lock_category_tree()
        tree = await _load_tree(store, text)
        found = tree.get_or_plan(text)
    for node in tree.planned.values():
        await store.add_category(Category.create_implicit(new_id(), node))
    return await _single(store, text, found)


async def get_category_or_404(reads: ReadStore, text: str) -> str:
    """Return the key of the category that the text names.

    Raises CategoryNotFound, CategoryAmbiguous.
    """
    tree = CategoryTree(await reads.list_category_nodes(label_keys([text])))
    found = tree.find(text)
    if not found:
        raise CategoryNotFound(category=text)
    return await _single(reads, text, found)


async def _load_tree(store: Store, text: str) -> CategoryTree:
    return CategoryTree(await store.list_category_nodes_for_share(label_keys([text])))


async def _single(reads: ReadStore, text: str, found: Sequence[str]) -> str:
    if len(found) == 1:
        return found[0]
    shown = sorted(found)[:MAX_AMBIGUOUS_PATHS]
    paths = [path_of_ancestors(await reads.get_ancestors(category)) for category in shown]
    raise CategoryAmbiguous(category=text, paths=sorted(paths))
