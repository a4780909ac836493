"""Read the values that a row of WooCommerce's product CSV describes.

`read_shared_values` reads the values that all variations share, which are in the row of their
product. `read_offer_values` reads the values of a product that can be bought: a simple product or a
variation.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markethall.inventory.catalogue.contract.families import (
    MAX_SEO_DESCRIPTION_LENGTH,
    MAX_SEO_TITLE_LENGTH,
)
from markethall.inventory.catalogue.contract.fields import (
    MAX_TAG_LENGTH,
    InventoryPolicy,
    ProductStatus,
)
from markethall.inventory.catalogue.contract.products import (
    MAX_ATTRIBUTE_LENGTH,
    MAX_BARCODE_LENGTH,
    MAX_DESCRIPTION_LENGTH,
    MAX_IMAGES,
    MAX_NAME_LENGTH,
    MAX_OPTION_LENGTH,
    MAX_TAGS,
)
from markethall.inventory.catalogue.domain.text_keys import fold_tags
from markethall.inventory.imports.domain.foreign_values import (
    CUT_PATH_MESSAGE,
    choose_category,
    complete_url,
    cut_path,
    derive_slug,
    distinct,
    parse_localized_amount,
    parse_quantity,
    parse_sale_end,
    parse_sale_start,
    parse_weight,
    read_description,
    split_list,
)
from markethall.inventory.imports.domain.woocommerce_row import WooRow, unescape_text

VENDOR: Final = "vendor"
_SEO_TITLE_COLUMNS: Final = ("yoast_title", "rank_math_title")
_SEO_DESCRIPTION_COLUMNS: Final = ("yoast_description", "rank_math_description")
# values of `Published`
_STATUS_BY_PUBLISHED: Final[Mapping[str, ProductStatus]] = {
    "1": ProductStatus.ACTIVE,
    "true": ProductStatus.ACTIVE,
    "0": ProductStatus.DRAFT,
    "-1": ProductStatus.DRAFT,
    "2": ProductStatus.DRAFT,
    "false": ProductStatus.DRAFT,
}
# WooCommerce's own tax classes; other classes keep their names
_TAX_CLASSES: Final[Mapping[str, str]] = {
    "": "standard",
    "reduced-rate": "reduced",
    "zero-rate": "zero",
}
_INHERITED: Final = "parent"
_NOT_TAXABLE: Final = "none"


def read_shared_values(row: WooRow) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if name := row.get("name"):
        values["name"] = row.cut("name", unescape_text(name), MAX_NAME_LENGTH)
    if row.has("description", "short_description"):
        values["description"] = _read_descriptions(row)
    if row.has("categories"):
        values["category"] = _read_category(row)
    if row.has("tags"):
        values["tags"] = _read_tags(row)
    if row.has("images"):
        values["images"] = _read_images(row)
    return values | _read_status(row) | _read_tax_class(row) | _read_weight(row)


def read_attributes(row: WooRow) -> dict[str, str]:
    """Return the visible attributes.

    The brands of WooCommerce become the attribute for the vendor.
    """
    attributes = {
        attribute.name[:MAX_OPTION_LENGTH]: row.cut(
            attribute.column, ", ".join(split_list(attribute.value)), MAX_ATTRIBUTE_LENGTH
        )
        for attribute in row.attributes
        if attribute.value and attribute.is_visible
    }
    if brands := ", ".join(split_list(row.get("brands"))):
        attributes[VENDOR] = row.cut("brands", brands, MAX_ATTRIBUTE_LENGTH)
    return attributes


def read_options(row: WooRow) -> dict[str, str]:
    """Return the options of a variation. Leave out options that are valid for any value."""
    options = {}
    for attribute in row.attributes:
        name, value = attribute.name[:MAX_OPTION_LENGTH], unescape_text(attribute.value)
        if value:
            options[name] = row.cut(attribute.column, value, MAX_OPTION_LENGTH)
        else:
            message = f"{name[:80]}: the variation is for any value; the option is left out"
            row.warn(attribute.column, "any_value", message)
    return options


def read_offer_values(row: WooRow, currency: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if row.has("barcode"):
        values["barcode"] = _read_barcode(row)
    if row.has("low_stock"):
        values["low_stock_threshold"] = row.parse("low_stock", parse_quantity)
    if row.get("sold_individually") == "1":
        row.warn("sold_individually", "dropped", "one per order is not supported: dropped")
    return values | _read_prices(row, currency) | _read_stock(row) | _read_policy(row)


def derive_label(row: WooRow, values: Mapping[str, Any]) -> str:
    """Return the label of the family of a variable product."""
    return derive_slug(values.get("name", ""), row.id or row.get("sku"))


def read_seo(row: WooRow) -> dict[str, Any]:
    """Return the texts for search engines of the extensions Yoast SEO and Rank Math."""
    if not row.has(*_SEO_TITLE_COLUMNS, *_SEO_DESCRIPTION_COLUMNS):
        return {}
    title = _first_text(row, _SEO_TITLE_COLUMNS, MAX_SEO_TITLE_LENGTH)
    description = _first_text(row, _SEO_DESCRIPTION_COLUMNS, MAX_SEO_DESCRIPTION_LENGTH)
    return {"seo": {"title": title, "description": description}}


def _first_text(row: WooRow, columns: Sequence[str], limit: int) -> str | None:
    column = next((column for column in columns if row.get(column)), None)
    return row.cut(column, row.get(column), limit) if column else None


def combine_with_parent(parent: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a variation. Missing values are taken from its product.

    The product's images follow those of the variation. If one of the two is a draft, the result is
    a draft.
    """
    values = {**parent, **own}
    for name in ("description", "weight_grams"):
        values[name] = own.get(name) or parent.get(name)
    values["images"] = distinct([*own.get("images", ()), *parent.get("images", ())])[:MAX_IMAGES]
    if ProductStatus.DRAFT in {parent.get("status"), own.get("status")}:
        values["status"] = ProductStatus.DRAFT
    return {name: value for name, value in values.items() if name in parent or name in own}


