"""The category tree: to look at, and for staff to change."""

from dataclasses import replace
from uuid import UUID

from markethall.inventory.contract import (
    Category,
    CategoryChange,
    CategoryNotFound,
    CategoryQuery,
    CategoryTaken,
    NewCategory,
    Rendered,
)
from markethall.inventory.domain import Branch
from markethall.inventory.ports import Database, ProductCache, Shelf, Store
from markethall.shared.auth import CATALOGUE_WRITE
from markethall.shared.call import Call
from markethall.shared.idempotency import Attempt
from markethall.shared.pages import Cursors, Page
from markethall.shared.versions import Seen, check_seen, digest


class CategoryService:
    """A contract.Categories."""

    def __init__(self, database: Database, cache: ProductCache, cursors: Cursors) -> None:
        self._database = database
        self._cache = cache
        self._cursors = cursors

    async def categories(self, call: Call, query: CategoryQuery) -> Page[Category]:  # noqa: ARG002 - the contract
        name = "categories" if query.parent is None else f"categories:{query.parent}"
        after = self._cursors.decode(name, query.cursor)
        async with self._database.reading() as shelf:
            rows = await shelf.categories(query, (after[0], after[1]) if after else None)
        return self._cursors.page(name, rows, query.limit, lambda row: [row.position, row.category])

    async def categories_body(self, call: Call, query: CategoryQuery) -> Rendered:
        async def load() -> Rendered:
            body = (await self.categories(call, query)).model_dump_json().encode()
            return Rendered(body, f'"{digest(body)}"')

        return await self._cache.page(
            f"categories {query.model_dump_json(exclude_defaults=True)}", load, counted=True
        )

    async def category(self, call: Call, category_id: UUID) -> Category:  # noqa: ARG002 - the contract
        async with self._database.reading() as shelf:
            return await _found(shelf, category_id)

    async def category_body(self, call: Call, category_id: UUID) -> Rendered:
        async def load() -> Rendered:
            category = await self.category(call, category_id)
            body = category.model_dump_json().encode()
            return Rendered(body, f'"v{category.version}-{digest(body)}"')

        if call.actor.may(CATALOGUE_WRITE):
            return replace(await load(), public=False)
        return await self._cache.page(f"category {category_id}", load, counted=True)

    async def create(self, call: Call, command: NewCategory, attempt: Attempt) -> Category:  # noqa: ARG002 - the contract
        branch = Branch.new(attempt.id, command)
        async with self._database.transaction() as store:
            if not await store.add_category(branch) and await store.category(attempt.id) is None:
                raise CategoryTaken(category=command.category)
            category = await _found(store, attempt.id)
            await store.finish(attempt, category)
        self._cache.invalidate([], pages=True)
        return category

    async def change(
        self,
        call: Call,  # noqa: ARG002 - the contract
        category_id: UUID,
        command: CategoryChange,
        seen: Seen,
    ) -> Category:
        async with self._database.transaction() as store:
            # before any row: two that move each other's parents wait here, and the second sees the
            # first; and whoever only renames meets the same lock, behind a row that both want
            await store.hold_tree()
            above = await _above(store, command)
            branch = await _locked(store, category_id, seen)
            if branch.change(command, above):
                await store.save_branch(branch)
            category = await _found(store, category_id)
        # what a category has below it decides what is found in it
        self._cache.invalidate([], pages=True)
        return category

    async def remove(self, call: Call, category_id: UUID, seen: Seen) -> None:  # noqa: ARG002 - the contract
        async with self._database.transaction() as store:
            await store.remove_branch(await _locked(store, category_id, seen))
        self._cache.invalidate([], pages=True)


async def _found(shelf: Shelf, category_id: UUID) -> Category:
    """Raises CategoryNotFound."""
    category = await shelf.category(category_id)
    if category is None:
        raise CategoryNotFound(category_id=str(category_id))
    return category


async def _above(store: Store, command: CategoryChange) -> list[str]:
    """The new parent, and all that it is below; that stays so. Raises CategoryNotFound."""
    if command.parent is None:
        return []
    above = list(await store.above(command.parent))
    if not above:
        raise CategoryNotFound(category=command.parent)
    return above


async def _locked(store: Store, category_id: UUID, seen: Seen) -> Branch:
    """Raises CategoryNotFound, PreconditionFailed."""
    branch = await store.branch(category_id)
    if branch is None:
        raise CategoryNotFound(category_id=str(category_id))
    check_seen(seen, branch.version)
    return branch
