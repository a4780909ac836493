"""Statements on products. A list has one statement per set of filters."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from markethall.inventory.contract import ProductStatus
from markethall.inventory.sql.parameters import AVAILABLE, IDS, LIMIT, uuid
from markethall.inventory.sql.tables import ACTIVE, products, stock
from markethall.shared.db import Statement, constant


def _time(column: "sa.Column[Any]") -> "sa.ColumnElement[str]":
    utc = sa.func.timezone(constant("UTC"), column)
    return sa.func.to_char(utc, constant('YYYY-MM-DD"T"HH24:MI:SS.US"Z"')).label(column.name)


def _price() -> "sa.ColumnElement[Any]":
    return sa.func.json_build_object(
        constant("amount"),
        products.c.price_amount,
        constant("currency"),
        products.c.price_currency,
    ).label("price")


# the fields of contract.Product, in its order
_face: Final = (
    sa.select(
        products.c.product_id,
        products.c.sku,
        products.c.name,
        products.c.description,
        _price(),
        products.c.category,
        products.c.family,
        products.c.options,
        products.c.tags,
        products.c.images,
        products.c.attributes,
        products.c.status,
        AVAILABLE.c.available,
        products.c.version,
        _time(products.c.created_at),
        _time(products.c.updated_at),
    )
    .correlate(products, AVAILABLE)
    .lateral("face")
)


def _cards(key: "sa.ColumnElement[Any] | None" = None) -> "sa.Select[Any]":
    return sa.select(
        products.c.product_id,
        products.c.version,
        products.c.status,
        sa.cast(sa.func.row_to_json(_face.table_valued()), sa.Text).label("json"),
        (sa.null() if key is None else key).label("key"),
    ).select_from(products.join(AVAILABLE, sa.true()).join(_face, sa.true()))


CARD: Final = Statement(_cards().where(products.c.product_id == bindparam("of")))
CARD_BY_SKU: Final = Statement(
    _cards().where(sa.func.lower(products.c.sku) == sa.func.lower(bindparam("of", type_=sa.Text)))
)

_pattern: Final = bindparam("q", type_=sa.Text)
_FILTERS: Final[Mapping[str, "sa.ColumnElement[bool]"]] = {
    "category": products.c.category == bindparam("category"),
    "family": products.c.family == bindparam("family"),
    "tag": products.c.tags.contains(bindparam("tag", type_=ARRAY(sa.Text))),
    "min_price": products.c.price_amount >= bindparam("min_price"),
    "max_price": products.c.price_amount <= bindparam("max_price"),
    "in_stock": (AVAILABLE.c.available > 0) == bindparam("in_stock", type_=sa.Boolean),
    "q": sa.or_(
        products.c.name.ilike(_pattern, escape="\\"), products.c.sku.ilike(_pattern, escape="\\")
    ),
}
_KEYS: Final[Mapping[str, "sa.ColumnElement[Any]"]] = {
    "name": products.c.name_key,
    "price": products.c.price_amount,
    "created_at": products.c.created_at,
}


@cache
def cards(filters: frozenset[str], status: ProductStatus, sort: str, *, after: bool) -> Statement:
    """One statement per set of filters: the planner sees just what is asked."""
    key = _KEYS[sort.removeprefix("-")]
    place = sa.tuple_(key, products.c.product_id)
    last = sa.tuple_(bindparam("key", type_=key.type), uuid("id"))
    falling = sort.startswith("-")
    query = _cards(key).where(products.c.status == constant(status))
    query = query.where(*(_FILTERS[name] for name in sorted(filters)))
    if after:
        query = query.where(place < last if falling else place > last)
    direction: Callable[[Any], Any] = sa.desc if falling else sa.asc
    return Statement(query.order_by(*map(direction, place)).limit(LIMIT))


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

_written: Final = [column for column in products.c if column.computed is None]
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
        sa.select(_new_product.c.product_id, uuid("main"), sa.literal(0), sa.literal(0)),
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
    sa.select(products.c.product_id, products.c.status, AVAILABLE.c.available)
    .select_from(products.join(AVAILABLE, sa.true()))
    .where(products.c.product_id == sa.any_(IDS))
)
