"""The call context: who asks, on whose trace, until when. It travels with every contract call."""

from datetime import datetime
from uuid import UUID

from markethall.shared.kernel.errors import Forbidden
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.model import Dto


class Actor(Dto):
    """A person (user_id) or a part of the system (name), with the scopes they hold."""

    user_id: UUID | None = None
    name: str = "anonymous"
    roles: tuple[str, ...] = ()
    scopes: frozenset[str] = frozenset()
    # the login that the access token came from
    session_id: UUID | None = None

    def has_scope(self, scope: str) -> bool:
        return scope in self.scopes

    @property
    def audit_name(self) -> str:
        """For timelines and ledgers: stable, and no personal data."""
        return f"user:{self.user_id}" if self.user_id else self.name


class CallContext(Dto):
    actor: Actor = Actor()
    request_id: str
    traceparent: str | None = None
    deadline: datetime | None = None

    @property
    def user_id(self) -> UUID:
        """Raises Forbidden for a caller that is no person."""
        if self.actor.user_id is None:
            raise Forbidden("This needs a person's token.", scope="user")
        return self.actor.user_id

    def can_view(self, owner_id: UUID, scope: str) -> bool:
        """May the actor see a thing of this owner: their own, or with the staff scope."""
        is_owner = self.actor.user_id is not None and self.actor.user_id == owner_id
        return is_owner or self.actor.has_scope(scope)


def system_context(
    name: str, *, request_id: str = "", traceparent: str | None = None
) -> CallContext:
    """A call that no person made: a sweeper, a relay, the command line."""
    actor = Actor(name=f"system:{name}")
    return CallContext(actor=actor, request_id=request_id or str(new_id()), traceparent=traceparent)
