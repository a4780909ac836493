"""Users in Postgres: tables, statements, and rows to entities and back."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, array, insert

from markethall.shared.db import Statement, constant
from markethall.shared.sql import ContextStatements, context_metadata, timestamp
from markethall.shared.sql import SqlStore as CommonStore
from markethall.users.contract import Role
from markethall.users.domain import (
    LONGEST_EMAIL,
    LONGEST_NAME,
    LONGEST_TAG,
    MOST_TAGS,
    USERNAME,
    Names,
    Session,
    User,
)

if TYPE_CHECKING:
    from asyncpg.protocol import Record

metadata = context_metadata("users")

_KNOWN_ROLES = ", ".join(f"'{role}'" for role in Role)

account = sa.Table(
    "account",
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
    timestamp("signup_date"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.CheckConstraint(f"username ~ '{USERNAME}'", name="username"),
    # COLLATE "C": no locale may fold these ASCII names in its own way
    sa.CheckConstraint('username_key = lower(username COLLATE "C")', name="username_key"),
    sa.CheckConstraint(f"length(email) BETWEEN 3 AND {LONGEST_EMAIL}", name="email"),
    sa.CheckConstraint("email_key <> ''", name="email_key"),
    sa.CheckConstraint(r"password_hash ~ '^\$2b\$\d\d\$.{53}$'", name="password_hash"),
    sa.CheckConstraint(f"length(full_name) <= {LONGEST_NAME}", name="full_name"),
    sa.CheckConstraint(
        f"cardinality(tags) <= {MOST_TAGS}"
        f" AND length(array_to_string(tags, '')) <= {MOST_TAGS * LONGEST_TAG}",
        name="tags",
    ),
    sa.CheckConstraint(f"cardinality(roles) > 0 AND roles <@ ARRAY[{_KNOWN_ROLES}]", name="roles"),
    sa.CheckConstraint("version > 0", name="version"),
)
IS_ADMIN = sa.and_(account.c.is_active, account.c.roles.contains(array([constant("admin")])))
sa.Index("ix_account_admin", account.c.user_id, postgresql_where=IS_ADMIN)

session = sa.Table(
    "session",
    metadata,
    sa.Column("session_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.Uuid, sa.ForeignKey(account.c.user_id), nullable=False, index=True),
    sa.Column("family_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("token_hash", sa.LargeBinary, nullable=False),
    sa.Column("previous_hash", sa.LargeBinary),
    timestamp("created_at"),
    timestamp("expires_at", index=True),
    timestamp("rotated_at", nullable=True),
    timestamp("revoked_at", nullable=True),
    sa.CheckConstraint(
        "length(family_hash) = 32 AND length(token_hash) = 32 AND length(previous_hash) = 32",
        name="hashes",
    ),
    sa.CheckConstraint("expires_at > created_at", name="expires_at"),
    sa.CheckConstraint("(previous_hash IS NULL) = (rotated_at IS NULL)", name="rotated"),
)

STATEMENTS = ContextStatements(metadata)


def _all(table: sa.Table) -> "dict[str, sa.BindParameter[Any]]":
    return {column.name: bindparam(column.name) for column in table.c}


def _set(*columns: "sa.Column[Any]") -> "dict[str, sa.BindParameter[Any]]":
    """New values, under names that no column has."""
    return {column.name: bindparam(f"new_{column.name}") for column in columns}


_OF = bindparam("of", type_=sa.Uuid)
_LIMIT = bindparam("limit", type_=sa.Integer)
_BESIDES = bindparam("besides", type_=sa.Uuid)
_LIVE = session.c.revoked_at.is_(None)

USER = Statement(sa.select(account).where(account.c.user_id == _OF))
LOCKED_USER = Statement(
    sa.select(account).where(account.c.user_id == _OF).with_for_update(key_share=True)
)
BY_USERNAME = Statement(sa.select(account).where(account.c.username_key == bindparam("key")))
BY_EMAIL = Statement(sa.select(account).where(account.c.email_key == bindparam("key")))
FIRST_USERS = Statement(sa.select(account).order_by(account.c.user_id).limit(_LIMIT))
USERS_AFTER = Statement(
    sa.select(account)
    .where(account.c.user_id > bindparam("after"))
    .order_by(account.c.user_id)
    .limit(_LIMIT)
)
COUNT = Statement(sa.select(sa.func.count()).select_from(account))
HAS_ADMIN = Statement(
    sa.select(sa.exists().where(IS_ADMIN, account.c.user_id.is_distinct_from(_BESIDES)))
)
ADD_USER = Statement(insert(account).values(_all(account)).on_conflict_do_nothing())
NAMESAKES = Statement(
    sa.select(account).where(
        sa.or_(
            account.c.user_id == _OF,
            account.c.username_key == bindparam("name"),
            account.c.email_key == bindparam("address"),
        )
    )
)
SAVE_USER = Statement(
    sa.update(account)
    .where(account.c.user_id == _OF)
    .values(
        _set(
            account.c.full_name,
            account.c.tags,
            account.c.roles,
            account.c.is_active,
            account.c.email_verified,
            account.c.version,
        )
    )
)
CHANGE_PASSWORD = Statement(
    sa.update(account)
    .where(
        account.c.user_id == _OF,
        account.c.is_active,
        account.c.password_hash == bindparam("was"),
    )
    .values(password_hash=bindparam("now"))
)
LOCK_ADMINS = Statement(
    sa.select(
        sa.func.pg_advisory_xact_lock(
            sa.func.hashtextextended(constant("markethall.users.admins"), 0)
        )
    )
)

_opened = ("session_id", "user_id", "family_hash", "token_hash", "created_at", "expires_at")
OPEN_SESSION = Statement(
    insert(session).from_select(
        _opened,
        sa.select(*(bindparam(name, type_=session.c[name].type) for name in _opened))
        .where(
            account.c.user_id == bindparam("user_id", type_=sa.Uuid),
            account.c.is_active,
            account.c.password_hash == bindparam("hash"),
        )
        # a change of the password, or of the user, waits: it must find this session
        .with_for_update(read=True, of=account),
    )
)
LOCKED_SESSION = Statement(
    sa.select(session, *(column.label(f"account_{column.name}") for column in account.c))
    .join_from(session, account)
    .where(session.c.family_hash == bindparam("family"))
    .with_for_update(of=session)
)
SAVE_SESSION = Statement(
    sa.update(session)
    .where(session.c.session_id == _OF)
    .values(
        _set(
            session.c.token_hash,
            session.c.previous_hash,
            session.c.rotated_at,
            session.c.revoked_at,
        )
    )
)
END_SESSION = Statement(
    sa.update(session)
    .where(session.c.family_hash == bindparam("family"), _LIVE)
    .values(revoked_at=bindparam("now"))
)
END_SESSIONS = Statement(
    sa.update(session)
    .where(
        session.c.user_id == _OF,
        _LIVE,
        # those that have expired are left to the purge, which takes rows in an order of its own
        session.c.expires_at > bindparam("now"),
        session.c.session_id.is_distinct_from(_BESIDES),
    )
    .values(revoked_at=bindparam("now"))
)
PURGE_SESSIONS = Statement(sa.delete(session).where(session.c.expires_at < bindparam("before")))


class SqlStore(CommonStore):
    async def user(self, user_id: UUID) -> User | None:
        return _maybe(await self._session.one(USER, of=user_id))

    async def user_by_username(self, key: str) -> User | None:
        return _maybe(await self._session.one(BY_USERNAME, key=key))

    async def user_by_email(self, key: str) -> User | None:
        return _maybe(await self._session.one(BY_EMAIL, key=key))

    async def users(self, after: UUID | None, limit: int) -> Sequence[User]:
        if after is None:
            rows = await self._session.all(FIRST_USERS, limit=limit)
        else:
            rows = await self._session.all(USERS_AFTER, after=after, limit=limit)
        return [_user(row) for row in rows]

    async def count(self) -> int:
        return int(await self._session.value(COUNT))

    async def has_admin(self, besides: UUID | None) -> bool:
        return bool(await self._session.value(HAS_ADMIN, besides=besides))

    async def add_user(self, user: User) -> bool:
        return bool(await self._session.run(ADD_USER, **_user_row(user)))

    async def namesakes(self, user_id: UUID, names: Names) -> Sequence[User]:
        rows = await self._session.all(
            NAMESAKES, of=user_id, name=names.username_key, address=names.email_key
        )
        return [_user(row) for row in rows]

    async def locked_user(self, user_id: UUID) -> User | None:
        return _maybe(await self._session.one(LOCKED_USER, of=user_id))

    async def save_user(self, user: User) -> None:
        row = {f"new_{name}": value for name, value in _user_row(user).items()}
        await self._session.run(SAVE_USER, of=user.user_id, **row)

    async def change_password(self, user_id: UUID, was: str, now: str) -> bool:
        return bool(await self._session.run(CHANGE_PASSWORD, of=user_id, was=was, now=now))

    async def lock_admins(self) -> None:
        await self._session.value(LOCK_ADMINS)

    async def open_session(self, session: Session, password_hash: str) -> bool:
        row = _session_row(session)
        return bool(await self._session.run(OPEN_SESSION, **row, hash=password_hash))

    async def locked_session(self, family_hash: bytes) -> tuple[Session, User] | None:
        row = await self._session.one(LOCKED_SESSION, family=family_hash)
        return (_session(row), _user(row, "account_")) if row else None

    async def save_session(self, session: Session) -> None:
        row = {f"new_{name}": value for name, value in _session_row(session).items()}
        await self._session.run(SAVE_SESSION, of=session.session_id, **row)

    async def end_session(self, family_hash: bytes, now: datetime) -> None:
        await self._session.run(END_SESSION, family=family_hash, now=now)

    async def end_sessions(self, user_id: UUID, now: datetime, besides: UUID | None) -> None:
        await self._session.run(END_SESSIONS, of=user_id, now=now, besides=besides)

    async def purge_sessions(self, before: datetime) -> int:
        return await self._session.run(PURGE_SESSIONS, before=before)


def _maybe(row: "Record | None") -> User | None:
    return _user(row) if row else None


def _user(row: "Record", prefix: str = "") -> User:
    return User(
        user_id=row[prefix + "user_id"],
        names=Names(row[prefix + "username"], row[prefix + "email"]),
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
        "username": user.names.username,
        "username_key": user.names.username_key,
        "email": user.names.email,
        "email_key": user.names.email_key,
        "password_hash": user.password_hash,
        "full_name": user.full_name,
        "tags": list(user.tags),
        "roles": list(user.roles),
        "is_active": user.is_active,
        "email_verified": user.email_verified,
        "signup_date": user.signup_date,
        "version": user.version,
    }


def _session(row: "Record") -> Session:
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
