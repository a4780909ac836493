"""The port to the storage of saved payment methods."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from markethall.payments.domain.saved_method import ProviderCustomer, SavedMethod
from markethall.shared.kernel.pagination import TimeKeyset


class SavedMethodReads(Protocol):
    async def get_saved_method(self, saved_method_id: UUID) -> SavedMethod | None:
        """Return the method, also if it is deleted."""

    async def find_saved_method(self, provider: str, token: str) -> SavedMethod | None:
        """Return the method with this token, also if it is deleted."""

    async def list_saved_methods(
        self, user_id: UUID, after: TimeKeyset | None, limit: int
    ) -> Sequence[SavedMethod]:
        """Return methods that are not deleted, the newest first."""

    async def get_provider_customer(
        self, user_id: UUID, provider: str
    ) -> ProviderCustomer | None: ...


class SavedMethodWrites(Protocol):
    async def add_provider_customer(
        self, customer: ProviderCustomer, replaced: str | None = None
    ) -> ProviderCustomer:
        """Insert the customer unless the user has one at the provider. Return the stored one.

        A stored customer with the reference `replaced` is replaced.
        """

    async def add_saved_method(self, method: SavedMethod) -> None:
        """Insert the method unless one with its provider and token exists, even a deleted one."""

    async def delete_saved_methods(
        self, user_id: UUID, saved_method_id: UUID | None, now: datetime, limit: int
    ) -> Sequence[SavedMethod]:
        """Delete one method of the user, or up to `limit` of them; return those that existed.

        From `now` on, they are due to be detached at the provider.
        """

    async def claim_methods_to_detach(
        self, now: datetime, next_at: datetime, limit: int
    ) -> Sequence[SavedMethod]:
        """Return deleted methods due to be detached, and postpone them to `next_at`."""

    async def finish_detaching(self, saved_method_id: UUID) -> None:
        """Record that the method is detached, and erase its details except for the token."""
