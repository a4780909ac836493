"""The port to the storage of claimed guests."""

from typing import Protocol
from uuid import UUID


class GuestWrites(Protocol):
    async def get_guest_owner_for_update(self, guest_id: UUID) -> UUID | None:
        """Return the user who has claimed the guest, or None; lock the guest until the commit."""

    async def set_guest_owner(self, guest_id: UUID, user_id: UUID) -> None:
        """Store that the user has claimed the guest, and lock the guest until the commit."""

    async def move_saved_methods(self, guest_id: UUID, user_id: UUID) -> None:
        """Change the owner of the guest's saved payment methods, also of deleted ones, to the user.

        The guest's customers at payment providers are moved to the user as well. If the user
        already has a customer at a provider, the guest's customer is deleted.
        """
