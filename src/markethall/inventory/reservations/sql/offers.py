"""The read of the offers of products: their current prices and availability."""

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from markethall.inventory.catalogue.sql.expressions import PRODUCT_IDS, available_quantity
from markethall.inventory.catalogue.sql.tables import ACTIVE, products
from markethall.inventory.contract import ProductOffer
from markethall.inventory.reservations.sql.statements import PRODUCT_SNAPSHOT
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.postgres import Statement

if TYPE_CHECKING:
    from asyncpg.protocol import Record

_availability: Final = available_quantity(products)
LIST_OFFERS: Final = Statement(
    sa.select(products.c.product_id, *PRODUCT_SNAPSHOT, _availability.c.available)
    .select_from(products.join(_availability, sa.true()))
    .where(products.c.product_id == sa.any_(PRODUCT_IDS), products.c.status == ACTIVE)
    .order_by(products.c.product_id)
)


def to_offer(row: "Record") -> ProductOffer:
    price = Money(amount=row["price_amount"], currency=row["price_currency"])
    return ProductOffer(**dict(row) | {"unit_price": price})
