from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.persistence.postgres import Statement
from markethall.users.contract import Role
from markethall.users.domain.login_failures import LoginFailures
from markethall.users.domain.session import ExchangedToken, Session
from markethall.users.domain.user import Guest, User, UserIdentity
from markethall.users.sql import statements as sql

if TYPE_CHECKING:
    from asyncpg.protocol import Record


class SqlUserStore(SqlUnitOfWork):
    async def get_user(self, user_id: UUID) -> User | None:
        return await self._fetch_user(sql.GET_USER, user_id=user_id)

    async def get_user_by_username(self, username_key: str) -> User | None:
        return await self._fetch_user(sql.GET_USER_BY_USERNAME, username_key=username_key)

    async def get_user_by_email(self, email_key: str) -> User | None:
        return await self._fetch_user(sql.GET_USER_BY_EMAIL, email_key=email_key)

    async def is_session_open(self, session_id: UUID, now: datetime) -> bool:
        return await self._fetch_bool(sql.IS_SESSION_OPEN, session_id=session_id, now=now)

    async def has_signed_in_from(self, user_id: UUID, network_hash: bytes) -> bool:
        return await self._fetch_bool(
            sql.HAS_SIGNED_IN_FROM, user_id=user_id, network_hash=network_hash
        )

    async def list_users(self, after_user_id: UUID | None, limit: int) -> Sequence[User]:
        if after_user_id is None:
            rows = await self._connection.fetch_all(sql.LIST_FIRST_USERS, limit=limit)
        else:
            rows = await self._connection.fetch_all(
                sql.LIST_USERS_AFTER, after_user_id=after_user_id, limit=limit
            )
        return [_to_user(row) for row in rows]

    async def count(self) -> int:
        return int(await self._connection.fetch_value(sql.COUNT_USERS))

    async def count_guests(self) -> int:
        return int(await self._connection.fetch_value(sql.COUNT_GUESTS))

    async def get_guest(self, guest_id: UUID) -> Guest | None:
        row = await self._connection.fetch_one(sql.GET_GUEST, guest_id=guest_id)
        return _to_guest(row) if row else None

    async def get_guest_id(self, family_hash: bytes) -> UUID | None:
        guest_id: UUID | None = await self._connection.fetch_value(
            sql.GET_GUEST_ID, family_hash=family_hash
        )
        return guest_id

    async def has_active_admin(self, except_user_id: UUID | None) -> bool:
        return await self._fetch_bool(sql.HAS_ACTIVE_ADMIN, except_id=except_user_id)

    async def add_user(self, user: User) -> bool:
        return await self._has_effect(sql.INSERT_USER, **_user_row(user))

    async def find_conflicts(self, user_id: UUID, identity: UserIdentity) -> Sequence[User]:
        rows = await self._connection.fetch_all(
            sql.FIND_CONFLICTS,
            user_id=user_id,
            username_key=identity.username_key,
            email_key=identity.email_key,
        )
        return [_to_user(row) for row in rows]

    async def get_user_for_update(self, user_id: UUID) -> User | None:
        return await self._fetch_user(sql.GET_USER_FOR_UPDATE, user_id=user_id)

    async def save_user(self, user: User) -> None:
        await self._connection.execute(sql.UPDATE_USER, **_user_row(user))

    async def change_password(self, user_id: UUID, current_hash: str, new_hash: str) -> bool:
        return await self._has_effect(
            sql.CHANGE_PASSWORD,
            user_id=user_id,
            current_password_hash=current_hash,
            new_password_hash=new_hash,
        )

    async def lock_admins(self) -> None:
        await self._connection.fetch_value(sql.LOCK_ADMINS)

    async def add_guest(self, guest: Guest, session: Session) -> None:
        await self._connection.execute(sql.INSERT_GUEST, **vars(guest))
        await self._connection.execute(sql.INSERT_GUEST_SESSION, **_session_row(session))

    async def get_guest_session_for_update(self, guest_id: UUID) -> Session | None:
        row = await self._connection.fetch_one(sql.GET_GUEST_SESSION_FOR_UPDATE, guest_id=guest_id)
        return _to_session(row) if row else None

    async def get_guest_for_update(self, guest_id: UUID) -> Guest | None:
        row = await self._connection.fetch_one(sql.GET_GUEST_FOR_UPDATE, guest_id=guest_id)
        return _to_guest(row) if row else None

    async def save_claim(self, guest: Guest) -> None:
        await self._connection.execute(sql.SAVE_CLAIM, **vars(guest))

    async def open_session(self, session: Session, password_hash: str) -> bool:
        row = _session_row(session)
        return await self._has_effect(sql.INSERT_SESSION, **row, password_hash=password_hash)

    async def get_session_for_update(
        self, family_hash: bytes
    ) -> tuple[Session, User | Guest] | None:
        row = await self._connection.fetch_one(sql.GET_SESSION_FOR_UPDATE, family_hash=family_hash)
        if row is None:
            return None
        owner = _to_guest(row, "guest_") if row["guest_id"] else _to_user(row, "user_")
        return _to_session(row), owner

    async def save_session(self, session: Session) -> None:
        await self._connection.execute(sql.UPDATE_SESSION, **_session_row(session))

    async def end_session(self, family_hash: bytes, now: datetime) -> None:
        await self._connection.execute(sql.END_SESSION, family_hash=family_hash, now=now)

    async def end_sessions(
        self, user_id: UUID, now: datetime, except_session_id: UUID | None
    ) -> None:
        await self._connection.execute(
            sql.END_SESSIONS, user_id=user_id, now=now, except_id=except_session_id
        )

    async def end_guest_session(self, guest_id: UUID, now: datetime) -> None:
        await self._connection.execute(sql.END_GUEST_SESSION, guest_id=guest_id, now=now)

    async def get_login_failures_for_update(
        self, key_hash: bytes, user_id: UUID | None, now: datetime
    ) -> LoginFailures:
        new = LoginFailures(key_hash, user_id, 0, now)
        (row,) = await self._connection.fetch_all(sql.GET_LOGIN_FAILURES_FOR_UPDATE, **vars(new))
        return LoginFailures(**row)

    async def save_login_failures(self, failures: LoginFailures) -> None:
        await self._connection.execute(sql.UPDATE_LOGIN_FAILURES, **vars(failures))

    async def undo_login_failure(self, key_hash: bytes) -> None:
        await self._connection.execute(sql.UNDO_LOGIN_FAILURE, key_hash=key_hash)

    async def clear_login_failures(self, key_hash: bytes) -> None:
        await self._connection.execute(sql.CLEAR_LOGIN_FAILURES, key_hash=key_hash)

    async def purge_login_failures(self, last_failed_before: datetime, max_unknown: int) -> int:
        return await self._connection.execute(
            sql.PURGE_LOGIN_FAILURES,
            last_failed_before=last_failed_before,
            max_unknown=max_unknown,
        )

    async def purge_sessions(self, expired_before: datetime) -> int:
        return int(
            await self._connection.fetch_value(sql.PURGE_SESSIONS, expired_before=expired_before)
        )

    async def _fetch_user(self, statement: Statement, **values: Any) -> User | None:
        row = await self._connection.fetch_one(statement, **values)
        return _to_user(row) if row else None


