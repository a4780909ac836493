from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.inventory.catalogue.contract.categories import (
    MAX_AMBIGUOUS_PATHS,
    CategoryAmbiguous,
    CategoryChange,
    CategoryNotFound,
    CategoryQuery,
    CategoryTaken,
    CategoryView,
    NewCategory,
)
from markethall.inventory.catalogue.contract.fields import join_path, split_path
from markethall.inventory.catalogue.contract.products import RenderedResponse
from markethall.inventory.catalogue.domain.categories import (
    Category,
    CategoryNode,
    CategoryTree,
    check_parent,
    label_keys,
    path_of_ancestors,
)
from markethall.inventory.catalogue.ports import ProductCache, ReadStore, Store
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version, content_digest
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import Cursors, Page
from markethall.shared.kernel.scopes import CATALOGUE_WRITE
from markethall.shared.persistence.database import Database

# the content of a cursor: position and key of the previous page's last category
_CATEGORY_KEYSET: Final = TypeAdapter(tuple[int, str])


class CategoryService:
    """Implementation of `Categories`."""

    def __init__(
        self, database: Database[ReadStore, Store], cache: ProductCache, cursors: Cursors
    ) -> None:
        self._database = database
        self._cache = cache
        self._cursors = cursors

    async def list_categories(self, ctx: CallContext, query: CategoryQuery) -> Page[CategoryView]:
        name = "categories" if query.parent is None else f"categories:{query.parent}"
        after = self._cursors.decode(name, query.cursor, _CATEGORY_KEYSET)
        async with self._database.read_session() as reads:
            rows = await reads.list_categories(query, after)
            if not rows and query.parent:
                # the text is no key, so it is a path or a name, or there is no such category
                with suppress(CategoryNotFound):
                    parent = await get_category_or_404(reads, query.parent)
                    query = query.model_copy(update={"parent": parent})
                    rows = await reads.list_categories(query, after)
        return self._cursors.build_page(
            name, rows, query.limit, lambda row: (row.position, row.category)
        )

    async def render_categories(self, ctx: CallContext, query: CategoryQuery) -> RenderedResponse:
        async def load() -> RenderedResponse:
            body = (await self.list_categories(ctx, query)).model_dump_json().encode()
            return RenderedResponse(body, f'"{content_digest(body)}"')

        return await self._cache.get_or_load_page(
            f"categories {query.model_dump_json(exclude_defaults=True)}", load, has_counts=True
        )

    async def get_category(self, ctx: CallContext, category_id: UUID) -> CategoryView:
        async with self._database.read_session() as reads:
            return await _get_or_404(reads, category_id)

    async def render_category(self, ctx: CallContext, category_id: UUID) -> RenderedResponse:
        async def load() -> RenderedResponse:
            view = await self.get_category(ctx, category_id)
            body = view.model_dump_json().encode()
            return RenderedResponse(body, f'"v{view.version}-{content_digest(body)}"')

        if ctx.actor.has_scope(CATALOGUE_WRITE):
            return replace(await load(), is_public=False)
        return await self._cache.get_or_load_page(f"category {category_id}", load, has_counts=True)

    async def create(
        self, ctx: CallContext, command: NewCategory, attempt: IdempotentCommand
    ) -> CategoryView:
        async with self._database.transaction() as store:
            # Take this lock first. The key of the category is chosen under it, and a transaction
            # that takes it after the lock of a category row could deadlock.
            await store.lock_category_tree()
            if await store.get_category_view(attempt.id) is None:
                category = Category.new(attempt.id, command, await _place(store, command))
                if not await store.add_category(category):
                    raise CategoryTaken(category=command.category)
            view = await _get_or_404(store, attempt.id)
            await store.store_response(attempt, view)
        self._cache.invalidate([], pages=True)
        return view

    async def change(
        self,
        ctx: CallContext,
        category_id: UUID,
        command: CategoryChange,
        expected_versions: ExpectedVersions,
    ) -> CategoryView:
        async with self._database.transaction() as store:
            # Without this lock, two concurrent moves could make two categories each other's
            # parent. A change that does not move the category takes the lock too. Otherwise the
            # trigger of its UPDATE may take it after the lock of the category row, and transactions
            # that take the two locks in different orders could deadlock.
            await store.lock_category_tree()
            command = await _with_key_of_parent(store, command)
            ancestors = await store.get_ancestors(command.parent) if command.parent else []
            found = await store.get_category_for_update(category_id)
            category = _check_found(found, category_id, expected_versions)
            if category.change(command, ancestors):
                await store.save_category(category)
            view = await _get_or_404(store, category_id)
        # pages are invalidated, because product lists with the filter `category` depend on the tree
        self._cache.invalidate([], pages=True)
        return view

    async def remove(
        self, ctx: CallContext, category_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        async with self._database.transaction() as store:
            # Do not lock the tree before this row, which is locked FOR UPDATE. A transaction that
            # adds a child may lock the row before the tree, and two transactions with opposite
            # orders could deadlock.
            category = await store.get_category_for_deletion(category_id)
            await store.remove_category(_check_found(category, category_id, expected_versions))
        self._cache.invalidate([], pages=True)


async def _get_or_404(reads: ReadStore, category_id: UUID) -> CategoryView:
    """Raises CategoryNotFound."""
    view = await reads.get_category_view(category_id)
    if view is None:
        raise CategoryNotFound(category_id=str(category_id))
    return view


async def _place(store: Store, command: NewCategory) -> CategoryNode:
    """Return the key and the parent of a new category.

    Raises CategoryTaken, CategoryCycle, CategoryNotFound, CategoryAmbiguous, ValidationFailed.
    """
    check_parent(command)
    *above, _ = split_path(command.category)
    parent_text = join_path(above) if above else command.parent
    parent = await get_category_or_404(store, parent_text) if parent_text else None
    nodes = await store.list_category_nodes(label_keys([command.category]))
    return CategoryNode(CategoryTree(nodes).new_key(command.category, parent), parent)


async def _with_key_of_parent(store: Store, command: CategoryChange) -> CategoryChange:
    """Replace a path or name in `command.parent` by the key of the category.

    Raises CategoryNotFound, CategoryAmbiguous.
    """
    if command.parent is None:
        return command
    parent = await get_category_or_404(store, command.parent)
    return command.model_copy(update={"parent": parent})


def _check_found(
    category: Category | None, category_id: UUID, expected_versions: ExpectedVersions
) -> Category:
    """Raises CategoryNotFound, PreconditionFailed."""
    if category is None:
        raise CategoryNotFound(category_id=str(category_id))
    check_expected_version(expected_versions, category.version)
    return category


async def get_or_create_category(store: Store, text: str) -> str:
    """Return the key of the category that the text names; create the category if it is missing.

    Lock the category against deletion until the transaction ends. Raises CategoryAmbiguous.
    """
    names = label_keys([text])
    tree = CategoryTree(await store.list_category_nodes_for_share(names))
    found = tree.get_or_plan(text)
    if tree.planned:
        # look it up again under the lock, because a concurrent transaction may have created it
        await store.lock_category_tree()
        tree = CategoryTree(await store.list_category_nodes_for_share(names))
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


async def _single(reads: ReadStore, text: str, found: Sequence[str]) -> str:
    if len(found) == 1:
        return found[0]
    shown = sorted(found)[:MAX_AMBIGUOUS_PATHS]
    paths = [path_of_ancestors(await reads.get_ancestors(category)) for category in shown]
    raise CategoryAmbiguous(category=text, paths=sorted(paths))
