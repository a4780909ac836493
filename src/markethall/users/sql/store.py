from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.users.contract import Role
from markethall.users.domain import (
    ExchangedToken,
    Guest,
    LoginFailures,
    Session,
    User,
    UserIdentity,
)

if TYPE_CHECKING:
    from asyncpg.protocol import Record

from markethall.users.sql.statements import (
    CHANGE_PASSWORD,
    CLEAR_LOGIN_FAILURES,
    COUNT_GUESTS,
    COUNT_USERS,
    END_GUEST_SESSION,
    END_SESSION,
    END_SESSIONS,
    FIND_CONFLICTS,
    GET_GUEST,
    GET_GUEST_FOR_UPDATE,
    GET_GUEST_ID,
    GET_GUEST_SESSION_FOR_UPDATE,
    GET_LOGIN_FAILURES_FOR_UPDATE,
    GET_SESSION_FOR_UPDATE,
    GET_USER,
    GET_USER_BY_EMAIL,
    GET_USER_BY_USERNAME,
    GET_USER_FOR_UPDATE,
    HAS_ACTIVE_ADMIN,
    HAS_SIGNED_IN_FROM,
    INSERT_GUEST,
    INSERT_GUEST_SESSION,
    INSERT_SESSION,
    INSERT_USER,
    IS_SESSION_OPEN,
    LIST_FIRST_USERS,
    LIST_USERS_AFTER,
    LOCK_ADMINS,
    PURGE_LOGIN_FAILURES,
    PURGE_SESSIONS,
    SAVE_CLAIM,
    UNDO_LOGIN_FAILURE,
    UPDATE_LOGIN_FAILURES,
    UPDATE_SESSION,
    UPDATE_USER,
)


