"""SQL statements that expire overdue reservations."""

from typing import Final

import sqlalchemy as sa

from markethall.inventory.catalogue.sql.expressions import LIMIT, NOW, PRODUCT_IDS
from markethall.inventory.reservations.sql.tables import HELD, reservation_lines, reservations
from markethall.shared.persistence.postgres import Statement, sql_literal


def _expire_statement(overdue_reservations: "sa.CTE") -> Statement:
    """Expire the overdue reservations. Return the units that they held before this statement."""
    expired = (
        sa.update(reservations)
        .where(reservations.c.reservation_id == overdue_reservations.c.reservation_id)
        .values(status=sql_literal("expired"))
        .returning(reservations.c.reservation_id)
        .cte("expired")
    )
    expired_lines = sa.outerjoin(
        expired, reservation_lines, reservation_lines.c.reservation_id == expired.c.reservation_id
    )
    return Statement(
        sa.select(
            expired.c.reservation_id,
            reservation_lines.c.product_id,
            reservation_lines.c.warehouse_id,
            reservation_lines.c.reserved,
        ).select_from(expired_lines)
    )


_is_overdue: Final = sa.and_(reservations.c.status == HELD, reservations.c.expires_at <= NOW)
_has_products: Final = reservations.c.reservation_id.in_(
    sa.select(reservation_lines.c.reservation_id).where(
        reservation_lines.c.product_id == sa.any_(PRODUCT_IDS),
        reservation_lines.c.status == HELD,
        reservation_lines.c.expires_at <= NOW,
    )
)
# the periodic job skips locked reservations, because it runs again soon
EXPIRE_OVERDUE: Final = _expire_statement(
    sa.select(reservations.c.reservation_id)
    .where(_is_overdue)
    .order_by(reservations.c.expires_at)
    .limit(LIMIT)
    .with_for_update(skip_locked=True)
    .cte("due")
)
# A request that needs stock waits for locked reservations, because one of them may have this
# stock. The order by id avoids deadlocks.
EXPIRE_OVERDUE_OF_PRODUCTS: Final = _expire_statement(
    sa.select(reservations.c.reservation_id)
    .where(_is_overdue, _has_products)
    .order_by(reservations.c.reservation_id)
    .limit(LIMIT)
    .with_for_update()
    .cte("due")
)
