"""Statements on products; their list is in search."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.sql.selectable import LateralFromClause

from markethall.inventory.sql.parameters import NOW, ZERO, available, uuid
from markethall.inventory.sql.tables import ACTIVE, products, stock, vocabulary
from markethall.shared.db import Statement, constant

SHOWN: Final = [
    products.c[name]
    for name in (
        "product_id",
        "face",
        "timed",
        "price_amount",
        "compare_at",
        "price_currency",
        "prices",
    )
]


def price_now(of: "sa.FromClause") -> list[Any]:
    """What the price functions of the schema are asked with."""
    return [of.c.price_amount, of.c.compare_at, of.c.price_currency, of.c.prices, NOW]


def amount_now(of: "sa.FromClause") -> "sa.ColumnElement[int]":
    """The price that holds. Only a timed one costs the function."""
    timed = sa.func.inventory.price_at(*price_now(of), type_=JSONB)["amount"].astext
    return sa.case((of.c.timed, sa.cast(timed, sa.BigInteger)), else_=of.c.price_amount)


def card_json(of: "sa.FromClause", shelf: LateralFromClause) -> "sa.ColumnElement[str]":
    """The face of a row with all that is SHOWN, closed with the price if it is timed, and with
    what is available.
    """
    timed = of.c.face + sa.func.inventory.timed_price(*price_now(of), type_=sa.Text)
    priced = sa.case((of.c.timed, timed), else_=of.c.face)
    units = sa.cast(shelf.c.available, sa.Text)
    return priced + constant(',"available":') + units + constant("}")


_shelf: Final = available(products)
_card: Final = sa.select(
    products.c.version, products.c.status, card_json(products, _shelf).label("json")
).select_from(products.join(_shelf, sa.true()))

CARD: Final = Statement(_card.where(products.c.product_id == bindparam("of")))
CARD_BY_SKU: Final = Statement(
    _card.where(sa.func.lower(products.c.sku) == sa.func.lower(bindparam("of", type_=sa.Text)))
)
COUNT: Final = Statement(
    sa.select(sa.func.count()).select_from(products).where(products.c.status == ACTIVE)
)

# all but what the database writes itself
WRITTEN: Final = [
    column
    for column in products.c
    if column.computed is None and column.name not in {"face", "timed"}
]
_new_product: Final = (
    insert(products)
    .values({column.name: bindparam(column.name) for column in WRITTEN})
    .on_conflict_do_nothing()
    .returning(products.c.product_id)
    .cte("new_product")
)


def learnt(*where: "sa.ColumnElement[bool]") -> "sa.CTE":
    """The new words among `vocabulary`; in order, for whoever writes the same waits for us."""
    words = sa.func.unnest(bindparam("vocabulary", type_=ARRAY(sa.Text))).table_valued("word")
    words = words.render_derived(name="words")
    word = words.c.word
    known = sa.exists().where(vocabulary.c.word == word).correlate(words)
    return (
        insert(vocabulary)
        .from_select(["word"], sa.select(word).where(~known, *where).order_by(word))
        .on_conflict_do_nothing()
        .cte("learnt")
    )


ADD: Final = Statement(
    insert(stock)
    .from_select(
        ["product_id", "warehouse_id", "on_hand", "reserved"],
        sa.select(_new_product.c.product_id, uuid("main"), ZERO, ZERO),
    )
    .add_cte(learnt(sa.exists().select_from(_new_product)))
    .returning(stock.c.product_id)
)
# JSON as text, whatever codec the connection has
ITEM_COLUMNS: Final = [
    sa.cast(column, sa.Text).label(column.name) if isinstance(column.type, JSONB) else column
    for column in WRITTEN
    if column.name != "search"
]
# its shelves refer to it meanwhile: who takes from them must not wait for who waits for them
ITEM: Final = Statement(
    sa.select(*ITEM_COLUMNS)
    .where(products.c.product_id == bindparam("of"))
    .with_for_update(key_share=True)
)
SAVE: Final = Statement(
    sa.update(products)
    .where(products.c.product_id == bindparam("of"))
    .values(
        {
            column.name: bindparam(f"new_{column.name}")
            for column in WRITTEN
            if column.name not in {"product_id", "created_at"}
        }
    )
    .add_cte(learnt())
)
