from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.shared.persistence.postgres import Statement, sql_literal
from markethall.users.sql.tables import IS_ACTIVE_ADMIN, guests, login_failures, sessions, users


def _binds(*columns: "sa.Column[Any]") -> "dict[str, sa.BindParameter[Any]]":
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
INSERT_USER = Statement(insert(users).values(_binds(*users.c)).on_conflict_do_nothing())
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
        _binds(
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

_GUEST_ID = bindparam("guest_id", type_=sa.Uuid)
COUNT_GUESTS = Statement(
    sa.select(sa.func.count()).select_from(guests).where(guests.c.claimed_by.is_(None))
)
GET_GUEST = Statement(sa.select(guests).where(guests.c.guest_id == _GUEST_ID))
GET_GUEST_FOR_UPDATE = Statement(
    sa.select(guests).where(guests.c.guest_id == _GUEST_ID).with_for_update(key_share=True)
)
GET_GUEST_SESSION_FOR_UPDATE = Statement(
    sa.select(sessions).where(sessions.c.guest_id == _GUEST_ID).with_for_update()
)
GET_GUEST_ID = Statement(
    sa.select(sessions.c.guest_id).where(sessions.c.family_hash == bindparam("family_hash"))
)
INSERT_GUEST = Statement(sa.insert(guests).values(_binds(*guests.c)))
INSERT_GUEST_SESSION = Statement(sa.insert(sessions).values(_binds(*sessions.c)))
SAVE_CLAIM = Statement(
    sa.update(guests)
    .where(guests.c.guest_id == _GUEST_ID)
    .values(_binds(guests.c.claimed_by, guests.c.claimed_at))
)

_NEW_SESSION_COLUMNS = (
    "session_id",
    "user_id",
    "family_hash",
    "token_hash",
    "generation",
    "exchanged_hashes",
    "exchanged_at",
    "created_at",
    "expires_at",
    "network_hash",
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
        # A transaction that changes the user must wait for this lock. If it then ends the sessions
        # of the user, it also finds and ends this new session.
        .with_for_update(read=True, of=users),
    )
)
GET_SESSION_FOR_UPDATE = Statement(
    sa.select(
        sessions,
        *(column.label(f"user_{column.name}") for column in users.c),
        *(column.label(f"guest_{column.name}") for column in guests.c),
    )
    # the session of a guest has no user, and the session of a user has no guest
    .select_from(
        sessions.outerjoin(users, users.c.user_id == sessions.c.user_id).outerjoin(
            guests, guests.c.guest_id == sessions.c.guest_id
        )
    )
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
        _binds(
            sessions.c.token_hash,
            sessions.c.generation,
            sessions.c.exchanged_hashes,
            sessions.c.exchanged_at,
            sessions.c.expires_at,
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
        # Expired sessions are not updated. The purge job deletes them and locks their rows in
        # another order, so an update could deadlock with it.
        sessions.c.expires_at > bindparam("now"),
        sessions.c.session_id.is_distinct_from(_EXCEPT_ID),
    )
    .values(revoked_at=bindparam("now"))
)
END_GUEST_SESSION = Statement(
    sa.update(sessions)
    .where(
        sessions.c.guest_id == _GUEST_ID,
        _NOT_REVOKED,
        # as in END_SESSIONS, to avoid a deadlock with the purge job
        sessions.c.expires_at > bindparam("now"),
    )
    .values(revoked_at=bindparam("now"))
)
HAS_SIGNED_IN_FROM = Statement(
    sa.select(
        sa.exists().where(
            sessions.c.user_id == _USER_ID,
            sessions.c.network_hash == bindparam("network_hash", type_=sa.LargeBinary),
        )
    )
)
# Inserts a row, or locks and returns the existing row. On conflict, `failures` is set to its own
# value, because DO NOTHING would neither lock nor return the row.
GET_LOGIN_FAILURES_FOR_UPDATE = Statement(
    insert(login_failures)
    .values(_binds(*login_failures.c))
    .on_conflict_do_update(
        index_elements=[login_failures.c.key_hash],
        set_={"failures": login_failures.c.failures},
    )
    .returning(login_failures)
)
UPDATE_LOGIN_FAILURES = Statement(
    sa.update(login_failures)
    .where(login_failures.c.key_hash == bindparam("key_hash"))
    .values(_binds(login_failures.c.failures, login_failures.c.last_failed_at))
)
UNDO_LOGIN_FAILURE = Statement(
    sa.update(login_failures)
    .where(
        login_failures.c.key_hash == bindparam("key_hash"),
        login_failures.c.failures > sa.literal_column("0"),
    )
    .values(failures=login_failures.c.failures - sa.literal_column("1"))
)
CLEAR_LOGIN_FAILURES = Statement(
    sa.delete(login_failures).where(login_failures.c.key_hash == bindparam("key_hash"))
)
PURGE_LOGIN_FAILURES = Statement(
    sa.delete(login_failures).where(
        sa.or_(
            login_failures.c.last_failed_at < bindparam("last_failed_before"),
            login_failures.c.key_hash.in_(
                sa.select(login_failures.c.key_hash)
                .where(login_failures.c.user_id.is_(None))
                .order_by(login_failures.c.last_failed_at.desc())
                .offset(bindparam("max_unknown", type_=sa.Integer))
            ),
        )
    )
)
_purged = (
    sa.delete(sessions)
    .where(sessions.c.expires_at < bindparam("expired_before"))
    .returning(sessions.c.guest_id)
    .cte("purged")
)
_purged_guests = (
    sa.delete(guests)
    .where(guests.c.guest_id.in_(sa.select(_purged.c.guest_id)))
    .cte("purged_guests")
)
# Postgres executes a data-modifying CTE even if no query selects from it
PURGE_SESSIONS = Statement(sa.select(sa.func.count()).select_from(_purged).add_cte(_purged_guests))
