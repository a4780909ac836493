"""Rendered products in the shared cache."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

from markethall.inventory.contract import Rendered
from markethall.inventory.ports import Bytes

PRODUCT: Final = "inventory.product"
PAGE: Final = "inventory.page"

# seconds; a product is invalidated when it changes, pages when the catalogue does. A sale changes
# what is available without invalidating pages, so a page may be a second old: half of that in this
# process, half in Redis
PRODUCT_TTL: Final = 10.0
PAGE_TTL: Final = 0.5
COUNTED_TTL: Final = 5.0


class CachedProducts:
    """A ports.ProductCache. Absent products are not cached."""

    def __init__(self, cache: Bytes) -> None:
        self._cache = cache

    async def product(
        self, product_id: UUID, load: Callable[[], Awaitable[Rendered | None]]
    ) -> Rendered | None:
        async def packed() -> bytes | None:
            rendered = await load()
            return _pack(rendered) if rendered else None

        kept = await self._cache.get_or_load(PRODUCT, product_id.hex, PRODUCT_TTL, packed)
        return self._rendered(PRODUCT, product_id.hex, kept) if kept is not None else None

    async def page(
        self, key: str, load: Callable[[], Awaitable[Rendered]], *, counted: bool = False
    ) -> Rendered:
        async def packed() -> bytes:
            return _pack(await load())

        ttl = COUNTED_TTL if counted else PAGE_TTL
        kept = await self._cache.get_or_load(PAGE, key, ttl, packed)
        return await load() if kept is None else self._rendered(PAGE, key, kept)

    def invalidate(self, product_ids: Sequence[UUID], *, pages: bool) -> None:
        if product_ids:
            self._cache.invalidate(PRODUCT, [product_id.hex for product_id in product_ids])
        if pages:
            self._cache.invalidate_namespace(PAGE)

    def _rendered(self, space: str, key: str, value: bytes) -> Rendered:
        def is_current() -> bool:
            return self._cache.peek(space, key) is value

        etag, _, body = value.partition(b"\n")
        return Rendered(body, etag.decode(), is_current=is_current)


def _pack(rendered: Rendered) -> bytes:
    return rendered.etag.encode() + b"\n" + rendered.body
