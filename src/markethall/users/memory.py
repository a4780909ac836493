from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.shared.composition.memory import ContextTables, MemoryUnitOfWork
from markethall.shared.kernel.clock import Clock
from markethall.shared.persistence.memory import Table
from markethall.users.domain.login_failures import LoginFailures
from markethall.users.domain.session import Session
from markethall.users.domain.user import Guest, User, UserIdentity


class Tables(ContextTables):
    def __init__(self) -> None:
        super().__init__()
        self.users: Table[UUID, User] = Table()
        self.user_id_by_username: Table[str, UUID] = Table()
        self.user_id_by_email: Table[str, UUID] = Table()
        self.guests: Table[UUID, Guest] = Table()
        self.sessions: Table[bytes, Session] = Table()
        self.login_failures: Table[bytes, LoginFailures] = Table()


class MemoryUserStore(MemoryUnitOfWork):
    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    async def get_user(self, user_id: UUID) -> User | None:
        return self._tables.users.get(user_id)

    # transactions in memory run one at a time, so no row needs a lock
    get_user_for_update = get_user

    async def get_user_by_username(self, username_key: str) -> User | None:
        return self._find_user(self._tables.user_id_by_username.get(username_key))

    async def get_user_by_email(self, email_key: str) -> User | None:
        return self._find_user(self._tables.user_id_by_email.get(email_key))

    async def is_session_open(self, session_id: UUID, now: datetime) -> bool:
        return bool(
            self._tables.sessions.where(
                lambda session: (
                    session.session_id == session_id
                    and session.revoked_at is None
                    and session.expires_at > now
                )
            )
        )

    async def has_signed_in_from(self, user_id: UUID, network_hash: bytes) -> bool:
        return bool(
            self._tables.sessions.where(
                lambda session: session.user_id == user_id and session.network_hash == network_hash
            )
        )

    async def list_users(self, after_user_id: UUID | None, limit: int) -> Sequence[User]:
        users = self._tables.users.where(
            lambda user: after_user_id is None or user.user_id > after_user_id
        )
        return sorted(users, key=lambda user: user.user_id)[:limit]

    async def count(self) -> int:
        return len(self._tables.users)

    async def count_guests(self) -> int:
        return len(self._tables.guests.where(lambda guest: guest.claimed_by is None))

    async def get_guest(self, guest_id: UUID) -> Guest | None:
        return self._tables.guests.get(guest_id)

    get_guest_for_update = get_guest

    async def get_guest_id(self, family_hash: bytes) -> UUID | None:
        session = self._tables.sessions.get(family_hash)
        return session.guest_id if session else None

    async def has_active_admin(self, except_user_id: UUID | None) -> bool:
        return bool(
            self._tables.users.where(
                lambda user: user.is_active_admin and user.user_id != except_user_id
            )
        )

    async def add_user(self, user: User) -> bool:
        if await self.find_conflicts(user.user_id, user.identity):
            return False
        self._tables.users.put(user.user_id, user)
        self._tables.user_id_by_username.put(user.identity.username_key, user.user_id)
        self._tables.user_id_by_email.put(user.identity.email_key, user.user_id)
        return True

    async def find_conflicts(self, user_id: UUID, identity: UserIdentity) -> Sequence[User]:
        candidates = [
            await self.get_user(user_id),
            await self.get_user_by_username(identity.username_key),
            await self.get_user_by_email(identity.email_key),
        ]
        return [user for user in candidates if user]

    async def save_user(self, user: User) -> None:
        self._tables.users.put(user.user_id, user)

    async def change_password(self, user_id: UUID, current_hash: str, new_hash: str) -> bool:
        user = self._tables.users.get(user_id)
        if user is None or not user.is_active or user.password_hash != current_hash:
            return False
        self._tables.users.put(user_id, replace(user, password_hash=new_hash))
        return True

    async def lock_admins(self) -> None:
        """Do nothing, because transactions in memory run one at a time."""

    async def add_guest(self, guest: Guest, session: Session) -> None:
        self._tables.guests.put(guest.guest_id, guest)
        self._tables.sessions.put(session.family_hash, session)

    async def get_guest_session_for_update(self, guest_id: UUID) -> Session | None:
        sessions = self._tables.sessions.where(lambda session: session.guest_id == guest_id)
        return sessions[0] if sessions else None

    async def save_claim(self, guest: Guest) -> None:
        self._tables.guests.put(guest.guest_id, guest)

    async def open_session(self, session: Session, password_hash: str) -> bool:
        user = self._find_user(session.user_id)
        if user is None or not user.is_active or user.password_hash != password_hash:
            return False
        self._tables.sessions.put(session.family_hash, session)
        return True

    async def get_session_for_update(
        self, family_hash: bytes
    ) -> tuple[Session, User | Guest] | None:
        session = self._tables.sessions.get(family_hash)
        owner = self._find_owner(session) if session else None
        return (session, owner) if session and owner else None

    async def save_session(self, session: Session) -> None:
        self._tables.sessions.put(session.family_hash, session)

    async def end_session(self, family_hash: bytes, now: datetime) -> None:
        session = self._tables.sessions.get(family_hash)
        if session and session.revoked_at is None:
            self._tables.sessions.put(family_hash, replace(session, revoked_at=now))

    async def end_sessions(
        self, user_id: UUID, now: datetime, except_session_id: UUID | None
    ) -> None:
        for session in self._tables.sessions.where(
            lambda session: (
                session.user_id == user_id
                and session.expires_at > now
                and session.session_id != except_session_id
            )
        ):
            await self.end_session(session.family_hash, now)

    async def end_guest_session(self, guest_id: UUID, now: datetime) -> None:
        for session in self._tables.sessions.where(
            lambda session: session.guest_id == guest_id and session.expires_at > now
        ):
            await self.end_session(session.family_hash, now)

    async def get_login_failures_for_update(
        self, key_hash: bytes, user_id: UUID | None, now: datetime
    ) -> LoginFailures:
        failures = self._tables.login_failures.get(key_hash)
        return failures or LoginFailures(key_hash, user_id, 0, now)

    async def save_login_failures(self, failures: LoginFailures) -> None:
        self._tables.login_failures.put(failures.key_hash, failures)

    async def undo_login_failure(self, key_hash: bytes) -> None:
        failures = self._tables.login_failures.get(key_hash)
        if failures and failures.failures:
            self._tables.login_failures.put(
                key_hash, replace(failures, failures=failures.failures - 1)
            )

    async def clear_login_failures(self, key_hash: bytes) -> None:
        self._tables.login_failures.remove(key_hash)

    async def purge_login_failures(self, last_failed_before: datetime, max_unknown: int) -> int:
        table = self._tables.login_failures
        old = table.where(lambda failures: failures.last_failed_at < last_failed_before)
        unknown = table.where(lambda failures: failures.user_id is None)
        unknown.sort(key=lambda failures: failures.last_failed_at, reverse=True)
        deleted = {failures.key_hash for failures in [*old, *unknown[max_unknown:]]}
        for key_hash in deleted:
            table.remove(key_hash)
        return len(deleted)

    async def purge_sessions(self, expired_before: datetime) -> int:
        expired = self._tables.sessions.where(lambda session: session.expires_at < expired_before)
        for session in expired:
            self._tables.sessions.remove(session.family_hash)
            if session.guest_id:
                self._tables.guests.remove(session.guest_id)
        return len(expired)

    def _find_owner(self, session: Session) -> User | Guest | None:
        if session.guest_id:
            return self._tables.guests.get(session.guest_id)
        return self._find_user(session.user_id)

    def _find_user(self, user_id: UUID | None) -> User | None:
        return self._tables.users.get(user_id) if user_id else None
