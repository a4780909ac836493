from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.inventory.catalogue.contract.families import (
    FamilyChange,
    FamilyDetail,
    FamilyMoved,
    FamilyNotFound,
    FamilyTaken,
    NewFamily,
    SlugTaken,
)
from markethall.inventory.catalogue.contract.products import ProductView, RenderedResponse
from markethall.inventory.catalogue.domain.families import (
    Family,
    FamilyLookup,
    FamilyNames,
    candidates_of,
    create_implicit_families,
    free_slug,
)
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.catalogue.domain.text_keys import label_key, product_id_of_slug
from markethall.inventory.catalogue.ports import (
    FamilyPageJson,
    ProductCache,
    ProductIndex,
    ReadStore,
    Store,
)
from markethall.inventory.catalogue.service.categories import get_or_create_category
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version, content_digest
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.scopes import CATALOGUE_WRITE
from markethall.shared.persistence.database import Database

_PRODUCT_VIEWS: Final = TypeAdapter(tuple[ProductView, ...])


class _Moved(Exception):
    """The text of the request is not the current slug of the family. The result is not cached."""

    def __init__(self, slug: str) -> None:
        super().__init__(slug)
        self.slug = slug


class FamilyService:
    """Implementation of `Families`."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        cache: ProductCache,
        index: ProductIndex,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._index = index
        self._clock = clock

    async def get_family(self, ctx: CallContext, slug: str) -> FamilyDetail:
        return _to_detail(await self._get_visible_or_404(ctx, slug))

    async def render_family(self, ctx: CallContext, slug: str) -> RenderedResponse | FamilyMoved:
        async def load() -> RenderedResponse:
            page = await self._get_visible_or_404(ctx, slug)
            current = page.record.to_view().slug
            if current != slug:
                raise _Moved(current)
            return _render(page)

        try:
            if ctx.actor.has_scope(CATALOGUE_WRITE):
                return replace(await load(), is_public=False)
            return await self._cache.get_or_load_page(f"family {slug}", load)
        except _Moved as moved:
            return FamilyMoved(moved.slug)

    async def create(
        self, ctx: CallContext, command: NewFamily, attempt: IdempotentCommand
    ) -> FamilyDetail:
        now = self._clock()
        lookup = FamilyLookup.by_id(attempt.id)
        async with self._database.transaction() as store:
            # the locks are taken in this order by all transactions, to avoid deadlocks
            if command.category is not None:
                category = await get_or_create_category(store, command.category)
                command = command.model_copy(update={"category": category})
            await store.lock_family_names()
            if await store.get_family_for_update(lookup) is None:
                slug = await _slug_of_new_family(store, command, attempt.id)
                family = Family.new(attempt.id, command, slug, now)
                if not await store.add_family(family):
                    raise FamilyTaken(label=family.label)
            view = await _get_detail(store, lookup, now)
            await store.store_response(attempt, view)
        self._cache.invalidate([], pages=True)
        return view

    async def change(
        self,
        ctx: CallContext,
        slug: str,
        command: FamilyChange,
        expected_versions: ExpectedVersions,
    ) -> FamilyDetail:
        now, lookup = self._clock(), FamilyLookup.parse(slug)
        async with self._database.transaction() as store:
            if command.category is not None:
                category = await get_or_create_category(store, command.category)
                command = command.model_copy(update={"category": category})
            if command.slug is not None:
                await store.lock_family_names()
            family = await _get_for_update_or_404(store, lookup, expected_versions)
            if command.slug not in {None, family.slug}:
                await _take_slug(store, command.slug, family)
            if family.change(command, now):
                await store.save_family(family)
            view = await _get_detail(store, FamilyLookup.by_id(family.family_id), now)
        self._cache.invalidate([], pages=True)
        return view

    async def archive(
        self, ctx: CallContext, slug: str, expected_versions: ExpectedVersions
    ) -> None:
        lookup = FamilyLookup.parse(slug)
        async with self._database.transaction() as store:
            family = await _get_for_update_or_404(store, lookup, expected_versions)
            products = await _archive(store, family, self._clock())
        if products:
            await self._index.index(products)
        self._cache.invalidate([product.product_id for product in products], pages=True)

    async def _get_visible_or_404(self, ctx: CallContext, slug: str) -> FamilyPageJson:
        """Raises FamilyNotFound."""
        async with self._database.read_session() as reads:
            page = await reads.get_family_page(FamilyLookup.parse(slug), self._clock())
        if page is None or not (page.record.is_public or ctx.actor.has_scope(CATALOGUE_WRITE)):
            raise FamilyNotFound(family=slug)
        return page


async def _slug_of_new_family(store: Store, command: NewFamily, family_id: UUID) -> str:
    """Return the slug of the command, or one made of the label. Raises SlugTaken."""
    if command.slug is None:
        label = command.label or command.name
        return free_slug(label, family_id, await store.list_taken_slugs(candidates_of([label])))
    if product_id_of_slug(command.slug) or await store.list_taken_slugs([command.slug]):
        raise SlugTaken(slug=command.slug)
    return command.slug


async def _take_slug(store: Store, slug: str, family: Family) -> None:
    """Assign the slug to the family. Raises SlugTaken if another family has or had the slug."""
    holder = await store.list_family_names([slug])
    is_held = any(name.slug == slug and name.label != family.label for name in holder)
    if product_id_of_slug(slug) or is_held:
        raise SlugTaken(slug=slug)
    await store.add_slug(slug, family.family_id)


async def _archive(store: Store, family: Family, now: datetime) -> Sequence[Product]:
    """Archive the family and its products. Return the products that were not archived before."""
    if family.archive(now):
        await store.save_family(family)
    products = await store.list_products_of_family_for_update(family.label)
    for product in products:
        product.archive(now)
    if products:
        await store.write_products((), products)
    return products


async def _get_for_update_or_404(
    store: Store, lookup: FamilyLookup, expected_versions: ExpectedVersions
) -> Family:
    """Raises FamilyNotFound, PreconditionFailed."""
    family = await store.get_family_for_update(lookup)
    if family is None:
        raise FamilyNotFound(family=lookup.text)
    check_expected_version(expected_versions, family.version)
    return family


async def _get_detail(store: Store, lookup: FamilyLookup, now: datetime) -> FamilyDetail:
    """Raises FamilyNotFound."""
    page = await store.get_family_page(lookup, now)
    if page is None:
        raise FamilyNotFound(family=lookup.text)
    return _to_detail(page)


def _to_detail(page: FamilyPageJson) -> FamilyDetail:
    products = _PRODUCT_VIEWS.validate_json(f"[{page.products}]")
    return FamilyDetail(**vars(page.record.to_view()), products=products)


def _render(page: FamilyPageJson) -> RenderedResponse:
    view = page.record.to_view()
    body = f'{view.model_dump_json()[:-1]},"products":[{page.products}]}}'.encode()
    return RenderedResponse(body, f'"v{view.version}-{content_digest(body)}"')


async def get_or_create_family(store: Store, text: str, now: datetime) -> str:
    """Return the label of the family that the text names; create the family if it is missing.

    Call this after the lock of the category tree and before the lock of a product, as all
    transactions do, to avoid deadlocks.
    """
    names = FamilyNames(await store.list_family_names([label_key(text)]))
    if (found := names.find(text)) is not None:
        return found
    # look the text up again under the lock, because a concurrent transaction may have created the
    # family
    await store.lock_family_names()
    names = FamilyNames(await store.list_family_names([label_key(text)]))
    label = names.get_or_plan(text)
    if names.planned:
        taken = await store.list_taken_slugs(candidates_of([label]))
        await store.add_families(create_implicit_families([label], taken, now, new_id))
    return label
