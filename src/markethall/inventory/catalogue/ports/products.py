"""What the catalogue needs from the outside."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.inventory.catalogue.contract.products import PriceRange, RenderedResponse
from markethall.inventory.catalogue.domain.products import Product


@dataclass(frozen=True)
class ProductJson:
    """A product as the store shows it: its JSON is that of contract.Product.

    The store makes the JSON, so that a read copies it to the client and never takes it apart.
    """

    version: int
    is_active: bool
    json: str


@dataclass(frozen=True)
class FamilySummary:
    """What the members of a family have between them."""

    product_count: int
    options: Mapping[str, tuple[str, ...]]
    prices: tuple[PriceRange, ...]


class ProductReads(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def get_product_json(self, product_id: UUID, now: datetime) -> ProductJson | None: ...

    async def get_product_json_by_sku(self, sku: str, now: datetime) -> ProductJson | None:
        """Case does not count."""

    async def get_family_summary(self, family: str, now: datetime) -> FamilySummary | None:
        """Of its active products; None when there are none."""

    async def count_products(self) -> int: ...


class ProductStore(ProductReads, Protocol):
    """Reads and writes of one transaction."""

    async def add_product(self, product: Product) -> bool:
        """With an empty shelf in the main warehouse, and its category if that is new. False when
        its id or sku is taken.
        """

    async def get_product_for_update(self, product_id: UUID) -> Product | None:
        """Locked until the end of the transaction."""

    async def save_product(self, product: Product) -> None:
        """With its category if that is new. Raises SkuTaken."""


class ProductCache(Protocol):
    """Rendered answers for the public. What is absent is not kept."""

    async def get_or_load_product(
        self, product_id: UUID, load: Callable[[], Awaitable[RenderedResponse | None]]
    ) -> RenderedResponse | None: ...

    async def get_or_load_page(
        self, key: str, load: Callable[[], Awaitable[RenderedResponse]], *, has_counts: bool = False
    ) -> RenderedResponse:
        """`counted`: what shows how many there are of something is dear, and kept for longer."""

    def invalidate(self, product_ids: Sequence[UUID], *, pages: bool) -> None: ...


class ByteCache(Protocol):
    """A cache of bytes: shared.cache.CoherentCache."""

    async def get_or_load(
        self, namespace: str, key: str, ttl: float, load: Callable[[], Awaitable[bytes | None]]
    ) -> bytes | None: ...

    def invalidate(self, namespace: str, keys: Sequence[str]) -> None: ...

    def invalidate_namespace(self, namespace: str) -> None: ...

    def peek(self, namespace: str, key: str) -> bytes | None:
        """The cached value, the same object as long as it is not invalidated; else None."""
