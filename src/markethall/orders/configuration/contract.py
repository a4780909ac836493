"""The fields and errors that all kinds of configuration items share."""

from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.pagination import Page, PageQuery

# the largest number of items of one kind, because the items of all kinds are read together
MAX_ITEMS = 2000


class ItemView(Dto):
    """A configuration item. The subclass of each kind adds the fields of this kind."""

    version: int
    created_at: datetime


class TooManyItems(DomainError):
    """The shop already has the maximum number of items of this kind. Details: limit."""

    code = "orders.too_many_items"
    status = 409
    title = "There are too many items of this kind"


New_contra = TypeVar("New_contra", contravariant=True)
Change_contra = TypeVar("Change_contra", contravariant=True)
View = TypeVar("View", bound=ItemView)


class Items(Protocol[New_contra, Change_contra, View]):
    """The API of the items of one kind."""

    async def get(self, ctx: CallContext, item_id: UUID) -> View:
        """Raises the error for an unknown item of this kind, such as TaxRateNotFound."""

    async def list_page(self, ctx: CallContext, query: PageQuery) -> Page[View]:
        """Return items in the order in which they were created. Raises CursorInvalid."""

    async def create(
        self, ctx: CallContext, fields: New_contra, attempt: IdempotentCommand
    ) -> View:
        """Create an item. `attempt.id` becomes its id.

        Raises the error of the kind for a unique key that is taken, TooManyItems.
        """

    async def change(
        self,
        ctx: CallContext,
        item_id: UUID,
        patch: Change_contra,
        expected_versions: ExpectedVersions,
    ) -> View:
        """Apply a merge patch.

        Raises both errors of the kind, PreconditionFailed, ValidationFailed.
        """

    async def delete(
        self, ctx: CallContext, item_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        """Raises the error of the kind for an item that is not found, PreconditionFailed."""
