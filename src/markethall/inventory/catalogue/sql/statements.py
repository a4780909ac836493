"""SQL statements of products. Those of product lists are in the sub-domain `search`."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.sql.selectable import LateralFromClause

from markethall.inventory.catalogue.sql.expressions import (
    NOW,
    available_quantity,
    new_values,
    read_columns,
    text_parameter,
    texts_parameter,
)
from markethall.inventory.catalogue.sql.tables import ACTIVE, ARCHIVED, products, vocabulary
from markethall.shared.persistence.postgres import Statement, sql_literal

# the columns that `product_json_text` reads, and the product id
PAGE_COLUMNS: Final = [
    products.c[name]
    for name in (
        "product_id",
        "product_json",
        "has_scheduled_price",
        "price_amount",
        "compare_at",
        "price_currency",
        "prices",
    )
]


def price_arguments(rows: "sa.FromClause") -> list[Any]:
    """Return the arguments of the SQL functions `price_at` and `scheduled_price_json`."""
    return [rows.c.price_amount, rows.c.compare_at, rows.c.price_currency, rows.c.prices, NOW]


def current_amount(rows: "sa.FromClause") -> "sa.ColumnElement[int]":
    """Compute the current price in minor units.

    Call the SQL function `price_at` only for products that have a scheduled price.
    """
    scheduled = sa.func.inventory.price_at(*price_arguments(rows), type_=JSONB)["amount"].astext
    return sa.case(
        (rows.c.has_scheduled_price, sa.cast(scheduled, sa.BigInteger)), else_=rows.c.price_amount
    )


def price_in(
    rows: "sa.FromClause", currency: "sa.ColumnElement[str]"
) -> tuple["sa.ColumnElement[int]", "sa.ColumnElement[str]"]:
    """Compute the current price in a currency, as the columns `price_amount`, `price_currency`.

    Without a price in this currency, or if `currency` is null, use the price in the product's own
    currency.
    """
    other = sa.func.inventory.price_at(
        sa.null(), sa.null(), currency, rows.c.prices, NOW, type_=JSONB
    )["amount"].astext
    is_own = sa.func.coalesce(currency == rows.c.price_currency, sa.true())
    own = current_amount(rows)
    amount = sa.case((is_own, own), else_=sa.func.coalesce(sa.cast(other, sa.BigInteger), own))
    found = sa.case((sa.or_(is_own, other.is_(None)), rows.c.price_currency), else_=currency)
    return amount.label("price_amount"), found.label("price_currency")


def product_json_text(
    rows: "sa.FromClause", availability: LateralFromClause
) -> "sa.ColumnElement[str]":
    """Append the scheduled price, `available` and the closing brace to the stored JSON.

    `rows` must have PAGE_COLUMNS.
    """
    scheduled = rows.c.product_json + sa.func.inventory.scheduled_price_json(
        *price_arguments(rows), type_=sa.Text
    )
    with_price = sa.case((rows.c.has_scheduled_price, scheduled), else_=rows.c.product_json)
    available_text = sa.cast(availability.c.available, sa.Text)
    return with_price + sql_literal(',"available":') + available_text + sql_literal("}")


_availability: Final = available_quantity(products)
_select_product_json: Final = sa.select(
    products.c.version, products.c.status, product_json_text(products, _availability).label("json")
).select_from(products.join(_availability, sa.true()))

GET_PRODUCT_JSON: Final = Statement(
    _select_product_json.where(products.c.product_id == bindparam("product_id"))
)
GET_PRODUCT_JSON_BY_SKU: Final = Statement(
    _select_product_json.where(products.c.sku_key == text_parameter("sku_key"))
)
COUNT_PRODUCTS: Final = Statement(
    sa.select(sa.func.count()).select_from(products).where(products.c.status == ACTIVE)
)

# all columns except those that Postgres computes or triggers write
WRITABLE_COLUMNS: Final = [
    column
    for column in products.c
    if column.computed is None and column.name not in {"product_json", "has_scheduled_price"}
]
_new_product: Final = (
    insert(products)
    .values({column.name: bindparam(column.name) for column in WRITABLE_COLUMNS})
    .on_conflict_do_nothing()
    .returning(products.c.product_id)
    .cte("new_product")
)


def insert_new_words(*where: "sa.ColumnElement[bool]") -> "sa.CTE":
    """Insert the words of the bind parameter `vocabulary` that are not in the table.

    They are inserted in sorted order, because transactions that insert the same words in different
    orders could deadlock.
    """
    words = sa.func.unnest(texts_parameter("vocabulary")).table_valued("word")
    words = words.render_derived(name="words")
    word = words.c.word
    known = sa.exists().where(vocabulary.c.word == word).correlate(words)
    return (
        insert(vocabulary)
        .from_select(["word"], sa.select(word).where(~known, *where).order_by(word))
        .on_conflict_do_nothing()
        .cte("new_words")
    )


ADD_PRODUCT: Final = Statement(
    sa.select(_new_product.c.product_id).add_cte(
        insert_new_words(sa.exists().select_from(_new_product))
    )
)
PRODUCT_COLUMNS: Final = read_columns(
    WRITABLE_COLUMNS, "search", "sku_key", "name_key", "option_keys", "tag_keys", "attribute_keys"
)
# FOR NO KEY UPDATE, so that inserts of stock rows and reservation lines that refer to the product
# do not wait
GET_PRODUCT_FOR_UPDATE: Final = Statement(
    sa.select(*PRODUCT_COLUMNS)
    .where(products.c.product_id == bindparam("product_id"))
    .with_for_update(key_share=True)
)
LIST_PRODUCTS_OF_FAMILY_FOR_UPDATE: Final = Statement(
    sa.select(*PRODUCT_COLUMNS)
    .where(products.c.family == text_parameter("label"), products.c.status != ARCHIVED)
    .order_by(products.c.product_id)
    .with_for_update(key_share=True)
)
SAVE_PRODUCT: Final = Statement(
    sa.update(products)
    .where(products.c.product_id == bindparam("product_id"))
    .values(new_values(WRITABLE_COLUMNS, "product_id", "created_at"))
    .add_cte(insert_new_words())
)
