"""The rules of the shelf: no framework, no database, no clock."""

from markethall.inventory.domain.holds import (
    COMMITTED,
    CONSUMED,
    EXPIRED,
    HELD,
    RELEASED,
    Hold,
    Line,
    closed,
)
from markethall.inventory.domain.items import Item
from markethall.inventory.domain.stock import (
    MAIN_WAREHOUSE,
    Change,
    Goods,
    Missing,
    Shortage,
    Stock,
    check_adjustment,
    goods_of,
    not_enough,
    summed,
    too_few,
)

__all__ = [
    "COMMITTED",
    "CONSUMED",
    "EXPIRED",
    "HELD",
    "MAIN_WAREHOUSE",
    "RELEASED",
    "Change",
    "Goods",
    "Hold",
    "Item",
    "Line",
    "Missing",
    "Shortage",
    "Stock",
    "check_adjustment",
    "closed",
    "goods_of",
    "not_enough",
    "summed",
    "too_few",
]
