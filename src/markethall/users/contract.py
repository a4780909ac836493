"""What the rest of the hall may know about users."""

from typing import Protocol
from uuid import UUID

from markethall.shared.call import Call
from markethall.shared.errors import Refusal
from markethall.shared.model import Dto


class Customer(Dto):
    """A person who may buy."""

    user_id: UUID
    email: str
    full_name: str | None


class UserNotFound(Refusal):
    """Details: user_id."""

    code = "users.not_found"
    status = 404
    title = "There is no such user"


class UserInactive(Refusal):
    """Details: user_id."""

    code = "users.inactive"
    status = 403
    title = "This account is disabled"


class Users(Protocol):
    """What a neighbour may ask."""

    async def active(self, call: Call, user_id: UUID) -> Customer:
        """The person, if they may buy now. Raises UserNotFound, UserInactive."""
