"""The Postgres storage of orders."""

from markethall.orders.configuration.sql import metadata as metadata
from markethall.orders.sql.integrity import SqlOrderIntegrityReads as SqlOrderIntegrityReads
from markethall.orders.sql.store import STATEMENTS as STATEMENTS
from markethall.orders.sql.store import SqlOrderStore as SqlOrderStore
