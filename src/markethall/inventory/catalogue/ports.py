from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.inventory.catalogue.contract.categories import CategoryQuery, CategoryView
from markethall.inventory.catalogue.contract.products import RenderedResponse
from markethall.inventory.catalogue.domain.categories import Category, CategoryNode
from markethall.inventory.catalogue.domain.families import (
    Family,
    FamilyLookup,
    FamilyName,
    FamilyRecord,
)
from markethall.inventory.catalogue.domain.products import Product
from markethall.shared.idempotency.records import ResponseStore


@dataclass(frozen=True)
class ProductJson:
    """A product as JSON in the format of ProductView.

    The store builds the JSON, so that a read can send it to the client without parsing it.
    """

    version: int
    is_active: bool
    json: str


@dataclass(frozen=True)
class FamilyPageJson:
    """A family, and the JSON of its active products, joined by commas."""

    record: FamilyRecord
    products: str


class ReadStore(Protocol):
    """Reads without locks. In Postgres, each method executes one statement."""

    async def get_product_json(self, product_id: UUID, now: datetime) -> ProductJson | None: ...

    async def get_product_json_by_sku(self, sku: str, now: datetime) -> ProductJson | None:
        """Return the product with this SKU, ignoring letter case."""

    async def get_family_page(self, name: FamilyLookup, now: datetime) -> FamilyPageJson | None:
        """Return the family that the text identifies, archived or not, with its products.

        If the text identifies an active product, return its family, or without one the product as a
        family of its own. The JSON contains at most MAX_FAMILY_PRODUCTS products, the oldest first.
        """

    async def list_family_names(self, keys: Collection[str]) -> Sequence[FamilyName]:
        """Return the families whose `label_key`, slug or former slug is one of these.

        A family may occur several times.
        """

    async def list_taken_slugs(self, slugs: Collection[str]) -> Sequence[str]:
        """Return the slugs among these that a family has or had."""

    async def count_products(self) -> int:
        """Return the number of active products."""

    async def list_categories(
        self, query: CategoryQuery, after: tuple[int, str] | None
    ) -> Sequence[CategoryView]:
        """Return categories, sorted by position and key.

        `after` is the position and the key of the previous page's last category. Return at most
        `query.limit` + 1 categories: the extra one tells that there is a next page. `query.parent`
        must be a key, not a path or a name.
        """

    async def list_category_nodes(self, label_keys: Collection[str]) -> Sequence[CategoryNode]:
        """Return the categories whose `label_key` is one of these."""

    async def get_category_view(self, category_id: UUID) -> CategoryView | None: ...

    async def get_ancestors(self, category: str) -> Sequence[str]:
        """Return the keys of the category, its parent and so on, up to the root.

        Return an empty sequence if the category does not exist.
        """


class Store(ReadStore, ResponseStore, Protocol):
    """Reads and writes of one transaction."""

    async def add_product(self, product: Product) -> bool:
        """Insert the product. Return False when a product has this id or SKU."""

    async def ensure_main_stock_row(self, product_id: UUID) -> None:
        """Insert the product's stock row in the main warehouse, if it is missing."""

    async def get_product_for_update(self, product_id: UUID) -> Product | None:
        """Return the product and lock its row."""

    async def save_product(self, product: Product) -> None:
        """Update the product. Raises SkuTaken."""

    async def add_category(self, category: Category) -> bool:
        """Insert the category.

        Return False when another category has this id or key, or another child of the parent has
        this name. Raises CategoryNotFound when the parent does not exist.
        """

    async def lock_category_tree(self) -> None:
        """Lock the tree until the transaction ends.

        Meanwhile no other transaction can add or move a category.
        """

    async def list_category_nodes_for_share(
        self, label_keys: Collection[str]
    ) -> Sequence[CategoryNode]:
        """Return the categories whose `label_key` is one of these.

        Lock them against deletion until the transaction ends.
        """

    async def get_category_for_update(self, category_id: UUID) -> Category | None:
        """Return the category and lock its row against changes."""

    async def get_category_for_deletion(self, category_id: UUID) -> Category | None:
        """Return the category and lock its row against changes and new products or children."""

    async def save_category(self, category: Category) -> None:
        """Update the category.

        Raises CategoryNotFound (the parent does not exist), CategoryTaken (another child of the
        parent has this name).
        """

    async def remove_category(self, category: Category) -> None:
        """Delete the category. Raises CategoryInUse."""

    async def lock_family_names(self) -> None:
        """Lock the labels and slugs of all families until the transaction ends.

        Meanwhile no other transaction can create a family or change a slug. Take this lock after
        the lock of the category tree, and before the locks of rows of families and products.
        """

    async def add_family(self, family: Family) -> bool:
        """Insert the family and its slug. Return False when a family has this id or label.

        The caller must have locked the names of families and checked that the slug is not taken.
        Raises CategoryNotFound.
        """

    async def get_family_for_update(self, name: FamilyLookup) -> Family | None:
        """Return the family with this id, slug, former slug or label. Lock its row."""

    async def list_products_of_family_for_update(self, label: str) -> Sequence[Product]:
        """Return the products of the family that are not archived. Lock their rows in id order."""

    async def write_products(
        self, new_products: Sequence[Product], changed_products: Sequence[Product]
    ) -> bool:
        """Insert and update products, in bulk. Return False if the SKU of one is taken.

        After False, the caller must roll back the transaction.
        """

    async def save_family(self, family: Family) -> None:
        """Update the family. Raises CategoryNotFound."""

    async def add_slug(self, slug: str, family_id: UUID) -> None:
        """Record the new slug of the family. Do nothing if the family had this slug before."""

    async def add_families(self, families: Sequence[Family]) -> None:
        """Insert families and their slugs. The caller has locked the names of families."""


class ProductIndex(Protocol):
    """An external search engine. It receives every change of a product after the commit."""

    async def index(self, products: Sequence[Product]) -> None:
        """Index new and changed products.

        It must not raise, because the change is already committed. It must be fast, because the
        request waits for it.
        """


class ProductCache(Protocol):
    """A cache of JSON responses for callers without the scope catalogue:write."""

    async def get_or_load_product(
        self, product_id: UUID, load: Callable[[], Awaitable[RenderedResponse | None]]
    ) -> RenderedResponse | None:
        """Return the cached product, or load it.

        `load` returns None if the product does not exist. This result is not cached.
        """

    async def get_or_load_page(
        self, key: str, load: Callable[[], Awaitable[RenderedResponse]], *, has_counts: bool = False
    ) -> RenderedResponse:
        """Return the cached page, or load it.

        If `has_counts` is true, cache the page for a longer time, because counting is slow.
        """

    def invalidate(self, product_ids: Sequence[UUID], *, pages: bool) -> None:
        """Invalidate these products. If `pages` is true, also invalidate all pages.

        Call it after the commit.
        """


class ByteCache(Protocol):
    """A cache of bytes with invalidation. `ttl` is in seconds. `CoherentCache` implements it."""

    async def get_or_load(
        self, namespace: str, key: str, ttl: float, load: Callable[[], Awaitable[bytes | None]]
    ) -> bytes | None: ...

    def invalidate(self, namespace: str, keys: Sequence[str]) -> None: ...

    def invalidate_namespace(self, namespace: str) -> None: ...

    def is_current(self, namespace: str, key: str, value: bytes) -> bool:
        """Tell whether `value`, an earlier result of `get_or_load`, is still the cached value."""
