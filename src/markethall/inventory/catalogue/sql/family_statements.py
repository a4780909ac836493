"""The statement that summarizes a family."""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by

from markethall.inventory.catalogue.contract.products import MAX_OPTION_VALUES
from markethall.inventory.catalogue.sql.statements import current_amount
from markethall.inventory.catalogue.sql.tables import ACTIVE, products
from markethall.shared.persistence.postgres import Statement

_members: Final = (
    sa.select(
        products.c.product_id,
        # products of one import batch have the same created_at, so the id makes the order unique
        sa.func.row_number()
        .over(order_by=[products.c.created_at, products.c.product_id])
        .label("row_rank"),
        products.c.options,
        products.c.option_keys,
        products.c.price_currency.collate("C").label("currency"),
        current_amount(products).label("amount"),
    )
    .where(products.c.status == ACTIVE, products.c.family == bindparam("family"))
    .cte("members")
)


def _typed_null(kind: Any) -> "sa.ColumnElement[Any]":
    return sa.cast(sa.null(), kind)


def _option_values() -> "sa.Select[Any]":
    """Select the first MAX_OPTION_VALUES values of each option, sorted by their first product.

    Each row also has all options of this product as JSON text. The caller reads the spelling of
    the option's name and value from it, because the row itself has only their keys.
    """
    pair = sa.func.jsonb_each_text(_members.c.option_keys).table_valued("key", "value")
    pair = pair.render_derived(name="pair")
    first = sa.func.min(_members.c.row_rank)
    number = sa.func.row_number().over(partition_by=pair.c.key, order_by=first)
    options = sa.cast(_members.c.options, sa.Text)
    in_order = sa.func.array_agg(
        aggregate_order_by(options, _members.c.row_rank), type_=ARRAY(sa.Text)
    )
    values = (
        sa.select(pair.c.key, in_order[1].label("options"), number.label("number"))
        .select_from(sa.join(_members, pair, sa.true()))
        .group_by(pair.c.key, pair.c.value)
        .subquery("numbered")
    )
    return sa.select(
        values.c.key.label("name"),
        values.c.options,
        _typed_null(sa.Text).label("currency"),
        _typed_null(sa.BigInteger).label("lowest"),
        _typed_null(sa.BigInteger).label("highest"),
        values.c.number,
    ).where(values.c.number <= sa.literal_column(str(MAX_OPTION_VALUES), sa.BigInteger))


def _price_ranges() -> "sa.Select[Any]":
    return sa.select(
        _typed_null(sa.Text),
        _typed_null(sa.Text),
        _members.c.currency,
        sa.func.min(_members.c.amount),
        sa.func.max(_members.c.amount),
        sa.func.count(),
    ).group_by(_members.c.currency)


GET_FAMILY_SUMMARY: Final = Statement(
    sa.union_all(_option_values(), _price_ranges()).order_by(
        sa.literal_column("currency"), sa.literal_column("number")
    )
)
