"""Ports of users: storage and the signer of access tokens."""

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
        """Return users in the order of their ids."""

    async def count(self) -> int: ...

    async def has_active_admin(self, except_user_id: UUID | None) -> bool:
        """Return whether an active admin exists besides this user."""


class Store(ReadStore, Protocol):
    """Reads and writes of one transaction."""

    async def store_response(self, attempt: IdempotentCommand, view: UserView) -> None:
        """Store the response under the idempotency key. Raises LeaseLost."""

    async def add_user(self, user: User) -> bool:
        """Insert the user. Return False when the id, the name or the address exists."""

    async def find_conflicts(self, user_id: UUID, identity: UserIdentity) -> Sequence[User]:
        """Return the users that have this id, this name or this address."""

    async def get_user_for_update(self, user_id: UUID) -> User | None:
        """Return the user and lock its row."""

    async def save_user(self, user: User) -> None:
        """Update all but the identity, the password and the sign-up date."""

    async def change_password(self, user_id: UUID, current_hash: str, new_hash: str) -> bool:
        """Compare and set the hash. Return False when it was changed or the user is disabled."""

    async def lock_admins(self) -> None:
        """Take a lock, so that changes of admins run one at a time."""

    async def open_session(self, session: Session, password_hash: str) -> bool:
        """Insert the session.

        Return False when the user is disabled or the password was changed.
        """

    async def get_session_for_update(self, family_hash: bytes) -> tuple[Session, User] | None:
        """Return the session, with its row locked, and its user, without a lock."""

    async def save_session(self, session: Session) -> None: ...

    async def end_session(self, family_hash: bytes, now: datetime) -> None: ...

    async def end_sessions(
        self, user_id: UUID, now: datetime, except_session_id: UUID | None
    ) -> None:
        """End all sessions of a user but one."""

    async def purge_sessions(self, expired_before: datetime) -> int:
        """Delete sessions that expired before then. Return how many."""


class Database(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Store]:
        """Commit when the block ends, roll back when it raises. Raises Unavailable."""

    def read_session(self) -> AbstractAsyncContextManager[ReadStore]:
        """Read without locks. Raises Unavailable."""


class TokenSigner(Protocol):
    """Signer of access tokens."""

    issuer: str
    lifetime: timedelta

    def sign(self, actor: Actor) -> str: ...

    def jwks(self) -> Mapping[str, Any]: ...

    def fingerprint(self, secret: str) -> str:
        """Return 256 bits in hexadecimal, which only holders of the signing key can compute."""
