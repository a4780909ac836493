"""Users in memory."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.shared.clock import Clock
from markethall.shared.memory import CommonTables, Table
from markethall.shared.memory import MemoryStore as CommonStore
from markethall.users.domain import Names, Session, User


class Tables(CommonTables):
    def __init__(self) -> None:
        super().__init__()
        self.accounts: Table[UUID, User] = Table()
        self.by_username: Table[str, UUID] = Table()
        self.by_email: Table[str, UUID] = Table()
        self.sessions: Table[bytes, Session] = Table()


class MemoryStore(CommonStore):
    def __init__(self, tables: Tables, clock: Clock) -> None:
        super().__init__(tables, clock)
        self._tables = tables

    async def user(self, user_id: UUID) -> User | None:
        return self._tables.accounts.get(user_id)

    async def user_by_username(self, key: str) -> User | None:
        return self._of(self._tables.by_username.get(key))

    async def user_by_email(self, key: str) -> User | None:
        return self._of(self._tables.by_email.get(key))

    async def users(self, after: UUID | None, limit: int) -> Sequence[User]:
        later = self._tables.accounts.where(lambda user: after is None or user.user_id > after)
        return sorted(later, key=lambda user: user.user_id)[:limit]

    async def count(self) -> int:
        return len(self._tables.accounts)

    async def has_admin(self, besides: UUID | None) -> bool:
        return bool(
            self._tables.accounts.where(lambda user: user.is_admin and user.user_id != besides)
        )

    async def add_user(self, user: User) -> bool:
        if await self.namesakes(user.user_id, user.names):
            return False
        self._tables.accounts.put(user.user_id, user)
        self._tables.by_username.put(user.names.username_key, user.user_id)
        self._tables.by_email.put(user.names.email_key, user.user_id)
        return True

    async def namesakes(self, user_id: UUID, names: Names) -> Sequence[User]:
        candidates = [
            await self.user(user_id),
            await self.user_by_username(names.username_key),
            await self.user_by_email(names.email_key),
        ]
        return [user for user in candidates if user]

    async def locked_user(self, user_id: UUID) -> User | None:
        return await self.user(user_id)

    async def save_user(self, user: User) -> None:
        self._tables.accounts.put(user.user_id, user)

    async def change_password(self, user_id: UUID, was: str, now: str) -> bool:
        user = self._tables.accounts.get(user_id)
        if user is None or not user.is_active or user.password_hash != was:
            return False
        self._tables.accounts.put(user_id, replace(user, password_hash=now))
        return True

    async def lock_admins(self) -> None:
        """Every transaction in memory is alone."""

    async def open_session(self, session: Session, password_hash: str) -> bool:
        user = self._tables.accounts.get(session.user_id)
        if user is None or not user.is_active or user.password_hash != password_hash:
            return False
        self._tables.sessions.put(session.family_hash, session)
        return True

    async def locked_session(self, family_hash: bytes) -> tuple[Session, User] | None:
        session = self._tables.sessions.get(family_hash)
        user = self._of(session.user_id) if session else None
        return (session, user) if session and user else None

    async def save_session(self, session: Session) -> None:
        self._tables.sessions.put(session.family_hash, session)

    async def end_session(self, family_hash: bytes, now: datetime) -> None:
        session = self._tables.sessions.get(family_hash)
        if session and session.revoked_at is None:
            self._tables.sessions.put(family_hash, replace(session, revoked_at=now))

    async def end_sessions(self, user_id: UUID, now: datetime, besides: UUID | None) -> None:
        for session in self._tables.sessions.where(
            lambda session: (
                session.user_id == user_id
                and session.expires_at > now
                and session.session_id != besides
            )
        ):
            await self.end_session(session.family_hash, now)

    async def purge_sessions(self, before: datetime) -> int:
        old = self._tables.sessions.where(lambda session: session.expires_at < before)
        for session in old:
            self._tables.sessions.remove(session.family_hash)
        return len(old)

    def _of(self, user_id: UUID | None) -> User | None:
        return self._tables.accounts.get(user_id) if user_id else None
