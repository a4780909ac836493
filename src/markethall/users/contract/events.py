from typing import ClassVar
from uuid import UUID

from markethall.shared.messaging.events import Event


class GuestClaimed(Event):
    """A user has claimed a guest, whose data now belongs to the user.

    Every context that stores data of guests changes the owner from `guest_id` to `user_id`.
    """

    type: ClassVar[str] = "users.guest_claimed"
    guest_id: UUID
    user_id: UUID

    @property
    def key(self) -> UUID:
        return self.guest_id