def _read_descriptions(row: WooRow) -> str:
    """Return the short description, then the description."""
    texts = distinct(
        read_description(row.get(name)) for name in ("short_description", "description")
    )
    return row.cut("description", "\n".join(texts), MAX_DESCRIPTION_LENGTH)


def _read_category(row: WooRow) -> str | None:
    path, lost = choose_category(row.get("categories"))
    if lost:
        names = ", ".join(lost)[:200]
        row.warn("categories", "dropped", f"a product has one category: {names} is dropped")
    if path is None:
        return None
    fitting = cut_path(path)
    if fitting != path:
        row.warn("categories", "cut", CUT_PATH_MESSAGE)
    return fitting


def _read_tags(row: WooRow) -> tuple[str, ...]:
    tags = split_list(row.get("tags"))
    if any(len(tag) > MAX_TAG_LENGTH for tag in tags):
        row.warn("tags", "cut", f"a tag has more than {MAX_TAG_LENGTH} characters: cut")
    folded = fold_tags(tag[:MAX_TAG_LENGTH] for tag in tags)
    if len(folded) > MAX_TAGS:
        row.warn("tags", "dropped", f"has more than {MAX_TAGS} tags: the rest is dropped")
    return folded[:MAX_TAGS]


def _read_images(row: WooRow) -> tuple[str, ...]:
    texts = split_list(row.get("images"))
    # a file name without a host refers to the server of the former shop and cannot be resolved
    urls = [complete_url(text) if "/" in text else None for text in texts]
    if None in urls:
        row.warn("images", "dropped", "a text that is not the URL of an image is dropped")
    images = distinct(url for url in urls if url)
    if len(images) > MAX_IMAGES:
        row.warn("images", "dropped", f"a product has at most {MAX_IMAGES} images: dropped")
    return images[:MAX_IMAGES]


