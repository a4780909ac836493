"""The Postgres storage of promotions."""

from markethall.orders.promotions.sql.store import SqlPromotionStore as SqlPromotionStore
