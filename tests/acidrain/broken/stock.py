"""A store that reads the available units, and reserves them without a condition."""

from dataclasses import replace
from typing import Final

import sqlalchemy as sa
from sqlalchemy import bindparam

from markethall.inventory.contract import ProductOffer
from markethall.inventory.reservations.domain.reservations import (
    CustomerLimits,
    Reservation,
    ReservationLine,
)
from markethall.inventory.sql import SqlInventoryStore
from markethall.inventory.stock.domain import StockQuantity
from markethall.inventory.stock.sql.tables import stock
from markethall.shared.persistence.postgres import Statement

RESERVE_UNCONDITIONALLY: Final = Statement(
    sa.update(stock)
    .where(
        stock.c.product_id == bindparam("of_product", type_=sa.Uuid),
        stock.c.warehouse_id == bindparam("in_warehouse", type_=sa.Uuid),
    )
    .values(reserved=stock.c.reserved + bindparam("units", type_=sa.BigInteger))
)


class CheckThenReserveStore(SqlInventoryStore):
    """Reserves units that another transaction has taken since the check."""

    async def reserve_single_statement(
        self, reservation: Reservation, stock_quantity: StockQuantity, limits: CustomerLimits | None
    ) -> ReservationLine | None:
        return None  # the service then calls `reserve_line` for each line

    async def reserve_line(
        self, reservation: Reservation, stock_quantity: StockQuantity, *, include_backorder: bool
    ) -> ReservationLine | None:
        product_id = stock_quantity.product_id
        offers = await self.list_offers([product_id], reservation.currency, reservation.reserved_at)
        if not offers or offers[0].available < stock_quantity.quantity:
            return None
        await self._connection.execute(
            RESERVE_UNCONDITIONALLY,
            of_product=product_id,
            in_warehouse=stock_quantity.warehouse_id,
            units=stock_quantity.quantity,
        )
        line = _to_line(offers[0], stock_quantity)
        # the reservation has one line, because the attack orders one product
        await self.replace_lines(replace(reservation, lines=(line,)))
        return line


def _to_line(offer: ProductOffer, stock_quantity: StockQuantity) -> ReservationLine:
    return ReservationLine(
        warehouse_id=stock_quantity.warehouse_id,
        quantity=stock_quantity.quantity,
        **{name: getattr(offer, name) for name in ProductOffer.model_fields if name != "available"},
    )
