"""SQL statements of families, and the query that summarizes their active products.

The query is a part of two statements: one reads a family, the other a page of the family list.
"""

from dataclasses import fields
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by, distinct_on, insert

from markethall.inventory.catalogue.contract.families import MAX_FAMILY_PRODUCTS
from markethall.inventory.catalogue.contract.products import MAX_OPTION_VALUES
from markethall.inventory.catalogue.domain.families import FirstMember
from markethall.inventory.catalogue.sql.expressions import (
    LIMIT,
    ZERO,
    available_quantity,
    insert_row,
    integer_literal,
    new_values,
    read_columns,
    sum_or_zero,
    text_parameter,
    texts_parameter,
    uuid_parameter,
)
from markethall.inventory.catalogue.sql.statements import (
    PAGE_COLUMNS,
    current_amount,
    product_json_text,
)
from markethall.inventory.catalogue.sql.tables import ACTIVE, families, family_slugs, products
from markethall.shared.persistence.postgres import Statement, sql_literal

FAMILY_COLUMNS: Final = read_columns(families.c, "label_key", "number")

LIST_FAMILY_NAMES: Final = Statement(
    sa.union_all(
        sa.select(families.c.label, families.c.label_key, sa.null().label("slug")).where(
            families.c.label_key == sa.any_(texts_parameter("keys"))
        ),
        sa.select(families.c.label, families.c.label_key, family_slugs.c.slug)
        .join_from(family_slugs, families, families.c.family_id == family_slugs.c.family_id)
        .where(family_slugs.c.slug == sa.any_(texts_parameter("keys"))),
    )
)
LIST_TAKEN_SLUGS: Final = Statement(
    sa.select(family_slugs.c.slug).where(family_slugs.c.slug == sa.any_(texts_parameter("slugs")))
)
LOCK_FAMILY_NAMES: Final = Statement(
    sa.select(
        sa.func.pg_advisory_xact_lock(
            sa.func.hashtextextended(sql_literal("inventory.family"), sa.literal_column("0"))
        )
    )
)


def find_family_id() -> "sa.ScalarSelect[Any]":
    """Select the id of the family with this id, slug, former slug or `label_key`."""
    by_id = sa.select(families.c.family_id, integer_literal(0).label("rank")).where(
        families.c.family_id == uuid_parameter("family_id")
    )
    by_slug = sa.select(family_slugs.c.family_id, integer_literal(1)).where(
        family_slugs.c.slug == text_parameter("key")
    )
    by_label = sa.select(families.c.family_id, integer_literal(2)).where(
        families.c.label_key == text_parameter("key")
    )
    found = sa.union_all(by_id, by_slug, by_label).subquery("found")
    return sa.select(found.c.family_id).order_by(found.c.rank).limit(1).scalar_subquery()


# FOR NO KEY UPDATE, so that inserts of products that refer to the row do not wait
GET_FAMILY_FOR_UPDATE: Final = Statement(
    sa.select(*FAMILY_COLUMNS)
    .where(families.c.family_id == find_family_id())
    .with_for_update(key_share=True, of=families)
)
GET_FAMILIES_FOR_UPDATE: Final = Statement(
    sa.select(*FAMILY_COLUMNS)
    .where(families.c.label == sa.any_(texts_parameter("labels")))
    .order_by(families.c.label.collate("C"))
    .with_for_update(key_share=True)
)
LIST_FAMILIES: Final = Statement(
    sa.select(*FAMILY_COLUMNS)
    .where(families.c.label_key > text_parameter("after"))
    .order_by(families.c.label_key)
    .limit(LIMIT)
)
_new_family: Final = (
    insert_row(families).returning(families.c.family_id, families.c.slug).cte("new_family")
)
ADD_FAMILY: Final = Statement(
    insert(family_slugs).from_select(
        ["slug", "family_id"], sa.select(_new_family.c.slug, _new_family.c.family_id)
    )
)
SAVE_FAMILY: Final = Statement(
    sa.update(families)
    .where(families.c.family_id == uuid_parameter("family_id"))
    .values(new_values(families.c, "family_id", "label", "label_key", "number", "created_at"))
)
ADD_SLUG: Final = Statement(insert_row(family_slugs))


