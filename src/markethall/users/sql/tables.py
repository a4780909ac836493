import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, array

from markethall.shared.composition.sql import ContextStatements, context_metadata
from markethall.shared.kernel.email_address import MAX_EMAIL_LENGTH
from markethall.shared.persistence.postgres import sql_literal
from markethall.shared.persistence.sql import timestamp_column
from markethall.users.contract import Role
from markethall.users.domain.session import MAX_EXCHANGED_TOKENS
from markethall.users.domain.user import (
    MAX_FULL_NAME_LENGTH,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    USERNAME_PATTERN,
)

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

guests = sa.Table(
    "guest",
    metadata,
    sa.Column("guest_id", sa.Uuid, primary_key=True),
    timestamp_column("created_at"),
    sa.Column("claimed_by", sa.Uuid, sa.ForeignKey(users.c.user_id)),
    timestamp_column("claimed_at", nullable=True),
    sa.CheckConstraint("(claimed_by IS NULL) = (claimed_at IS NULL)", name="claimed"),
)

sessions = sa.Table(
    "session",
    metadata,
    sa.Column("session_id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.Uuid, sa.ForeignKey(users.c.user_id), index=True),
    sa.Column("guest_id", sa.Uuid, sa.ForeignKey(guests.c.guest_id), unique=True),
    sa.Column("family_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("token_hash", sa.LargeBinary, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("exchanged_hashes", ARRAY(sa.LargeBinary), nullable=False),
    sa.Column("exchanged_at", ARRAY(sa.DateTime(timezone=True)), nullable=False),
    timestamp_column("created_at"),
    timestamp_column("expires_at", index=True),
    timestamp_column("revoked_at", nullable=True),
    sa.Column("network_hash", sa.LargeBinary),
    sa.CheckConstraint(
        "length(family_hash) = 32 AND length(token_hash) = 32 AND length(network_hash) = 32",
        name="hashes",
    ),
    sa.CheckConstraint("(user_id IS NULL) <> (guest_id IS NULL)", name="owner"),
    sa.CheckConstraint("expires_at > created_at", name="expires_at"),
    sa.CheckConstraint(
        "cardinality(exchanged_hashes) = cardinality(exchanged_at)"
        f" AND cardinality(exchanged_at) <= LEAST(generation, {MAX_EXCHANGED_TOKENS})",
        name="exchanged",
    ),
)

login_failures = sa.Table(
    "login_failure",
    metadata,
    sa.Column("key_hash", sa.LargeBinary, primary_key=True),
    sa.Column("user_id", sa.Uuid),
    sa.Column("failures", sa.Integer, nullable=False),
    timestamp_column("last_failed_at", index=True),
    sa.CheckConstraint("length(key_hash) = 32", name="key_hash"),
    sa.CheckConstraint("failures >= 0", name="failures"),
)

STATEMENTS = ContextStatements(metadata)
