"""The SQL statement that counts facets.

The statement reads the matching products once for all parts with the same filters. In this scan,
GROUPING SETS count the products for each distinct category, list of tags, set of options and set of
attributes. There are far fewer distinct sets than products, so the sets are split into single
values only after this first count.

For the family list, each of these rows also has the numbers of the families of its products. A
family counts once for each value. So after the split, the families of each value are collected in
bit masks, 64 families in each, and the bits are counted. A product without a family counts like a
product in the product list.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BIT

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.catalogue.sql.expressions import integer_literal, texts_parameter
from markethall.inventory.catalogue.sql.tables import ARCHIVED, categories, families, products
from markethall.inventory.search.contract import MAX_FACET_NAMES, MAX_FACET_VALUES
from markethall.inventory.search.sql.statements import select_matching
from markethall.shared.persistence.postgres import Statement, sql_literal

# the column by which the products of a facet are grouped
_GROUPED_COLUMNS: Final = {
    "category": "category",
    "tag": "tag_keys",
    "options": "option_keys",
    "attributes": "attribute_keys",
}
_MAX_CACHED_STATEMENTS: Final = 256
# the lowest bits of the number of a family select its bit in a mask of 64 bits
_BITS_OF_NUMBER: Final = 6


class FacetPartShape(NamedTuple):
    """The properties of a FacetPart that determine the text of its statement.

    `filters` names the filters that the products match. A filter by option is named `option`. If
    the part ignores one of the names, it is named `option_N`, and so is its bind parameter. The
    same holds for attributes. `names` is empty, `only` or `other`. With `only`, the parameter
    `names_N` has the names to count; with `other`, the names not to count.
    """

    facet: str
    filters: frozenset[str]
    number: int
    names: str


@lru_cache(_MAX_CACHED_STATEMENTS)
def count_facets(
    parts: tuple[FacetPartShape, ...], status: ProductStatus, *, of_families: bool = False
) -> Statement:
    """Build a statement that returns the most frequent values of each part.

    With `of_families`, it counts families that are not archived, instead of products.
    Its columns are: number of the part, key of the name, key of the value, count, id of the first
    product, and the text that this product has: its category, its tag, or all its options or
    attributes as JSON. Categories have no first product.
    """
    facets_by_filters: dict[frozenset[str], list[str]] = {}
    for part in parts:
        facets = facets_by_filters.setdefault(part.filters, [])
        if part.facet not in facets:
            facets.append(part.facet)
    groups = {
        filters: _group_products(number, facets, filters, status, of_families=of_families)
        for number, (filters, facets) in enumerate(facets_by_filters.items())
    }
    selects = [
        _select_part(part, groups[part.filters], facets_by_filters[part.filters]) for part in parts
    ]
    return Statement(sa.union_all(*selects))


def _group_products(
    number: int,
    facets: Sequence[str],
    filters: frozenset[str],
    status: ProductStatus,
    *,
    of_families: bool,
) -> "sa.CTE":
    """Count the matching products by each of the columns of the facets.

    The column `grouping` identifies the column by which a row is grouped, see `_is_grouped_by`.
    With `of_families`, `count` counts the products without a family, and the column
    `family_numbers` has the family of each other product, with duplicates.
    """
    names = [_GROUPED_COLUMNS[facet] for facet in facets]
    shown = [products.c.product_id, *(products.c[name] for name in names)]
    if of_families:
        shown.append(products.c.family)
    query = select_matching(products, filters, *shown).where(
        products.c.status == sql_literal(status)
    )
    matched = query.subquery(f"matched_{number}")
    if of_families:
        matched = _with_family_number(matched).subquery(f"members_{number}")
    columns = [matched.c[name] for name in names]
    # compared as text, because not all supported versions of Postgres have min(uuid)
    first = sa.func.min(sa.collate(sa.cast(matched.c.product_id, sa.Text), "C"))
    return (
        sa.select(
            *columns,
            *(_counts_of_families(matched) if of_families else [sa.func.count().label("count")]),
            sa.func.grouping(*columns).label("grouping"),
            first.label("first"),
        )
        .group_by(sa.func.grouping_sets(*(sa.tuple_(column) for column in columns)))
        .cte(f"groups_{number}")
        .prefix_with("MATERIALIZED")
    )


def _with_family_number(matched: "sa.Subquery") -> "sa.Select[Any]":
    """Add the column `family_number`, which is null for a product without a family.

    Leave out the products of archived families.
    """
    return (
        sa.select(matched, families.c.number.label("family_number"))
        .outerjoin_from(matched, families, families.c.label == matched.c.family)
        .where(families.c.status.is_distinct_from(ARCHIVED))
    )


def _counts_of_families(members: "sa.Subquery") -> Sequence["sa.ColumnElement[Any]"]:
    number = members.c.family_number
    numbers = sa.func.array_agg(number, type_=ARRAY(sa.BigInteger)).filter(number.is_not(None))
    return (
        sa.func.count().filter(number.is_(None)).label("count"),
        numbers.label("family_numbers"),
    )


def _once_per_family(pairs: "sa.Select[Any]", groups: "sa.CTE", name: str) -> "sa.Subquery":
    """Combine equal values to one, and add the number of their families to the count.

    `pairs` selects the name, the value, the count and the first product of each value in each
    group. Return these rows unchanged if the groups have no `family_numbers`.
    """
    if "family_numbers" not in groups.c:
        return pairs.subquery(name)
    # a number for each pair of name and value, because numbers are compared faster than texts
    number = sa.func.dense_rank().over(order_by=[pairs.selected_columns[each] for each in (0, 1)])
    rows = pairs.add_columns(groups.c.family_numbers, number.label("number")).cte(
        f"numbered_{name}"
    )
    families_of_value = _count_families(rows, name)
    return (
        sa.select(
            rows.c.name,
            rows.c.value,
            # `families_of_value` has no row for a value whose products have no family
            (
                _sum(rows.c["count"])
                + sa.func.coalesce(sa.func.max(families_of_value.c["count"]), integer_literal(0))
            ).label("count"),
            sa.func.min(rows.c.first).label("first"),
        )
        .outerjoin_from(rows, families_of_value, families_of_value.c.number == rows.c.number)
        .group_by(rows.c.name, rows.c.value)
        .subquery(name)
    )


def _count_families(rows: "sa.CTE", name: str) -> "sa.Subquery":
    """Count the different `family_numbers` of the rows with the same `number`.

    The bit of a family is the lowest six bits of its number, and its mask the others. Adding a bit
    to one of the few masks of a value takes less time and memory than comparing with all families
    of the value.
    """
    family = sa.func.unnest(rows.c.family_numbers).label("family")
    members = sa.select(rows.c.number, family).subquery(f"families_{name}")
    bit = sa.cast(members.c.family.bitwise_and(integer_literal(2**_BITS_OF_NUMBER - 1)), sa.Integer)
    mask = sa.func.bit_or(sa.cast(integer_literal(1), sa.BigInteger).bitwise_lshift(bit))
    masks = (
        sa.select(members.c.number, sa.cast(mask, BIT(2**_BITS_OF_NUMBER)).label("mask"))
        .group_by(
            members.c.number, members.c.family.bitwise_rshift(integer_literal(_BITS_OF_NUMBER))
        )
        .subquery(f"masks_{name}")
    )
    return (
        sa.select(masks.c.number, _sum(sa.func.bit_count(masks.c.mask)).label("count"))
        .group_by(masks.c.number)
        .subquery(f"counts_{name}")
    )


def _is_grouped_by(groups: "sa.CTE", facet: str, facets: Sequence[str]) -> "sa.ColumnElement[bool]":
    # GROUPING has one bit per column, the last column the lowest; the bit is 0 in rows that are
    # grouped by the column
    bits = 2 ** len(facets) - 1 - 2 ** (len(facets) - 1 - list(facets).index(facet))
    return groups.c.grouping == integer_literal(bits)


def _select_part(part: FacetPartShape, groups: "sa.CTE", facets: Sequence[str]) -> "sa.Select[Any]":
    is_grouped = _is_grouped_by(groups, part.facet, facets)
    match part.facet:
        case "category":
            values = _categories_with_ancestors(part, groups, is_grouped)
        case "tag":
            values = _tag_counts(part, groups, is_grouped)
        case _:
            values = _label_counts(part, groups, is_grouped)
    columns = [values.c[name] for name in ("name", "value", "count", "first")]
    number = integer_literal(part.number).label("part")
    return sa.select(number, *columns, _shown_value(part.facet, values).label("shown"))


def _categories_with_ancestors(
    part: FacetPartShape, groups: "sa.CTE", is_grouped: "sa.ColumnElement[bool]"
) -> "sa.Subquery":
    """Count each category together with all categories below it."""
    found = sa.select(groups.c.category, groups.c.category.label("top")).where(
        is_grouped, groups.c.category.is_not(None)
    )
    tree = found.distinct().cte(f"with_ancestors_{part.number}", recursive=True)
    above = sa.select(tree.c.category, categories.c.parent).where(
        categories.c.category == tree.c.top, categories.c.parent.is_not(None)
    )
    tree = tree.union_all(above)
    pairs = (
        sa.select(
            sql_literal("").label("name"),
            sa.collate(tree.c.top, "C").label("value"),
            groups.c["count"],
            sql_literal("").label("first"),
        )
        .select_from(groups.join(tree, tree.c.category == groups.c.category))
        .where(is_grouped)
    )
    return _most_frequent(part, _once_per_family(pairs, groups, f"pairs_{part.number}"))


def _tag_counts(
    part: FacetPartShape, groups: "sa.CTE", is_grouped: "sa.ColumnElement[bool]"
) -> "sa.Subquery":
    tag = sa.func.unnest(groups.c.tag_keys).table_valued("value").render_derived(name="tag")
    pairs = (
        sa.select(
            sql_literal("").label("name"),
            sa.collate(tag.c.value, "C").label("value"),
            groups.c["count"],
            groups.c.first,
        )
        .select_from(groups.join(tag, sa.true()))
        .where(is_grouped)
    )
    return _most_frequent(part, _once_per_family(pairs, groups, f"pairs_{part.number}"))


def _most_frequent(part: FacetPartShape, pairs: "sa.Subquery") -> "sa.Subquery":
    """Sum the counts of each value, and keep the most frequent values."""
    count = _sum(pairs.c["count"])
    return (
        sa.select(
            sql_literal("").label("name"),
            pairs.c.value,
            count.label("count"),
            sa.func.min(pairs.c.first).label("first"),
        )
        .group_by(pairs.c.value)
        .order_by(count.desc(), pairs.c.value)
        .limit(integer_literal(MAX_FACET_VALUES))
        .subquery(f"values_{part.number}")
    )


def _label_counts(
    part: FacetPartShape, groups: "sa.CTE", is_grouped: "sa.ColumnElement[bool]"
) -> "sa.Subquery":
    """Count the most frequent values of each name, for the names that most products have."""
    column = groups.c[_GROUPED_COLUMNS[part.facet]]
    pair = sa.func.jsonb_each_text(column).table_valued("name", "value").render_derived(name="pair")
    shown: list[Any] = [sa.collate(pair.c[each], "C").label(each) for each in ("name", "value")]
    query = (
        sa.select(*shown, groups.c["count"], groups.c.first)
        .select_from(groups.join(pair, sa.true()))
        .where(is_grouped)
    )
    if part.names:
        names = texts_parameter(f"names_{part.number}")
        is_named = pair.c.name == sa.any_(names)
        query = query.where(is_named if part.names == "only" else ~is_named)
    pairs = _once_per_family(query, groups, f"pairs_{part.number}")
    name, value, count = pairs.c.name, pairs.c.value, _sum(pairs.c["count"])
    counted = (
        sa.select(
            name,
            value,
            count.label("count"),
            sa.func.min(pairs.c.first).label("first"),
            sa.func.row_number().over(partition_by=name, order_by=[count.desc(), value]).label("n"),
            sa.func.sum(count).over(partition_by=name).label("total"),
        )
        .group_by(name, value)
        .subquery(f"counted_{part.number}")
    )
    place = sa.func.dense_rank().over(order_by=[counted.c.total.desc(), counted.c.name])
    ranked = sa.select(counted, place.label("place")).subquery(f"ranked_{part.number}")
    return (
        sa.select(ranked)
        .where(
            ranked.c.n <= integer_literal(MAX_FACET_VALUES),
            ranked.c.place <= integer_literal(MAX_FACET_NAMES),
        )
        .subquery(f"values_{part.number}")
    )


def _sum(count: "sa.ColumnElement[int]") -> Any:
    # a sum of BIGINT is NUMERIC in Postgres
    return sa.cast(sa.func.sum(count), sa.BigInteger)


def _shown_value(facet: str, values: "sa.Subquery") -> "sa.ColumnElement[str]":
    if facet == "category":
        return values.c.value
    shown: sa.ColumnElement[Any]
    if facet == "tag":
        shown = products.c.tags[sa.func.array_position(products.c.tag_keys, values.c.value)]
    else:
        shown = sa.cast(products.c[facet], sa.Text)
    return (
        sa.select(shown)
        .where(products.c.product_id == sa.cast(values.c.first, sa.Uuid))
        .correlate(values)
        .scalar_subquery()
    )