class _Parts(NamedTuple):
    """Queries over the members. Each has one row per `number` of the page."""

    totals: "sa.CTE"
    first: "sa.CTE"
    images: "sa.CTE"
    prices: "sa.CTE"
    options: "sa.CTE"


def summarize_families(page: "sa.CTE", *more: Any) -> "sa.Select[Any]":
    """Select the family and its summary for each row of the page, sorted by `number`.

    `page` has the columns `number` (unique), `label` (of a family, or null) and `product_id` (of a
    product without a family, used if `label` is null). In the result, the columns of the family
    have the prefix "own_", and the columns of its oldest product the prefix "first_". `more` are
    columns of the page to add to the result.
    """
    members = _members(page)
    parts = _Parts(
        _totals(members),
        sa.select(members.c.number, members.c.product_id)
        .where(members.c.age_rank == integer_literal(1))
        .cte("first_member"),
        _images(members),
        _prices(members),
        _options(members),
    )
    own = [column.label(f"own_{column.name}") for column in FAMILY_COLUMNS]
    first = [
        column.label(f"first_{column.name}")
        for column in read_columns(products.c[field.name] for field in fields(FirstMember))
    ]
    joined: Any = page.outerjoin(families, families.c.label == page.c.label)
    for part in parts:
        joined = joined.outerjoin(part, part.c.number == page.c.number)
    joined = joined.outerjoin(products, products.c.product_id == parts.first.c.product_id)
    return (
        sa.select(
            *more,
            *own,
            *first,
            sa.func.coalesce(parts.totals.c.product_count, ZERO).label("product_count"),
            sa.func.coalesce(parts.totals.c.available, ZERO).label("available"),
            parts.totals.c.lowest_name,
            parts.totals.c.highest_name,
            parts.images.c.images,
            parts.prices.c.currency,
            parts.prices.c.lowest,
            parts.prices.c.highest,
            parts.options.c.options,
        )
        .select_from(joined)
        .order_by(page.c.number)
    )


def _members(page: "sa.CTE") -> "sa.CTE":
    """Select the active products of each row of the page. `age_rank` is 1 for the oldest one."""
    columns = [
        products.c.product_id,
        products.c.name.collate("C").label("name"),
        products.c.options,
        products.c.option_keys,
        products.c.images,
        products.c.price_currency.collate("C").label("currency"),
        current_amount(products).label("amount"),
    ]
    # products of one import batch have the same created_at, so the id makes the order unique
    age_rank = sa.func.row_number().over(
        partition_by=page.c.number, order_by=[products.c.created_at, products.c.product_id]
    )
    of_family = (
        sa.select(page.c.number, age_rank.label("age_rank"), *columns)
        .join_from(page, products, products.c.family == page.c.label)
        .where(products.c.status == ACTIVE)
    )
    alone = (
        sa.select(page.c.number, sa.literal_column("1", sa.BigInteger), *columns)
        .join_from(page, products, products.c.product_id == page.c.product_id)
        .where(products.c.status == ACTIVE, page.c.label.is_(None))
    )
    return sa.union_all(of_family, alone).cte("members")


def _totals(members: "sa.CTE") -> "sa.CTE":
    availability = available_quantity(members)
    return (
        sa.select(
            members.c.number,
            sa.func.count().label("product_count"),
            sum_or_zero(availability.c.available).label("available"),
            sa.func.min(members.c.name).label("lowest_name"),
            sa.func.max(members.c.name).label("highest_name"),
        )
        .select_from(members.join(availability, sa.true()))
        .group_by(members.c.number)
        .cte("totals")
    )


def _images(members: "sa.CTE") -> "sa.CTE":
    """Select the images of the oldest product with images."""
    return (
        sa.select(members.c.number, members.c.images)
        .ext(distinct_on(members.c.number))
        .where(sa.func.cardinality(members.c.images) > integer_literal(0))
        .order_by(members.c.number, members.c.age_rank)
        .cte("first_images")
    )


