from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from markethall.shared.idempotency.records import ResponseStore
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.key_derivation import KeyPurpose
from markethall.shared.messaging.events import Event
from markethall.users.domain.login_failures import LoginFailures
from markethall.users.domain.session import Session
from markethall.users.domain.user import Guest, User, UserIdentity


class ReadStore(Protocol):
    async def get_user(self, user_id: UUID) -> User | None: ...

    async def get_user_by_username(self, username_key: str) -> User | None: ...

    async def get_user_by_email(self, email_key: str) -> User | None: ...

    async def is_session_open(self, session_id: UUID, now: datetime) -> bool:
        """Tell whether the session exists and is neither expired nor revoked."""

    async def has_signed_in_from(self, user_id: UUID, network_hash: bytes) -> bool:
        """Tell whether a session of the user, open or ended, began in this network."""

    async def list_users(self, after_user_id: UUID | None, limit: int) -> Sequence[User]:
        """Return users sorted by id, which is the order of registration."""

    async def count(self) -> int: ...

    async def count_guests(self) -> int:
        """Return the number of stored guests that no user has claimed."""

    async def get_guest(self, guest_id: UUID) -> Guest | None: ...

    async def get_guest_id(self, family_hash: bytes) -> UUID | None:
        """Return the id of the guest whose session has this token family, even if it has ended."""

    async def has_active_admin(self, except_user_id: UUID | None) -> bool:
        """Tell whether an active admin exists other than this user."""


class Store(ReadStore, ResponseStore, Protocol):
    """Reads and writes of one transaction."""

    async def publish(self, event: Event, ctx: CallContext) -> None:
        """Write the event to the outbox. It is published if this transaction commits."""

    async def add_user(self, user: User) -> bool:
        """Insert the user. Return False when a user has this id, name or e-mail address."""

    async def find_conflicts(self, user_id: UUID, identity: UserIdentity) -> Sequence[User]:
        """Return the users that have this id, name or e-mail address."""

    async def get_user_for_update(self, user_id: UUID) -> User | None:
        """Return the user and lock the row until the transaction ends."""

    async def save_user(self, user: User) -> None:
        """Update the user, except the user name, e-mail address, password hash and sign-up date."""

    async def change_password(self, user_id: UUID, current_hash: str, new_hash: str) -> bool:
        """Replace the password hash.

        Return False if the stored hash is not `current_hash`, or if the user is disabled.
        """

    async def lock_admins(self) -> None:
        """Lock the set of admins until the transaction ends. Other calls of this method wait."""

    async def open_session(self, session: Session, password_hash: str) -> bool:
        """Insert the session. Return False if the user is disabled or has another password hash."""

    async def add_guest(self, guest: Guest, session: Session) -> None: ...

    async def get_guest_session_for_update(self, guest_id: UUID) -> Session | None:
        """Return the session of a guest and lock its row; None if the session was purged."""

    async def get_guest_for_update(self, guest_id: UUID) -> Guest | None:
        """Return the guest and lock its row. The caller must have locked the guest's session.

        The purge of sessions locks the rows in this order too.
        """

    async def save_claim(self, guest: Guest) -> None:
        """Store the claim of the guest."""

    async def get_session_for_update(
        self, family_hash: bytes
    ) -> tuple[Session, User | Guest] | None:
        """Return the session and its owner. Lock the row of the session only."""

    async def save_session(self, session: Session) -> None: ...

    async def end_session(self, family_hash: bytes, now: datetime) -> None: ...

    async def end_sessions(
        self, user_id: UUID, now: datetime, except_session_id: UUID | None
    ) -> None:
        """End all sessions of a user except `except_session_id`."""

    async def end_guest_session(self, guest_id: UUID, now: datetime) -> None:
        """End the session of a guest, unless it has expired."""

    async def get_login_failures_for_update(
        self, key_hash: bytes, user_id: UUID | None, now: datetime
    ) -> LoginFailures:
        """Return the count of this key and lock its row. If there is none, insert the count 0."""

    async def save_login_failures(self, failures: LoginFailures) -> None: ...

    async def undo_login_failure(self, key_hash: bytes) -> None:
        """Subtract 1 from the count of this key, but not below 0."""

    async def clear_login_failures(self, key_hash: bytes) -> None: ...

    async def purge_login_failures(self, last_failed_before: datetime, max_unknown: int) -> int:
        """Delete the counts whose last failure is before `last_failed_before`.

        Of the counts that match no account, keep only the newest `max_unknown`. Return the number
        of deleted rows.
        """

    async def purge_sessions(self, expired_before: datetime) -> int:
        """Delete the sessions that expired before this time, and the guests of such sessions.

        Return the number of sessions.
        """


class GuestTokenVerifier(Protocol):
    """Verifier of the access tokens that this context has signed."""

    def verify(self, token: str) -> Actor:
        """Return the actor of a token. Raises Unauthenticated."""


class TokenSigner(Protocol):
    """Signer of access tokens."""

    issuer: str
    lifetime: timedelta

    def sign(self, actor: Actor) -> str: ...

    def sign_order_token(self, order_id: UUID, lifetime: timedelta) -> str: ...

    def jwks(self) -> Mapping[str, Any]: ...

    def digest(self, purpose: KeyPurpose, text: str) -> bytes:
        """Return 256 bits that only holders of the signing key can compute."""
