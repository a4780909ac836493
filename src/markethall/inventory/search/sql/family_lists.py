"""The family list: the product list, with only the first matching product of each family.

So families have the filters and sorts of products. A family has the position of its first matching
product. With the sort by ascending price, this is its cheapest matching product.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from markethall.inventory.catalogue.sql.expressions import integer_literal
from markethall.inventory.catalogue.sql.tables import ACTIVE, ARCHIVED, families, products
from markethall.inventory.search.sql.statements import score_expression, select_matching


def is_first_of_family(
    rows: Any,
    keys: "Sequence[sa.ColumnElement[Any]]",
    sort_column: "sa.Column[Any]",
    filters: Iterable[str],
    *,
    terms: int,
    is_descending: bool,
) -> "sa.ColumnElement[bool]":
    """Tell whether no matching product of the same family comes before the row in the list.

    `rows` has the column `family`, and `keys` are its sort keys: the score if `terms` is greater
    than 0, the value of `sort_column`, and the product id. A row of an archived family is never the
    first.

    The conditions are scalar subqueries, because Postgres may execute NOT EXISTS as a hash join,
    which would read all products for one page.
    """
    member = products.alias("member")
    member_keys: list[sa.ColumnElement[Any]] = [
        member.c[sort_column.name],
        member.c.product_id,
    ]
    if terms:
        member_keys.insert(0, score_expression(terms, member))
    before = (
        sa.tuple_(*member_keys) > sa.tuple_(*keys)
        if is_descending
        else sa.tuple_(*member_keys) < sa.tuple_(*keys)
    )
    earlier = (
        select_matching(member, filters, sa.false())
        .where(member.c.family == rows.c.family, member.c.status == ACTIVE, before)
        .limit(integer_literal(1))
        .correlate(rows)
        .scalar_subquery()
    )
    archived = (
        sa.select(sa.false())
        .where(families.c.label == rows.c.family, families.c.status == ARCHIVED)
        .limit(integer_literal(1))
        .correlate(rows)
        .scalar_subquery()
    )
    return sa.and_(sa.func.coalesce(earlier, sa.true()), sa.func.coalesce(archived, sa.true()))
