from typing import Protocol
from uuid import UUID

from markethall.inventory.catalogue.contract.products.commands import NewProduct, ProductChange
from markethall.inventory.catalogue.contract.products.views import (
    ProductView,
    RenderedResponse,
)
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.etags import ExpectedVersions


class Catalogue(Protocol):
    """The public API of products.

    Only callers with the scope catalogue:write get drafts and archived products.
    """

    async def get_product(self, ctx: CallContext, product_id: UUID) -> ProductView:
        """Raises ProductNotFound."""

    async def get_product_by_sku(self, ctx: CallContext, sku: str) -> ProductView:
        """Return the product with this SKU, ignoring letter case. Raises ProductNotFound."""

    async def render_product(self, ctx: CallContext, product_id: UUID) -> RenderedResponse:
        """Return the result of `get_product` as JSON. Raises ProductNotFound.

        The result comes from a cache. Callers with the scope catalogue:write get a fresh result.
        """

    async def render_product_by_sku(self, ctx: CallContext, sku: str) -> RenderedResponse:
        """Return the result of `get_product_by_sku` as JSON, never from a cache.

        Raises ProductNotFound.
        """

    async def create(
        self, ctx: CallContext, command: NewProduct, attempt: IdempotentCommand
    ) -> ProductView:
        """Create a product. `attempt.id` becomes the product id.

        Raises SkuTaken, CategoryAmbiguous.
        """

    async def change(
        self,
        ctx: CallContext,
        product_id: UUID,
        command: ProductChange,
        expected_versions: ExpectedVersions,
    ) -> ProductView:
        """Apply a merge patch.

        Raises ProductNotFound, PreconditionFailed, SkuTaken, CategoryAmbiguous, ValidationFailed.
        """

    async def archive(
        self, ctx: CallContext, product_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        """Stop selling the product. Raises ProductNotFound, PreconditionFailed."""

    async def count(self) -> int:
        """Return the number of active products."""
