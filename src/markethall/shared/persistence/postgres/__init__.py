"""Postgres: connection pools, transactions and statements.

SQLAlchemy Core compiles each statement once, and asyncpg executes it; see
docs/decisions/0003-compile-statements-once.md. Connection errors are raised as Unavailable.
"""

from markethall.shared.persistence.postgres.connection import Connection
from markethall.shared.persistence.postgres.pool import Databases, PoolSize, Postgres
from markethall.shared.persistence.postgres.statement import Statement, sql_literal

__all__ = ["Connection", "Databases", "PoolSize", "Postgres", "Statement", "sql_literal"]
