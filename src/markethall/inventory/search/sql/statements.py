"""SQL of search: filters, scores, spelling suggestions, and the first product of each family.

The family list is the product list, with only the first matching product of each family. So
families have the filters and sorts of products. A family has the position of its first matching
product. With the sort by ascending price, this is its cheapest matching product.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import ARRAY, JSONPATH, TSQUERY, aggregate_order_by

from markethall.inventory.catalogue.domain.search_document import FIELD_WEIGHTS
from markethall.inventory.catalogue.sql.category_store import SUBTREE
from markethall.inventory.catalogue.sql.expressions import (
    WEIGHT_LETTERS,
    available_quantity,
    integer_literal,
    text_parameter,
    texts_parameter,
)
from markethall.inventory.catalogue.sql.statements import product_json_text
from markethall.inventory.catalogue.sql.tables import (
    ACTIVE,
    ARCHIVED,
    families,
    family_slugs,
    products,
    vocabulary,
)
from markethall.inventory.search.domain import EXACT_SKU_SCORE, MAX_CANDIDATES, MAX_EDIT_DISTANCE
from markethall.shared.persistence.postgres import Statement, sql_literal

_FILTERS: Final[Mapping[str, Callable[[Any], "sa.ColumnElement[bool]"]]] = {
    "category": lambda rows: rows.c.category == sa.any_(SUBTREE),
    "family": lambda rows: rows.c.family == _label_of_family(),
    "tag": lambda rows: rows.c.tag_keys.overlap(texts_parameter("tag")),
    "min_price": lambda rows: rows.c.price_amount >= bindparam("min_price"),
    "max_price": lambda rows: rows.c.price_amount <= bindparam("max_price"),
    "tsquery": lambda rows: _matches(rows.c.search, "tsquery", TSQUERY),
    "name_tsquery": lambda rows: _matches(rows.c.search, "name_tsquery", TSQUERY),
}
_LABEL_COLUMNS: Final = {"option": "option_keys", "attribute": "attribute_keys"}


def _label_of_family() -> "sa.ScalarSelect[str]":
    """Select the label of the family whose `label_key`, slug or former slug is `family`."""
    is_label = families.c.label_key == text_parameter("family")
    by_label = sa.select(families.c.label, integer_literal(0).label("rank")).where(is_label)
    by_slug = (
        sa.select(families.c.label, integer_literal(1))
        .join_from(family_slugs, families, families.c.family_id == family_slugs.c.family_id)
        .where(family_slugs.c.slug == text_parameter("family"))
    )
    found = sa.union_all(by_label, by_slug).subquery("named_family")
    return sa.select(found.c.label).order_by(found.c.rank).limit(1).scalar_subquery()


def select_matching(rows: Any, filters: Iterable[str], *columns: Any) -> "sa.Select[Any]":
    """Select the rows that pass the filters.

    The availability is computed only if `in_stock` is one of the filters.
    """
    query = sa.select(*columns)
    if "in_stock" in filters:
        availability = available_quantity(rows)
        query = query.select_from(rows.join(availability, sa.true()))
        requested = bindparam("in_stock", type_=sa.Boolean)
        query = query.where((availability.c.available > integer_literal(0)) == requested)
    return query.where(*(_condition(rows, name) for name in sorted(filters) if name != "in_stock"))


def _condition(rows: Any, name: str) -> "sa.ColumnElement[bool]":
    """Return the condition of a filter. `option_N` is a filter by option, like `option`."""
    kind = name.partition("_")[0]
    if kind in _LABEL_COLUMNS:
        return _matches(rows.c[_LABEL_COLUMNS[kind]], name, JSONPATH)
    return _FILTERS[name](rows)


def _matches(column: "sa.ColumnElement[Any]", name: str, query: Any) -> "sa.ColumnElement[bool]":
    """Tell whether the column matches a bind parameter of this type of query."""
    return sa.type_coerce(column.op("@@")(bindparam(name, type_=query)), sa.Boolean)


def select_by_sku() -> "sa.Select[tuple[Any]]":
    """Select the product whose SKU equals the text of the query."""
    is_whole_query = products.c.sku_key == text_parameter("sku")
    return sa.select(products.c.product_id).where(is_whole_query).correlate(None)


def score_expression(terms: int, rows: Any = products) -> "sa.ColumnElement[int]":
    """Compute the same score as `SearchQuery.score`, for a product that has all terms."""
    exact = rows.c.product_id == select_by_sku().scalar_subquery()
    bonus: sa.ColumnElement[int] = sa.case(
        (exact, integer_literal(EXACT_SKU_SCORE)), else_=integer_literal(0)
    )
    return sum((_term_weight(term, rows) for term in range(terms)), start=bonus)


def _term_weight(term: int, rows: Any) -> "sa.ColumnElement[int]":
    *better, (_, least) = zip(WEIGHT_LETTERS, FIELD_WEIGHTS, strict=True)
    return sa.case(
        *(
            (_matches(rows.c.search, f"{letter}{term}", TSQUERY), integer_literal(weight))
            for letter, weight in better
        ),
        else_=integer_literal(least),
    )


# Misspelt terms

HAS_TRIGRAMS: Final = Statement(
    sa.select(sa.func.to_regprocedure(sql_literal("similarity(text, text)")).is_not(None))
)


def _spelling_candidates() -> Statement:
    """Select, for each misspelt term, the most similar words of the table `search_word`.

    A term is misspelt if no word of any product begins with it.
    """
    typed = sa.func.unnest(texts_parameter("typed")).table_valued("word")
    typed = typed.render_derived(name="typed")
    word = sa.type_coerce(typed.c.word, sa.Text)
    begins = sa.cast(sql_literal("''") + word + sql_literal("'':*"), TSQUERY)
    known = sa.exists().where(products.c.search.op("@@")(begins)).correlate(typed)
    length_difference = sa.func.abs(sa.func.length(vocabulary.c.word) - sa.func.length(word))
    closest = (
        sa.select(vocabulary.c.word)
        .where(length_difference <= integer_literal(MAX_EDIT_DISTANCE))
        .order_by(sa.func.similarity(vocabulary.c.word, word).desc(), vocabulary.c.word)
        .limit(integer_literal(MAX_CANDIDATES))
        .correlate(typed)
        .lateral("near")
    )
    return Statement(
        sa.select(word.label("typed"), closest.c.word.label("near"))
        .select_from(typed.join(closest, sa.true()))
        .where(~known)
    )


GET_SPELLING_CANDIDATES: Final = _spelling_candidates()


# Products found by an external engine


def _products_json() -> Statement:
    ids = sa.func.unnest(bindparam("product_ids", type_=ARRAY(sa.Uuid)))
    requested = ids.table_valued("product_id", with_ordinality="number").render_derived(
        name="requested"
    )
    availability = available_quantity(products)
    document = product_json_text(products, availability)
    joined = sa.func.string_agg(document, aggregate_order_by(sql_literal(","), requested.c.number))
    return Statement(
        sa.select(joined)
        .select_from(
            requested.join(products, products.c.product_id == requested.c.product_id).join(
                availability, sa.true()
            )
        )
        .where(products.c.status == ACTIVE)
    )


GET_PRODUCTS_JSON: Final = _products_json()


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
