"""What the catalogue needs from the outside."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.inventory.contract import PriceRange, Rendered
from markethall.inventory.domain import Item


@dataclass(frozen=True)
class Card:
    """A product as the store shows it: its JSON is that of contract.Product.

    The store makes the JSON, so that a read copies it to the client and never takes it apart.
    """

    version: int
    active: bool
    json: str


@dataclass(frozen=True)
class FamilyFacts:
    """What the members of a family have between them."""

    product_count: int
    options: Mapping[str, tuple[str, ...]]
    prices: tuple[PriceRange, ...]


class Products(Protocol):
    """Reads. Each is one statement that takes no lock."""

    async def card(self, product_id: UUID, now: datetime) -> Card | None: ...

    async def card_by_sku(self, sku: str, now: datetime) -> Card | None:
        """Case does not count."""

    async def family(self, family: str, now: datetime) -> FamilyFacts | None:
        """Of its active products; None when there are none."""

    async def count(self) -> int: ...


class ProductStore(Products, Protocol):
    """Reads and writes of one transaction."""

    async def add(self, item: Item) -> bool:
        """With an empty shelf in the main warehouse, and its category if that is new. False when
        its id or sku is taken.
        """

    async def item(self, product_id: UUID) -> Item | None:
        """Locked until the end of the transaction."""

    async def save(self, item: Item) -> None:
        """With its category if that is new. Raises SkuTaken."""


class ProductCache(Protocol):
    """Rendered answers for the public. What is absent is not kept."""

    async def product(
        self, product_id: UUID, load: Callable[[], Awaitable[Rendered | None]]
    ) -> Rendered | None: ...

    async def page(
        self, key: str, load: Callable[[], Awaitable[Rendered]], *, counted: bool = False
    ) -> Rendered:
        """`counted`: what shows how many there are of something is dear, and kept for longer."""

    def invalidate(self, product_ids: Sequence[UUID], *, pages: bool) -> None: ...


class Bytes(Protocol):
    """A cache of bytes: shared.cache.CoherentCache."""

    async def get_or_load(
        self, namespace: str, key: str, ttl: float, load: Callable[[], Awaitable[bytes | None]]
    ) -> bytes | None: ...

    def invalidate(self, namespace: str, keys: Sequence[str]) -> None: ...

    def invalidate_namespace(self, namespace: str) -> None: ...

    def peek(self, namespace: str, key: str) -> bytes | None:
        """The cached value, the same object as long as it is not invalidated; else None."""
