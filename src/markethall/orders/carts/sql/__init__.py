"""The Postgres storage of carts."""

from markethall.orders.carts.sql.store import SqlCartStore as SqlCartStore
