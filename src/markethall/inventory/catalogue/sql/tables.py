"""The tables of the catalogue. Their triggers exist only in the migrations.

`metadata` holds the tables of all sub-domains of the schema `inventory`.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

from markethall.shared.composition.sql import context_metadata
from markethall.shared.persistence.postgres import sql_literal
from markethall.shared.persistence.sql import timestamp_column

metadata = context_metadata("inventory")

ACTIVE = sql_literal("active")
ARCHIVED = sql_literal("archived")


def _text(name: str, **options: Any) -> "sa.Column[str]":
    options.setdefault("nullable", False)
    return sa.Column(name, sa.Text, **options)


categories = sa.Table(
    "category",
    metadata,
    sa.Column("category_id", sa.Uuid, primary_key=True),
    # the key to which products refer, in the spelling of the request that created the category
    sa.Column("category", sa.Text, nullable=False, unique=True),
    # the normalized forms of key and name, for comparisons; domain/categories.py computes them
    sa.Column("category_key", sa.Text(collation="C"), nullable=False, unique=True),
    sa.Column("label_key", sa.Text(collation="C"), nullable=False),
    _text("name"),
    sa.Column("parent", sa.Text, sa.ForeignKey("inventory.category.category")),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("translations", JSONB, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.CheckConstraint("parent <> category", name="parent"),
    sa.CheckConstraint("position >= 0", name="position"),
    sa.CheckConstraint("version >= 1", name="version"),
)
sa.Index("ix_category_parent", categories.c.parent)
sa.Index("ix_category_label_key", categories.c.label_key)
# The index is partial, so that inserts of products in a category do not wait for an UPDATE of this
# category. Postgres regards the columns of a unique index that is not partial as key columns. An
# UPDATE that sets a key column, here `parent`, locks the row FOR UPDATE. The foreign key of an
# inserted product locks the row FOR KEY SHARE, and would wait for that lock.
sa.Index(
    "uq_category_label",
    categories.c.label_key,
    categories.c.parent,
    unique=True,
    postgresql_where=categories.c.parent.is_not(None),
)
sa.Index(
    "uq_category_root_label",
    categories.c.label_key,
    unique=True,
    postgresql_where=categories.c.parent.is_(None),
)

families = sa.Table(
    "family",
    metadata,
    sa.Column("family_id", sa.Uuid, primary_key=True),
    # the text to which products refer, in the spelling of the request that created the family
    sa.Column("label", sa.Text, nullable=False, unique=True),
    # the normalized form of the label, for comparisons; domain/text_keys.py computes it
    sa.Column("label_key", sa.Text(collation="C"), nullable=False, unique=True),
    # Identifies the family in the counting of facets, where small numbers take less time than ids.
    # It never leaves the database.
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False, unique=True),
    # the current one of the slugs in family_slug
    _text("slug"),
    _text("name", nullable=True),
    _text("description"),
    sa.Column("category", sa.Text, sa.ForeignKey(categories.c.category)),
    sa.Column("images", ARRAY(sa.Text), nullable=False),
    _text("seo_title", nullable=True),
    _text("seo_description", nullable=True),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("translations", JSONB, nullable=False),
    _text("status"),
    sa.Column("version", sa.Integer, nullable=False),
    timestamp_column("created_at"),
    timestamp_column("updated_at"),
    sa.CheckConstraint("status IN ('active', 'archived')", name="status"),
    sa.CheckConstraint("version >= 1", name="version"),
)
sa.Index("ix_family_archived", families.c.label, postgresql_where=families.c.status == ARCHIVED)
sa.Index("ix_family_category", families.c.category)

# All slugs that families have or had. A former slug still identifies its family, and no other
# family can take it.
family_slugs = sa.Table(
    "family_slug",
    metadata,
    sa.Column("slug", sa.Text(collation="C"), primary_key=True),
    sa.Column("family_id", sa.Uuid, sa.ForeignKey(families.c.family_id), nullable=False),
)
sa.Index("ix_family_slug_family_id", family_slugs.c.family_id)

products = sa.Table(
    "product",
    metadata,
    sa.Column("product_id", sa.Uuid, primary_key=True),
    _text("sku"),
    # computed by domain/text_keys.py, to compare SKUs
    sa.Column("sku_key", sa.Text(collation="C"), nullable=False),
    _text("name"),
    # computed by domain/text_keys.py, to sort by name; collation C, so that the order does not
    # depend on the locale of the server
    sa.Column("name_key", sa.Text(collation="C"), nullable=False),
    _text("description"),
    sa.Column("price_amount", sa.BigInteger, nullable=False),
    _text("price_currency"),
    sa.Column("category", sa.Text, sa.ForeignKey(categories.c.category)),
    sa.Column("family", sa.Text, sa.ForeignKey(families.c.label)),
    sa.Column("options", JSONB, nullable=False),
    # the `label_key` of each name, with the `label_key` of its value: see domain/text_keys.py
    sa.Column("option_keys", JSONB, nullable=False),
    sa.Column("tags", ARRAY(sa.Text), nullable=False),
    # the `label_key` of each tag, in the order of `tags`
    sa.Column("tag_keys", ARRAY(sa.Text), nullable=False),
    sa.Column("images", ARRAY(sa.Text), nullable=False),
    sa.Column("attributes", JSONB, nullable=False),
    # the `label_key` of each name, with the `label_key` of the text of its value
    sa.Column("attribute_keys", JSONB, nullable=False),
    _text("barcode", nullable=True),
    sa.Column("weight_grams", sa.BigInteger),
    # the server defaults are for rolling updates, in which processes of the older release still
    # insert rows without these columns
    _text("tax_class", server_default="standard"),
    sa.Column("compare_at", sa.BigInteger),
    # a trigger sets has_scheduled_price when an additional price in the product's own currency
    # has a time limit
    sa.Column("prices", JSONB, nullable=False, server_default="[]"),
    sa.Column("has_scheduled_price", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("translations", JSONB, nullable=False, server_default="{}"),
    sa.Column("backorder_limit", sa.BigInteger, nullable=False, server_default="0"),
    _text("inventory_policy", server_default="deny"),
    sa.Column("track_inventory", sa.Boolean, nullable=False, server_default="true"),
    sa.Column("low_stock_threshold", sa.BigInteger),
    _text("status"),
    sa.Column("version", sa.Integer, nullable=False),
    timestamp_column("created_at"),
    timestamp_column("updated_at"),
    # the words of domain/search_document.py with their weights
    sa.Column("search", TSVECTOR, nullable=False, server_default=""),
    # A trigger writes the beginning of ProductView as JSON. A read appends the parts that change
    # without an UPDATE of this row: a scheduled price and `available`.
    _text("product_json"),
    sa.CheckConstraint("status IN ('draft', 'active', 'archived')", name="status"),
    sa.CheckConstraint("price_amount >= 0", name="price"),
    sa.CheckConstraint("version >= 1", name="version"),
    sa.CheckConstraint("compare_at >= 0", name="compare_at"),
    sa.CheckConstraint("weight_grams >= 0", name="weight"),
    sa.CheckConstraint("backorder_limit >= 0", name="backorder_limit"),
    sa.CheckConstraint("inventory_policy IN ('deny', 'continue')", name="inventory_policy"),
    sa.CheckConstraint("low_stock_threshold >= 0", name="low_stock_threshold"),
)
_active: dict[str, Any] = {"postgresql_where": products.c.status == ACTIVE}
# The condition is true for every row. It only makes the index partial, for the same reason as for
# uq_category_label: if the index were not partial, inserts of reservation lines would wait for an
# UPDATE that sets `sku_key`.
sa.Index(
    "uq_product_sku",
    products.c.sku_key,
    unique=True,
    postgresql_where=products.c.sku_key.is_not(None),
)
sa.Index("ix_product_created_at", products.c.created_at, products.c.product_id, **_active)
sa.Index("ix_product_price", products.c.price_amount, products.c.product_id, **_active)
sa.Index("ix_product_name", products.c.name_key, products.c.product_id, **_active)
for _name, _key in (
    ("created_at", products.c.created_at),
    ("price", products.c.price_amount),
    ("name", products.c.name_key),
):
    sa.Index(
        f"ix_product_category_{_name}", products.c.category, _key, products.c.product_id, **_active
    )
# The index includes products that are not active, because an import reads all products of a family.
# It includes created_at, the default sort of the family list, so that the list finds an earlier
# product of the same family by a range scan.
sa.Index("ix_product_family", products.c.family, products.c.created_at, products.c.product_id)
sa.Index("ix_product_tag_keys", products.c.tag_keys, postgresql_using="gin")
# jsonb_path_ops: the index stores a hash of each pair of name and value, so their length does not
# matter
sa.Index(
    "ix_product_label_keys",
    products.c.option_keys,
    products.c.attribute_keys,
    postgresql_using="gin",
    postgresql_ops={"option_keys": "jsonb_path_ops", "attribute_keys": "jsonb_path_ops"},
)
sa.Index("ix_product_search", products.c.search, postgresql_using="gin")

# The candidates for spelling suggestions. A word stays here after the last product with it has
# gone. Suggesting this word does no harm: the search only finds nothing.
vocabulary = sa.Table(
    "search_word", metadata, sa.Column("word", sa.Text(collation="C"), primary_key=True)
)