def _prices(members: "sa.CTE") -> "sa.CTE":
    """Select the range of the prices in the currency that most products have."""
    counts = (
        sa.select(
            members.c.number,
            members.c.currency,
            sa.func.count().label("count"),
            sa.func.min(members.c.amount).label("lowest"),
            sa.func.max(members.c.amount).label("highest"),
        )
        .group_by(members.c.number, members.c.currency)
        .subquery("prices_by_currency")
    )
    return (
        sa.select(counts.c.number, counts.c.currency, counts.c.lowest, counts.c.highest)
        .ext(distinct_on(counts.c.number))
        .order_by(counts.c.number, counts.c["count"].desc(), counts.c.currency)
        .cte("price_ranges")
    )


def _options(members: "sa.CTE") -> "sa.CTE":
    """Select the first MAX_OPTION_VALUES values of each option, sorted by their first product.

    The result is a JSON array with a pair for each value: the key of the option, and all options of
    the first product with this value. From these options, the caller reads the spelling of the name
    and of the value.
    """
    pair = sa.func.jsonb_each_text(members.c.option_keys).table_valued("key", "value")
    pair = pair.render_derived(name="pair")
    rank = sa.func.min(members.c.age_rank)
    in_order = sa.func.array_agg(
        aggregate_order_by(members.c.options, members.c.age_rank), type_=ARRAY(JSONB)
    )
    values = (
        sa.select(
            members.c.number,
            pair.c.key,
            in_order[1].label("options"),
            sa.func.row_number()
            .over(partition_by=[members.c.number, pair.c.key], order_by=[rank, pair.c.value])
            .label("place"),
        )
        .select_from(members.join(pair, sa.true()))
        .group_by(members.c.number, pair.c.key, pair.c.value)
        .subquery("option_values")
    )
    pairs = sa.func.json_agg(
        aggregate_order_by(
            sa.func.json_build_array(values.c.key, values.c.options),
            sa.collate(values.c.key, "C"),
            values.c.place,
        )
    )
    return (
        sa.select(values.c.number, sa.cast(pairs, sa.Text).label("options"))
        .where(values.c.place <= integer_literal(MAX_OPTION_VALUES))
        .group_by(values.c.number)
        .cte("options")
    )


def _named_page() -> "sa.CTE":
    """Select the one family or product that the parameters name, or no row."""
    family = sa.select(
        families.c.label, sa.null().label("product_id"), integer_literal(0).label("rank")
    ).where(families.c.family_id == find_family_id())
    product = sa.select(products.c.family, products.c.product_id, integer_literal(1)).where(
        products.c.product_id == uuid_parameter("product_id"), products.c.status == ACTIVE
    )
    found = sa.union_all(family, product).subquery("found")
    return (
        sa.select(integer_literal(1).label("number"), found.c.label, found.c.product_id)
        .order_by(found.c.rank)
        .limit(1)
        .cte("page")
    )


def _products_of_page(page: "sa.CTE") -> "sa.ScalarSelect[str]":
    """Select the JSON of the first MAX_FAMILY_PRODUCTS active products, joined by commas."""
    columns = [*PAGE_COLUMNS, products.c.created_at]
    of_family = sa.select(*columns).where(
        products.c.family == sa.select(page.c.label).scalar_subquery()
    )
    alone = sa.select(*columns).where(
        products.c.product_id
        == sa.select(page.c.product_id).where(page.c.label.is_(None)).scalar_subquery()
    )
    rows = sa.union_all(
        of_family.where(products.c.status == ACTIVE), alone.where(products.c.status == ACTIVE)
    ).subquery("rows")
    first = (
        sa.select(rows)
        .order_by(rows.c.created_at, rows.c.product_id)
        .limit(integer_literal(MAX_FAMILY_PRODUCTS))
        .subquery("first_products")
    )
    availability = available_quantity(first)
    document = product_json_text(first, availability)
    return (
        sa.select(
            sa.func.string_agg(
                document,
                aggregate_order_by(sql_literal(","), first.c.created_at, first.c.product_id),
            )
        )
        .select_from(first.join(availability, sa.true()))
        .scalar_subquery()
    )


_page: Final = _named_page()
GET_FAMILY: Final = Statement(
    summarize_families(_page, _page.c.label, _products_of_page(_page).label("products"))
)
