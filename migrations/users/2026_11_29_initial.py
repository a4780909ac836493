"""Create the users schema: users and their sessions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5b1f6f2c9a10"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "users"
ROLES = "'customer', 'staff:catalogue', 'staff:orders', 'staff:payments', 'staff', 'admin'"


def upgrade() -> None:
    _user()
    _guest()
    _session()
    _login_failure()
    _outbox()
    _inbox()
    _idempotency_record()


def downgrade() -> None:
    for table in (
        "idempotency_record",
        "inbox",
        "outbox",
        "login_failure",
        "session",
        "guest",
        "user",
    ):
        op.drop_table(table, schema=SCHEMA)


def _user() -> None:
    op.create_table(
        "user",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("username_key", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("email_key", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("full_name", sa.Text(), nullable=True),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("roles", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("email_verified", sa.Boolean(), nullable=False),
        _timestamp("signup_date"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user")),
        sa.UniqueConstraint("username_key", name=op.f("uq_user_username_key")),
        sa.UniqueConstraint("email_key", name=op.f("uq_user_email_key")),
        *_checks("user", USER_CHECKS),
        schema=SCHEMA,
    )
    _index(
        "ix_user_admin",
        "user",
        ["user_id"],
        where="is_active AND (roles @> ARRAY['admin'])",
    )


USER_CHECKS = {
    "username": r"username ~ '^[A-Za-z0-9_.-]{3,50}$'",
    "username_key": 'username_key = lower(username COLLATE "C")',
    "email": "length(email) BETWEEN 3 AND 254",
    "email_key": "email_key <> ''",
    "password_hash": r"password_hash ~ '^\$2b\$\d\d\$.{53}$'",
    "full_name": "length(full_name) <= 200",
    "tags": "cardinality(tags) <= 20 AND length(array_to_string(tags, '')) <= 1000",
    "roles": f"cardinality(roles) > 0 AND roles <@ ARRAY[{ROLES}]",
    "version": "version > 0",
}


def _guest() -> None:
    op.create_table(
        "guest",
        sa.Column("guest_id", sa.Uuid(), nullable=False),
        _timestamp("created_at"),
        sa.Column("claimed_by", sa.Uuid(), nullable=True),
        _timestamp("claimed_at", nullable=True),
        sa.PrimaryKeyConstraint("guest_id", name=op.f("pk_guest")),
        _foreign_key("guest", "claimed_by", "user.user_id"),
        *_checks("guest", {"claimed": "(claimed_by IS NULL) = (claimed_at IS NULL)"}),
        schema=SCHEMA,
    )


def _session() -> None:
    op.create_table(
        "session",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("guest_id", sa.Uuid(), nullable=True),
        sa.Column("family_hash", sa.LargeBinary(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("exchanged_hashes", postgresql.ARRAY(sa.LargeBinary()), nullable=False),
        sa.Column("exchanged_at", postgresql.ARRAY(sa.DateTime(timezone=True)), nullable=False),
        _timestamp("created_at"),
        _timestamp("expires_at"),
        _timestamp("revoked_at", nullable=True),
        sa.Column("network_hash", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_session")),
        _foreign_key("session", "user_id", "user.user_id"),
        _foreign_key("session", "guest_id", "guest.guest_id"),
        sa.UniqueConstraint("guest_id", name=op.f("uq_session_guest_id")),
        sa.UniqueConstraint("family_hash", name=op.f("uq_session_family_hash")),
        *_checks("session", SESSION_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_session_user_id", "session", ["user_id"])
    _index("ix_session_expires_at", "session", ["expires_at"])


SESSION_CHECKS = {
    "hashes": (
        "length(family_hash) = 32 AND length(token_hash) = 32 AND length(network_hash) = 32"
    ),
    "owner": "(user_id IS NULL) <> (guest_id IS NULL)",
    "expires_at": "expires_at > created_at",
    "exchanged": (
        "cardinality(exchanged_hashes) = cardinality(exchanged_at)"
        " AND cardinality(exchanged_at) <= LEAST(generation, 16)"
    ),
}


def _login_failure() -> None:
    op.create_table(
        "login_failure",
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        _timestamp("last_failed_at"),
        sa.PrimaryKeyConstraint("key_hash", name=op.f("pk_login_failure")),
        *_checks("login_failure", LOGIN_FAILURE_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_login_failure_last_failed_at", "login_failure", ["last_failed_at"])


LOGIN_FAILURE_CHECKS = {"key_hash": "length(key_hash) = 32", "failures": "failures >= 0"}


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        *_envelope(),
        _timestamp("published_at", nullable=True),
        _timestamp("confirmed_at", nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_event_id")),
        schema=SCHEMA,
    )
    _index("ix_outbox_unpublished", "outbox", ["seq"], where="published_at IS NULL")
    _index(
        "ix_outbox_unconfirmed",
        "outbox",
        ["seq"],
        where="published_at IS NOT NULL AND confirmed_at IS NULL",
    )
    _index("ix_outbox_confirmed_at", "outbox", ["confirmed_at"])


def _inbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source_seq", sa.BigInteger(), nullable=False),
        *_envelope(),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        _timestamp("received_at"),
        _timestamp("due_at"),
        _timestamp("done_at", nullable=True),
        sa.PrimaryKeyConstraint("handler", "event_id", name=op.f("pk_inbox")),
        *_checks("inbox", {"state": "state IN ('waiting', 'done', 'dead')"}),
        schema=SCHEMA,
    )
    _index("ix_inbox_waiting", "inbox", ["position"], where="state = 'waiting'")
    _index("ix_inbox_waiting_key", "inbox", ["key", "position"], where="state = 'waiting'")
    _index("ix_inbox_done_at", "inbox", ["done_at"])


def _idempotency_record() -> None:
    op.create_table(
        "idempotency_record",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        _timestamp("lease_until"),
        sa.Column("response", sa.Text(), nullable=True),
        _timestamp("expires_at"),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_idempotency_record")),
        schema=SCHEMA,
    )
    _index("ix_idempotency_record_expires_at", "idempotency_record", ["expires_at"])


def _envelope() -> list[sa.Column]:
    return [
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        _timestamp("occurred_at"),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
    ]


def _timestamp(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable)


def _checks(table: str, conditions: dict[str, str]) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))
        for name, condition in conditions.items()
    ]


def _foreign_key(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"{SCHEMA}.{target}"], name=op.f(f"fk_{table}_{column}")
    )


def _index(name: str, table: str, columns: list[str], *, where: str | None = None) -> None:
    op.create_index(
        op.f(name),
        table,
        columns,
        schema=SCHEMA,
        postgresql_where=sa.text(where) if where else None,
    )
