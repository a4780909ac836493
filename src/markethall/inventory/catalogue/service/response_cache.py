from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final
from uuid import UUID

from markethall.inventory.catalogue.contract.products import RenderedResponse
from markethall.inventory.catalogue.ports import ByteCache

PRODUCT_NAMESPACE: Final = "inventory.product"
PAGE_NAMESPACE: Final = "inventory.page"

# A change of a product or its stock invalidates the cached product. A change of the catalogue
# invalidates all pages, but a sale does not. So a page may show stock that is two TTLs old: Redis
# keeps the page for one TTL. A process that reads the page from Redis just before the end of this
# TTL keeps it for another TTL.
PRODUCT_TTL_SECONDS: Final = 10.0
PAGE_TTL_SECONDS: Final = 0.5
PAGE_WITH_COUNTS_TTL_SECONDS: Final = 5.0


class ProductResponseCache:
    """Implementation of `ProductCache`."""

    def __init__(self, cache: ByteCache) -> None:
        self._cache = cache

    async def get_or_load_product(
        self, product_id: UUID, load: Callable[[], Awaitable[RenderedResponse | None]]
    ) -> RenderedResponse | None:
        async def load_packed() -> bytes | None:
            rendered = await load()
            return _pack(rendered) if rendered else None

        key = product_id.hex
        cached = await self._cache.get_or_load(
            PRODUCT_NAMESPACE, key, PRODUCT_TTL_SECONDS, load_packed
        )
        return None if cached is None else self._rendered(PRODUCT_NAMESPACE, key, cached)

    async def get_or_load_page(
        self, key: str, load: Callable[[], Awaitable[RenderedResponse]], *, has_counts: bool = False
    ) -> RenderedResponse:
        async def load_packed() -> bytes:
            return _pack(await load())

        ttl = PAGE_WITH_COUNTS_TTL_SECONDS if has_counts else PAGE_TTL_SECONDS
        cached = await self._cache.get_or_load(PAGE_NAMESPACE, key, ttl, load_packed)
        return await load() if cached is None else self._rendered(PAGE_NAMESPACE, key, cached)

    def invalidate(self, product_ids: Sequence[UUID], *, pages: bool) -> None:
        if product_ids:
            self._cache.invalidate(
                PRODUCT_NAMESPACE, [product_id.hex for product_id in product_ids]
            )
        if pages:
            self._cache.invalidate_namespace(PAGE_NAMESPACE)

    def _rendered(self, space: str, key: str, value: bytes) -> RenderedResponse:
        # a partial, because the response cache keeps it, and a function takes twice the memory
        is_current = partial(self._cache.is_current, space, key, value)
        etag, _, body = value.partition(b"\n")
        return RenderedResponse(body, etag.decode(), is_current=is_current)


def _pack(rendered: RenderedResponse) -> bytes:
    return rendered.etag.encode() + b"\n" + rendered.body
