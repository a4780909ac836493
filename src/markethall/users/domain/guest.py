from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from markethall.users.contract import GuestAlreadyClaimed, Role


@dataclass
class Guest:
    """A buyer without an account. A user may claim the guest, once."""

    roles: ClassVar[tuple[Role, ...]] = ()

    guest_id: UUID
    created_at: datetime
    claimed_by: UUID | None = None
    claimed_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Tell whether the guest may refresh tokens and place orders. After a claim it may not."""
        return self.claimed_by is None

    def claim(self, user_id: UUID, now: datetime) -> bool:
        """Record the claim by the user. Return False if this user has claimed the guest before.

        Raises GuestAlreadyClaimed if another user has.
        """
        if self.claimed_by == user_id:
            return False
        if self.claimed_by is not None:
            raise GuestAlreadyClaimed(guest_id=str(self.guest_id))
        self.claimed_by, self.claimed_at = user_id, now
        return True
