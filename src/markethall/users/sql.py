"""The tables, statements and Postgres store of users."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, array, insert

from markethall.shared.composition.sql import ContextStatements, SqlUnitOfWork, context_metadata
from markethall.shared.persistence.postgres import Statement, sql_literal
from markethall.shared.persistence.sql import timestamp_column
from markethall.users.contract import Role
from markethall.users.domain import (
    MAX_EMAIL_LENGTH,
    MAX_FULL_NAME_LENGTH,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    USERNAME_PATTERN,
    Session,
    User,
    UserIdentity,
)

if TYPE_CHECKING:
    from asyncpg.protocol import Record

metadata = context_metadata("users")

_ROLE_LITERALS = ", ".join(f"'{role}'" for role in Role)

users = sa.Table(
    "user",
    metadata,
    sa.Column("user_id", sa.Uuid, primary_key=True),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("username_key", sa.Text, nullable=False, unique=True),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("email_key", sa.Text, nullable=False, unique=True),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("full_name", sa.Text),
    sa.Column("tags", ARRAY(sa.Text), nullable=False),
    sa.Column("roles", ARRAY(sa.Text), nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("email_verified", sa.Boolean, nullable=False),
    timestamp_column("signup_date"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.CheckConstraint(f"username ~ '{USERNAME_PATTERN}'", name="username"),
    # COLLATE "C", because lower() must not depend on the locale of the database
    sa.CheckConstraint('username_key = lower(username COLLATE "C")', name="username_key"),
    sa.CheckConstraint(f"length(email) BETWEEN 3 AND {MAX_EMAIL_LENGTH}", name="email"),
    sa.CheckConstraint("email_key <> ''", name="email_key"),
    sa.CheckConstraint(r"password_hash ~ '^\$2b\$\d\d\$.{53}$'", name="password_hash"),
    sa.CheckConstraint(f"length(full_name) <= {MAX_FULL_NAME_LENGTH}", name="full_name"),
    sa.CheckConstraint(
        f"cardinality(tags) <= {MAX_TAGS}"
        f" AND length(array_to_string(tags, '')) <= {MAX_TAGS * MAX_TAG_LENGTH}",
        name="tags",
    ),
    sa.CheckConstraint(
        f"cardinality(roles) > 0 AND roles <@ ARRAY[{_ROLE_LITERALS}]", name="roles"
    ),
    sa.CheckConstraint("version > 0", name="version"),
)
IS_ACTIVE_ADMIN = sa.and_(users.c.is_active, users.c.roles.contains(array([sql_literal("admin")])))
sa.Index("ix_user_admin", users.c.user_id, postgresql_where=IS_ACTIVE_ADMIN)

sessions = sa.Table(
    "session",
    metadata,
    sa.Column("session_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.Uuid, sa.ForeignKey(users.c.user_id), nullable=False, index=True),
    sa.Column("family_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("token_hash", sa.LargeBinary, nullable=False),
    sa.Column("previous_hash", sa.LargeBinary),
    timestamp_column("created_at"),
    timestamp_column("expires_at", index=True),
    timestamp_column("rotated_at", nullable=True),
    timestamp_column("revoked_at", nullable=True),
    sa.CheckConstraint(
        "length(family_hash) = 32 AND length(token_hash) = 32 AND length(previous_hash) = 32",
        name="hashes",
    ),
    sa.CheckConstraint("expires_at > created_at", name="expires_at"),
    sa.CheckConstraint("(previous_hash IS NULL) = (rotated_at IS NULL)", name="rotated"),
)

STATEMENTS = ContextStatements(metadata)


def _insert_binds(table: sa.Table) -> "dict[str, sa.BindParameter[Any]]":
    return {column.name: bindparam(column.name) for column in table.c}


def _update_binds(*columns: "sa.Column[Any]") -> "dict[str, sa.BindParameter[Any]]":
    return {column.name: bindparam(column.name) for column in columns}


_USER_ID = bindparam("user_id", type_=sa.Uuid)
_LIMIT = bindparam("limit", type_=sa.Integer)
_EXCEPT_ID = bindparam("except_id", type_=sa.Uuid)
_NOT_REVOKED = sessions.c.revoked_at.is_(None)

GET_USER = Statement(sa.select(users).where(users.c.user_id == _USER_ID))
GET_USER_FOR_UPDATE = Statement(
    sa.select(users).where(users.c.user_id == _USER_ID).with_for_update(key_share=True)
)
GET_USER_BY_USERNAME = Statement(
    sa.select(users).where(users.c.username_key == bindparam("username_key"))
)
GET_USER_BY_EMAIL = Statement(sa.select(users).where(users.c.email_key == bindparam("email_key")))
LIST_FIRST_USERS = Statement(sa.select(users).order_by(users.c.user_id).limit(_LIMIT))
LIST_USERS_AFTER = Statement(
    sa.select(users)
    .where(users.c.user_id > bindparam("after_user_id"))
    .order_by(users.c.user_id)
    .limit(_LIMIT)
)
COUNT_USERS = Statement(sa.select(sa.func.count()).select_from(users))
HAS_ACTIVE_ADMIN = Statement(
    sa.select(sa.exists().where(IS_ACTIVE_ADMIN, users.c.user_id.is_distinct_from(_EXCEPT_ID)))
)
INSERT_USER = Statement(insert(users).values(_insert_binds(users)).on_conflict_do_nothing())
FIND_CONFLICTS = Statement(
    sa.select(users).where(
        sa.or_(
            users.c.user_id == _USER_ID,
            users.c.username_key == bindparam("username_key"),
            users.c.email_key == bindparam("email_key"),
        )
    )
)
UPDATE_USER = Statement(
    sa.update(users)
    .where(users.c.user_id == _USER_ID)
    .values(
        _update_binds(
            users.c.full_name,
            users.c.tags,
            users.c.roles,
            users.c.is_active,
            users.c.email_verified,
            users.c.version,
        )
    )
)
CHANGE_PASSWORD = Statement(
    sa.update(users)
    .where(
        users.c.user_id == _USER_ID,
        users.c.is_active,
        users.c.password_hash == bindparam("current_password_hash"),
    )
    .values(password_hash=bindparam("new_password_hash"))
)
LOCK_ADMINS = Statement(
    sa.select(
        sa.func.pg_advisory_xact_lock(
            sa.func.hashtextextended(sql_literal("markethall.users.admins"), 0)
        )
    )
)

_NEW_SESSION_COLUMNS = (
    "session_id",
    "user_id",
    "family_hash",
    "token_hash",
    "created_at",
    "expires_at",
)
INSERT_SESSION = Statement(
    insert(sessions).from_select(
        _NEW_SESSION_COLUMNS,
        sa.select(*(bindparam(name, type_=sessions.c[name].type) for name in _NEW_SESSION_COLUMNS))
        .where(
            users.c.user_id == bindparam("user_id", type_=sa.Uuid),
            users.c.is_active,
            users.c.password_hash == bindparam("password_hash"),
        )
        # a concurrent change of the user waits for this lock; when it then ends the user's
        # sessions, it ends this session too
        .with_for_update(read=True, of=users),
    )
)
GET_SESSION_FOR_UPDATE = Statement(
    sa.select(sessions, *(column.label(f"user_{column.name}") for column in users.c))
    .join_from(sessions, users)
    .where(sessions.c.family_hash == bindparam("family_hash"))
    .with_for_update(of=sessions)
)
IS_SESSION_OPEN = Statement(
    sa.select(
        sa.exists().where(
            sessions.c.session_id == bindparam("session_id", type_=sa.Uuid),
            _NOT_REVOKED,
            sessions.c.expires_at > bindparam("now"),
        )
    )
)
UPDATE_SESSION = Statement(
    sa.update(sessions)
    .where(sessions.c.session_id == bindparam("session_id", type_=sa.Uuid))
    .values(
        _update_binds(
            sessions.c.token_hash,
            sessions.c.previous_hash,
            sessions.c.rotated_at,
            sessions.c.revoked_at,
        )
    )
)
END_SESSION = Statement(
    sa.update(sessions)
    .where(sessions.c.family_hash == bindparam("family_hash"), _NOT_REVOKED)
    .values(revoked_at=bindparam("now"))
)
END_SESSIONS = Statement(
    sa.update(sessions)
    .where(
        sessions.c.user_id == _USER_ID,
        _NOT_REVOKED,
        # the purge job deletes expired sessions; it locks rows in another order, so touching
        # them here could deadlock
        sessions.c.expires_at > bindparam("now"),
        sessions.c.session_id.is_distinct_from(_EXCEPT_ID),
    )
    .values(revoked_at=bindparam("now"))
)
PURGE_SESSIONS = Statement(
    sa.delete(sessions).where(sessions.c.expires_at < bindparam("expired_before"))
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

    async def open_session(self, session: Session, password_hash: str) -> bool:
        row = _session_row(session)
        return bool(
            await self._connection.execute(INSERT_SESSION, **row, password_hash=password_hash)
        )

    async def get_session_for_update(self, family_hash: bytes) -> tuple[Session, User] | None:
        row = await self._connection.fetch_one(GET_SESSION_FOR_UPDATE, family_hash=family_hash)
        return (_to_session(row), _to_user(row, "user_")) if row else None

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

    async def purge_sessions(self, expired_before: datetime) -> int:
        return await self._connection.execute(PURGE_SESSIONS, expired_before=expired_before)


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
        previous_hash=row["previous_hash"],
        rotated_at=row["rotated_at"],
        revoked_at=row["revoked_at"],
    )


def _session_row(session: Session) -> dict[str, Any]:
    return dict(vars(session))
