"""Ports of the catalogue: storage, cache, and the sub-domains that it calls back."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from markethall.inventory.catalogue.contract.categories import CategoryQuery, CategoryView
from markethall.inventory.catalogue.contract.products import (
    PriceRange,
    ProductView,
    RenderedResponse,
)
from markethall.inventory.catalogue.domain.categories import Category
from markethall.inventory.catalogue.domain.products import Product
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.pagination import Page, PageQuery


@dataclass(frozen=True)
class ProductJson:
    """A product as JSON in the format of ProductView.

    The store builds the JSON, so that a read sends it to the client without parsing it.
    """

    version: int
    is_active: bool
    json: str


@dataclass(frozen=True)
class FamilySummary:
    """Number, option values and prices of the active products of a family."""

    product_count: int
    options: Mapping[str, tuple[str, ...]]
    prices: tuple[PriceRange, ...]


class ReadStore(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def get_product_json(self, product_id: UUID, now: datetime) -> ProductJson | None: ...

    async def get_product_json_by_sku(self, sku: str, now: datetime) -> ProductJson | None:
        """Return the product with this SKU, ignoring case."""

    async def get_family_summary(self, family: str, now: datetime) -> FamilySummary | None:
        """Summarize the active products of the family; None when it has none."""

    async def count_products(self) -> int:
        """Count the active products."""

    async def list_categories(
        self, query: CategoryQuery, after: tuple[int, str] | None
    ) -> Sequence[CategoryView]:
        """Return one category more than the page holds, by position and key, later than `after`."""

    async def get_category_view(self, category_id: UUID) -> CategoryView | None: ...


class Store(ReadStore, Protocol):
    """Reads and writes of one transaction."""

    async def add_product(self, product: Product) -> bool:
        """Insert the product, and its category if that is new. False when its id or
        SKU is taken.
        """

    async def ensure_main_stock_row(self, product_id: UUID) -> None:
        """Give the product a stock row in the main warehouse. Every product has one."""

    async def get_product_for_update(self, product_id: UUID) -> Product | None:
        """Lock the product until the end of the transaction."""

    async def save_product(self, product: Product) -> None:
        """Update the product, and insert its category if that is new. Raises SkuTaken."""

    async def add_category(self, category: Category) -> bool:
        """Insert the category. False when its id or key is taken.

        Raises CategoryNotFound (for the parent).
        """

    async def lock_category_tree(self) -> None:
        """Let no other transaction move a category until the end of this one."""

    async def get_category_for_update(self, category_id: UUID) -> Category | None:
        """Lock the category until the end of the transaction."""

    async def get_ancestors(self, category: str) -> Sequence[str]:
        """Return the category and all above it; nothing when it does not exist."""

    async def save_category(self, category: Category) -> None:
        """Update the category. Raises CategoryNotFound (for the parent)."""

    async def remove_category(self, category: Category) -> None:
        """Delete the category. Raises CategoryInUse."""

    async def store_response(self, attempt: IdempotentCommand, result: Any) -> None:
        """Keep the response under the command's key. Raises LeaseLost."""


class FamilyMembers(Protocol):
    """Lists the products of a family."""

    async def list_family_members(
        self, ctx: CallContext, family: str, query: PageQuery
    ) -> Page[ProductView]:
        """Return the active products by name. Raises CursorInvalid."""


class ProductIndex(Protocol):
    """External search engine that receives every change after the commit."""

    async def index(self, products: Sequence[Product]) -> None:
        """Index new and changed products. It must be fast and must not raise."""


class ProductCache(Protocol):
    """Rendered responses for the public."""

    async def get_or_load_product(
        self, product_id: UUID, load: Callable[[], Awaitable[RenderedResponse | None]]
    ) -> RenderedResponse | None:
        """Return the cached product or load it. A missing product is not cached."""

    async def get_or_load_page(
        self, key: str, load: Callable[[], Awaitable[RenderedResponse]], *, has_counts: bool = False
    ) -> RenderedResponse:
        """Return the cached page or load it. Counts are expensive and are kept for longer."""

    def invalidate(self, product_ids: Sequence[UUID], *, pages: bool) -> None: ...


class ByteCache(Protocol):
    """A cache of bytes: shared.cache.CoherentCache."""

    async def get_or_load(
        self, namespace: str, key: str, ttl: float, load: Callable[[], Awaitable[bytes | None]]
    ) -> bytes | None: ...

    def invalidate(self, namespace: str, keys: Sequence[str]) -> None: ...

    def invalidate_namespace(self, namespace: str) -> None: ...

    def peek(self, namespace: str, key: str) -> bytes | None:
        """Return the cached value, the same object until it is invalidated; else None."""