class SqlUserStore(SqlUnitOfWork):
    async def get_user(self, user_id: UUID) -> User | None:
        return _user_or_none(await self._connection.fetch_one(GET_USER, user_id=user_id))

    async def get_user_by_username(self, username_key: str) -> User | None:
        return _user_or_none(
            await self._connection.fetch_one(GET_USER_BY_USERNAME, username_key=username_key)
        )

    async def get_user_by_email(self, email_key: str) -> User | None:
        return _user_or_none(
            await self._connection.fetch_one(GET_USER_BY_EMAIL, email_key=email_key)
        )

    async def is_session_open(self, session_id: UUID, now: datetime) -> bool:
        return bool(
            await self._connection.fetch_value(IS_SESSION_OPEN, session_id=session_id, now=now)
        )

    async def has_signed_in_from(self, user_id: UUID, network_hash: bytes) -> bool:
        return bool(
            await self._connection.fetch_value(
                HAS_SIGNED_IN_FROM, user_id=user_id, network_hash=network_hash
            )
        )

    async def list_users(self, after_user_id: UUID | None, limit: int) -> Sequence[User]:
        if after_user_id is None:
            rows = await self._connection.fetch_all(LIST_FIRST_USERS, limit=limit)
        else:
            rows = await self._connection.fetch_all(
                LIST_USERS_AFTER, after_user_id=after_user_id, limit=limit
            )
        return [_to_user(row) for row in rows]

    async def count(self) -> int:
        return int(await self._connection.fetch_value(COUNT_USERS))

    async def count_guests(self) -> int:
        return int(await self._connection.fetch_value(COUNT_GUESTS))

    async def get_guest(self, guest_id: UUID) -> Guest | None:
        row = await self._connection.fetch_one(GET_GUEST, guest_id=guest_id)
        return _to_guest(row) if row else None

    async def get_guest_id(self, family_hash: bytes) -> UUID | None:
        guest_id: UUID | None = await self._connection.fetch_value(
            GET_GUEST_ID, family_hash=family_hash
        )
        return guest_id

    async def has_active_admin(self, except_user_id: UUID | None) -> bool:
        return bool(await self._connection.fetch_value(HAS_ACTIVE_ADMIN, except_id=except_user_id))

    async def add_user(self, user: User) -> bool:
        return bool(await self._connection.execute(INSERT_USER, **_user_row(user)))

    async def find_conflicts(self, user_id: UUID, identity: UserIdentity) -> Sequence[User]:
        rows = await self._connection.fetch_all(
            FIND_CONFLICTS,
            user_id=user_id,
            username_key=identity.username_key,
            email_key=identity.email_key,
        )
        return [_to_user(row) for row in rows]

    async def get_user_for_update(self, user_id: UUID) -> User | None:
        return _user_or_none(await self._connection.fetch_one(GET_USER_FOR_UPDATE, user_id=user_id))

    async def save_user(self, user: User) -> None:
        await self._connection.execute(UPDATE_USER, **_user_row(user))

    async def change_password(self, user_id: UUID, current_hash: str, new_hash: str) -> bool:
        return bool(
            await self._connection.execute(
                CHANGE_PASSWORD,
                user_id=user_id,
                current_password_hash=current_hash,
                new_password_hash=new_hash,
            )
        )

    async def lock_admins(self) -> None:
        await self._connection.fetch_value(LOCK_ADMINS)

    async def add_guest(self, guest: Guest, session: Session) -> None:
        await self._connection.execute(INSERT_GUEST, **vars(guest))
        await self._connection.execute(INSERT_GUEST_SESSION, **_session_row(session))

    async def get_guest_session_for_update(self, guest_id: UUID) -> Session | None:
        row = await self._connection.fetch_one(GET_GUEST_SESSION_FOR_UPDATE, guest_id=guest_id)
        return _to_session(row) if row else None

    async def get_guest_for_update(self, guest_id: UUID) -> Guest | None:
        row = await self._connection.fetch_one(GET_GUEST_FOR_UPDATE, guest_id=guest_id)
        return _to_guest(row) if row else None

    async def save_claim(self, guest: Guest) -> None:
        await self._connection.execute(SAVE_CLAIM, **vars(guest))

    async def open_session(self, session: Session, password_hash: str) -> bool:
        row = _session_row(session)
        return bool(
            await self._connection.execute(INSERT_SESSION, **row, password_hash=password_hash)
        )

    async def get_session_for_update(
        self, family_hash: bytes
    ) -> tuple[Session, User | Guest] | None:
        row = await self._connection.fetch_one(GET_SESSION_FOR_UPDATE, family_hash=family_hash)
        if row is None:
            return None
        owner = _to_guest(row, "guest_") if row["guest_id"] else _to_user(row, "user_")
        return _to_session(row), owner

    async def save_session(self, session: Session) -> None:
        await self._connection.execute(UPDATE_SESSION, **_session_row(session))

    async def end_session(self, family_hash: bytes, now: datetime) -> None:
        await self._connection.execute(END_SESSION, family_hash=family_hash, now=now)

    async def end_sessions(
        self, user_id: UUID, now: datetime, except_session_id: UUID | None
    ) -> None:
        await self._connection.execute(
            END_SESSIONS, user_id=user_id, now=now, except_id=except_session_id
        )

    async def end_guest_session(self, guest_id: UUID, now: datetime) -> None:
        await self._connection.execute(END_GUEST_SESSION, guest_id=guest_id, now=now)

    async def get_login_failures_for_update(
        self, key_hash: bytes, user_id: UUID | None, now: datetime
    ) -> LoginFailures:
        new = LoginFailures(key_hash, user_id, 0, now)
        (row,) = await self._connection.fetch_all(GET_LOGIN_FAILURES_FOR_UPDATE, **vars(new))
        return LoginFailures(**row)

    async def save_login_failures(self, failures: LoginFailures) -> None:
        await self._connection.execute(UPDATE_LOGIN_FAILURES, **vars(failures))

    async def undo_login_failure(self, key_hash: bytes) -> None:
        await self._connection.execute(UNDO_LOGIN_FAILURE, key_hash=key_hash)

    async def clear_login_failures(self, key_hash: bytes) -> None:
        await self._connection.execute(CLEAR_LOGIN_FAILURES, key_hash=key_hash)

    async def purge_login_failures(self, last_failed_before: datetime, max_unknown: int) -> int:
        return await self._connection.execute(
            PURGE_LOGIN_FAILURES, last_failed_before=last_failed_before, max_unknown=max_unknown
        )

    async def purge_sessions(self, expired_before: datetime) -> int:
        return int(
            await self._connection.fetch_value(PURGE_SESSIONS, expired_before=expired_before)
        )


def _user_or_none(row: "Record | None") -> User | None:
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
    return Guest(
        guest_id=row[prefix + "guest_id"],
        created_at=row[prefix + "created_at"],
        claimed_by=row[prefix + "claimed_by"],
        claimed_at=row[prefix + "claimed_at"],
    )


def _user_row(user: User) -> dict[str, Any]:
    return {
        "user_id": user.user_id,
        "username": user.identity.username,
        "username_key": user.identity.username_key,
        "email": user.identity.email,
        "email_key": user.identity.email_key,
        "password_hash": user.password_hash,
        "full_name": user.full_name,
        "tags": list(user.tags),
        "roles": list(user.roles),
        "is_active": user.is_active,
        "email_verified": user.email_verified,
        "signup_date": user.signup_date,
        "version": user.version,
    }


def _to_session(row: "Record") -> Session:
    return Session(
        session_id=row["session_id"],
        user_id=row["user_id"],
        family_hash=row["family_hash"],
        token_hash=row["token_hash"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        generation=row["generation"],
        exchanged=tuple(
            ExchangedToken(*each)
            for each in zip(row["exchanged_hashes"], row["exchanged_at"], strict=True)
        ),
        revoked_at=row["revoked_at"],
        network_hash=row["network_hash"],
        guest_id=row["guest_id"],
    )


def _session_row(session: Session) -> dict[str, Any]:
    row = dict(vars(session))
    exchanged = row.pop("exchanged")
    return row | {
        "exchanged_hashes": [each.token_hash for each in exchanged],
        "exchanged_at": [each.exchanged_at for each in exchanged],
    }
