"""What users needs from the outside."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import Actor
from markethall.users.contract import UserView
from markethall.users.domain import Session, User, UserIdentity


class ReadStore(Protocol):
    async def get_user(self, user_id: UUID) -> User | None: ...

    async def get_user_by_username(self, username_key: str) -> User | None: ...

    async def get_user_by_email(self, email_key: str) -> User | None: ...

    async def list_users(self, after_user_id: UUID | None, limit: int) -> Sequence[User]:
        """In the order of their ids."""

    async def count(self) -> int: ...

    async def has_active_admin(self, except_user_id: UUID | None) -> bool:
        """Is there an active admin, other than this one?"""


class Store(ReadStore, Protocol):
    """Reads and writes of one transaction."""

    async def store_response(self, attempt: IdempotentCommand, result: UserView) -> None:
        """Keep the answer under the attempt's key. Raises LeaseLost."""

    async def add_user(self, user: User) -> bool:
        """False when the id, the name or the address is there already."""

    async def find_conflicts(self, user_id: UUID, identity: UserIdentity) -> Sequence[User]:
        """Who has this id, this name or this address."""

    async def get_user_for_update(self, user_id: UUID) -> User | None:
        """Nobody else changes it before this transaction ends."""

    async def save_user(self, user: User) -> None:
        """All but the names, the password and the day of signing up."""

    async def change_password(self, user_id: UUID, current_hash: str, new_hash: str) -> bool:
        """Check and act in one step; False when it was changed, or the user disabled."""

    async def lock_admins(self) -> None:
        """One change at a time of who is an admin."""

    async def open_session(self, session: Session, password_hash: str) -> bool:
        """False when the user is disabled, or the password is not this one any more."""

    async def get_session_for_update(self, family_hash: bytes) -> tuple[Session, User] | None:
        """With its user, who is not locked."""

    async def save_session(self, session: Session) -> None: ...

    async def end_session(self, family_hash: bytes, now: datetime) -> None: ...

    async def end_sessions(
        self, user_id: UUID, now: datetime, except_session_id: UUID | None
    ) -> None:
        """All of this user's, but one."""

    async def purge_sessions(self, expired_before: datetime) -> int:
        """Forget what expired before then; how many."""


class Database(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Store]:
        """Commits when the block ends, rolls back when it raises."""

    def read_session(self) -> AbstractAsyncContextManager[ReadStore]:
        """Takes no locks."""


class TokenSigner(Protocol):
    """Makes access tokens."""

    issuer: str
    lifetime: timedelta

    def sign(self, actor: Actor) -> str: ...

    def jwks(self) -> Mapping[str, Any]: ...

    def fingerprint(self, secret: str) -> str: ...