def _read_status(row: WooRow) -> dict[str, Any]:
    published = row.get("published").casefold()
    if published and published not in _STATUS_BY_PUBLISHED:
        message = f"{published[:40]!r} is not 1, 0 or -1; the product becomes a draft"
        row.warn("published", "unknown_status", message)
    status = _STATUS_BY_PUBLISHED.get(published, ProductStatus.DRAFT)
    if row.get("visibility").casefold() == "hidden":
        if status == ProductStatus.ACTIVE:
            row.warn("visibility", "hidden", "is not listed in the shop: draft")
        return {"status": ProductStatus.DRAFT}
    return {"status": status} if published else {}


def _read_tax_class(row: WooRow) -> dict[str, Any]:
    if row.get("tax_status").casefold() == _NOT_TAXABLE:
        return {"tax_class": _TAX_CLASSES["zero-rate"]}
    tax_class = row.get("tax_class").casefold()
    if not row.has("tax_class") or tax_class == _INHERITED:
        return {}
    return {"tax_class": _TAX_CLASSES.get(tax_class, row.get("tax_class"))}


def _read_weight(row: WooRow) -> dict[str, Any]:
    if not row.has("weight"):
        return {}
    unit = row.header.weight_unit
    return {"weight_grams": row.parse("weight", lambda text: parse_weight(text, unit))}


def _read_barcode(row: WooRow) -> str | None:
    barcode = row.get("barcode")
    if len(barcode) > MAX_BARCODE_LENGTH:
        row.warn("barcode", "dropped", f"has more than {MAX_BARCODE_LENGTH} characters: dropped")
        return None
    return barcode or None


def _read_prices(row: WooRow, currency: str) -> dict[str, Any]:
    """Return the price fields.

    A sale price without dates replaces the price; with dates it is an additional price.
    """
    regular = row.parse("regular_price", lambda text: parse_localized_amount(text, currency))
    if regular is None:
        if row.get("sale_price") and not row.get("regular_price"):
            row.fail("sale_price", "price_missing", "needs a regular price in the same row")
        return {}
    price = {"price": {"amount": regular, "currency": currency}}
    if not row.has("sale_price"):
        return price
    sale = _read_sale_price(row, currency, regular)
    starts = row.parse("sale_starts", parse_sale_start)
    ends = row.parse("sale_ends", parse_sale_end)
    if sale is None:
        return {**price, "compare_at": None, "prices": ()}
    if starts is None and ends is None:
        reduced = {"amount": sale, "currency": currency}
        return {"price": reduced, "compare_at": regular, "prices": ()}
    if starts and ends and starts >= ends:
        row.fail("sale_ends", "window", "must be after the start of the sale")
    limits = {"valid_from": starts, "valid_until": ends}
    additional = {"amount": sale, "currency": currency, "compare_at": regular, **limits}
    return {**price, "compare_at": None, "prices": (additional,)}


def _read_sale_price(row: WooRow, currency: str, regular: int) -> int | None:
    sale = row.parse("sale_price", lambda text: parse_localized_amount(text, currency))
    if sale is not None and sale >= regular:
        row.warn("sale_price", "dropped", "is not lower than the regular price: dropped")
        return None
    return sale


def _read_stock(row: WooRow) -> dict[str, Any]:
    """Return the units on hand. A product without a quantity is either always sold, or never."""
    if row.get("stock").casefold() == _INHERITED:
        message = "the variations of the product share their stock: count it"
        row.warn("stock", "shared_stock", message)
        return {"track_inventory": True}
    if row.get("stock"):
        return {"track_inventory": True, "on_hand": row.parse("stock", parse_quantity)}
    in_stock = row.get("in_stock").casefold()
    if not in_stock or not row.has("stock"):
        return {}
    if in_stock in {"1", "true"}:
        return {"track_inventory": False}
    return {"track_inventory": True, "on_hand": 0}


def _read_policy(row: WooRow) -> dict[str, Any]:
    is_backorder = row.get("in_stock").casefold() == "backorder"
    backorders = row.get("backorders").casefold()
    if not backorders and not is_backorder:
        return {}
    may_continue = is_backorder or backorders in {"1", "true", "yes", "notify"}
    return {"inventory_policy": InventoryPolicy.CONTINUE if may_continue else InventoryPolicy.DENY}