def _to_user(row: "Record", prefix: str = "") -> User:
    return User(
        user_id=row[prefix + "user_id"],
        identity=UserIdentity(row[prefix + "username"], row[prefix + "email"]),
        password_hash=row[prefix + "password_hash"],
        signup_date=row[prefix + "signup_date"],
        full_name=row[prefix + "full_name"],
        tags=tuple(row[prefix + "tags"]),
        roles=tuple(map(Role, row[prefix + "roles"])),
        is_active=row[prefix + "is_active"],
        email_verified=row[prefix + "email_verified"],
        version=row[prefix + "version"],
    )


def _to_guest(row: "Record", prefix: str = "") -> Guest:
    names = ("guest_id", "created_at", "claimed_by", "claimed_at")
    return Guest(**{name: row[prefix + name] for name in names})


def _user_row(user: User) -> dict[str, Any]:
    row = dict(vars(user))
    identity = row.pop("identity")
    return row | {
        "username": identity.username,
        "username_key": identity.username_key,
        "email": identity.email,
        "email_key": identity.email_key,
        "tags": list(user.tags),
        "roles": list(user.roles),
    }


def _to_session(row: "Record") -> Session:
    values = {field.name: row[field.name] for field in fields(Session) if field.name != "exchanged"}
    exchanged = zip(row["exchanged_hashes"], row["exchanged_at"], strict=True)
    return Session(**values, exchanged=tuple(ExchangedToken(*each) for each in exchanged))


def _session_row(session: Session) -> dict[str, Any]:
    row = dict(vars(session))
    exchanged = row.pop("exchanged")
    return row | {
        "exchanged_hashes": [each.token_hash for each in exchanged],
        "exchanged_at": [each.exchanged_at for each in exchanged],
    }
