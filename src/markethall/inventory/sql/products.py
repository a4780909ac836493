"""Statements on products. A list has one statement per set of filters."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by, insert
from sqlalchemy.sql.selectable import LateralFromClause

from markethall.inventory.contract import ProductStatus
from markethall.inventory.sql.parameters import IDS, LIMIT, ZERO, available, uuid
from markethall.inventory.sql.tables import ACTIVE, products, stock
from markethall.shared.db import Statement, constant


def _json(face: "sa.ColumnElement[str]", shelf: LateralFromClause) -> "sa.ColumnElement[str]":
    """The face, closed with what is available."""
    units = sa.cast(shelf.c.available, sa.Text)
    return face + constant(',"available":') + units + constant("}")


_shelf: Final = available(products)
_card: Final = sa.select(
    products.c.version, products.c.status, _json(products.c.face, _shelf).label("json")
).select_from(products.join(_shelf, sa.true()))

CARD: Final = Statement(_card.where(products.c.product_id == bindparam("of")))
CARD_BY_SKU: Final = Statement(
    _card.where(sa.func.lower(products.c.sku) == sa.func.lower(bindparam("of", type_=sa.Text)))
)

_pattern: Final = bindparam("q", type_=sa.Text)
_FILTERS: Final[Mapping[str, "sa.ColumnElement[bool]"]] = {
    "category": products.c.category == bindparam("category"),
    "family": products.c.family == bindparam("family"),
    "tag": products.c.tags.contains(bindparam("tag", type_=ARRAY(sa.Text))),
    "min_price": products.c.price_amount >= bindparam("min_price"),
    "max_price": products.c.price_amount <= bindparam("max_price"),
    "in_stock": (_shelf.c.available > 0) == bindparam("in_stock", type_=sa.Boolean),
    "q": sa.or_(
        products.c.name.ilike(_pattern, escape="\\"), products.c.sku.ilike(_pattern, escape="\\")
    ),
}
_SIZES: Final = (20, 50, 100)
_KEYS: Final[Mapping[str, "sa.Column[Any]"]] = {
    "name": products.c.name_key,
    "price": products.c.price_amount,
    "created_at": products.c.created_at,
}


class Shape(NamedTuple):
    """What makes one list's statement another than the next one's."""

    filters: frozenset[str]
    status: ProductStatus
    sort: str
    size: int
    after: bool

    @property
    def key(self) -> "sa.Column[Any]":
        return _KEYS[self.sort.removeprefix("-")]

    @property
    def falling(self) -> bool:
        return self.sort.startswith("-")

    def order(self, rows: Any, key: Any) -> list[Any]:
        direction = sa.desc if self.falling else sa.asc
        return [direction(key), direction(rows.c.product_id)]


def page(
    filters: Iterable[str], status: ProductStatus, sort: str, limit: int, *, after: bool
) -> Statement:
    """A page in one row: its cards' JSON joined by commas, is there more, where it ends.

    One statement per set of filters and size of page, so that Postgres sees just what is asked,
    and plans it once: with a limit that it does not know it would plan anew each time.
    """
    size = next(size for size in _SIZES if limit <= size)
    return _page(Shape(frozenset(filters), status, sort, size, after))


@cache
def _page(shape: Shape) -> Statement:
    row = _numbered(shape)
    joined = sa.func.string_agg(row.c.json, aggregate_order_by(constant(","), row.c.number))
    last = row.c.number == LIMIT
    return Statement(
        sa.select(
            joined.filter(row.c.number <= LIMIT).label("json"),
            (sa.func.count() > LIMIT).label("more"),
            sa.func.max(row.c.key).filter(last).label("key"),
            sa.func.max(sa.cast(row.c.product_id, sa.Text)).filter(last).label("id"),
        )
    )


def _numbered(shape: Shape) -> "sa.Subquery":
    found = _found(shape)
    shelf = available(found)
    number = sa.func.row_number().over(order_by=shape.order(found, found.c.key))
    return (
        sa.select(found, _json(found.c.face, shelf).label("json"), number.label("number"))
        .select_from(found.join(shelf, sa.true()))
        .subquery("numbered")
    )


def _found(shape: Shape) -> "sa.Subquery":
    """One more than the page holds. What is available is asked here only to filter by it."""
    query = sa.select(products.c.product_id, products.c.face, shape.key.label("key"))
    if "in_stock" in shape.filters:
        query = query.select_from(products.join(_shelf, sa.true()))
    query = query.where(products.c.status == constant(shape.status))
    query = query.where(*(_FILTERS[name] for name in sorted(shape.filters)))
    if shape.after:
        place = sa.tuple_(shape.key, products.c.product_id)
        last = sa.tuple_(bindparam("key", type_=shape.key.type), uuid("id"))
        query = query.where(place < last if shape.falling else place > last)
    query = query.order_by(*shape.order(products, shape.key))
    return query.limit(sa.literal_column(str(shape.size + 1), sa.Integer)).subquery("found")


CATEGORIES: Final = Statement(
    sa.select(products.c.category, sa.func.count().label("product_count"))
    .where(
        products.c.status == ACTIVE,
        products.c.category.collate("C") > bindparam("after", type_=sa.Text),
    )
    .group_by(products.c.category)
    .order_by(products.c.category.collate("C"))
    .limit(LIMIT)
)
COUNT: Final = Statement(
    sa.select(sa.func.count()).select_from(products).where(products.c.status == ACTIVE)
)

_written: Final = [
    column for column in products.c if column.computed is None and column.name != "face"
]
_new_product: Final = (
    insert(products)
    .values({column.name: bindparam(column.name) for column in _written})
    .on_conflict_do_nothing()
    .returning(products.c.product_id)
    .cte("new_product")
)
ADD: Final = Statement(
    insert(stock)
    .from_select(
        ["product_id", "warehouse_id", "on_hand", "reserved"],
        sa.select(_new_product.c.product_id, uuid("main"), ZERO, ZERO),
    )
    .returning(stock.c.product_id)
)
# JSON as text, whatever codec the connection has
_read: Final = [
    sa.cast(column, sa.Text).label(column.name) if isinstance(column.type, JSONB) else column
    for column in _written
]
ITEM: Final = Statement(
    sa.select(*_read).where(products.c.product_id == bindparam("of")).with_for_update()
)
SAVE: Final = Statement(
    sa.update(products)
    .where(products.c.product_id == bindparam("of"))
    .values(
        {
            column.name: bindparam(f"new_{column.name}")
            for column in _written
            if column.name not in {"product_id", "created_at"}
        }
    )
)
STANDING: Final = Statement(
    sa.select(products.c.product_id, products.c.status, _shelf.c.available)
    .select_from(products.join(_shelf, sa.true()))
    .where(products.c.product_id == sa.any_(IDS))
)
