"""The call context of a contract call: actor, request id, trace and deadline."""

from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.shared.kernel.errors import Forbidden
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import Dto

# The header with the remaining milliseconds of a call. Its value is a duration, not a point in
# time, because the clocks of machines differ.
DEADLINE_HEADER: Final = "x-deadline-ms"


class Actor(Dto):
    """The caller, with its scopes.

    It is a user or a guest (user_id), the holder of an order token (order_id), or a part of the
    system (name).
    """

    user_id: UUID | None = None
    name: str = "anonymous"
    roles: tuple[str, ...] = ()
    scopes: frozenset[str] = frozenset()
    # the session (login) for which the access token was issued
    session_id: UUID | None = None
    # a buyer without an account; `user_id` is the id of the guest
    is_guest: bool = False
    # The only order that the caller may access. There is then no `user_id`, so a check of the owner
    # that does not know order tokens fails.
    order_id: UUID | None = None

    @property
    def is_authenticated(self) -> bool:
        """Tell whether the caller has a token of a user, a guest or an order."""
        return self.user_id is not None or self.order_id is not None

    def has_scope(self, scope: str) -> bool:
        return scope in self.scopes

    def is_owner(self, owner_id: UUID) -> bool:
        """Tell whether the actor is this user or guest."""
        return self.user_id is not None and self.user_id == owner_id

    def acts_for_owner(self, order_id: UUID, owner_id: UUID) -> bool:
        """Tell whether the actor is the owner of the order, or has a token of the order."""
        has_order_token = self.order_id is not None and self.order_id == order_id
        return has_order_token or self.is_owner(owner_id)

    @property
    def audit_name(self) -> str:
        """Return a name for timelines and ledgers, which is stable and has no personal data."""
        if self.order_id is not None:
            return f"order:{self.order_id}"
        if self.user_id is None:
            return self.name
        return f"guest:{self.user_id}" if self.is_guest else f"user:{self.user_id}"


class CallContext(Dto):
    actor: Actor = Actor()
    request_id: str
    traceparent: str | None = None
    deadline: datetime | None = None
    # empty in calls from other processes, and in calls that no client makes
    client_ip: str = ""

    @property
    def user_id(self) -> UUID:
        """Return the id of the user or guest. Raises Forbidden if the actor is neither."""
        if self.actor.user_id is None:
            raise Forbidden("This needs a person's token.", scope="user")
        return self.actor.user_id

    @property
    def security_fields(self) -> dict[str, str]:
        """Return the fields of a security event in the log: who called, from where."""
        return {
            "actor": self.actor.audit_name,
            "client_ip": self.client_ip,
            "request_id": self.request_id,
        }

    def can_view(self, owner_id: UUID, scope: str) -> bool:
        """Tell whether the actor is the owner or has this staff scope."""
        return self.actor.is_owner(owner_id) or self.actor.has_scope(scope)

    def can_view_order(self, order_id: UUID, owner_id: UUID, scope: str) -> bool:
        """Tell whether the actor is the owner, has an order token, or has this staff scope."""
        return self.actor.acts_for_owner(order_id, owner_id) or self.actor.has_scope(scope)


def system_context(
    name: str, *, request_id: str = "", traceparent: str | None = None
) -> CallContext:
    """Return the context for a call that no client makes, such as that of a periodic job."""
    actor = Actor(name=f"system:{name}")
    return CallContext(actor=actor, request_id=request_id or str(new_id()), traceparent=traceparent)
