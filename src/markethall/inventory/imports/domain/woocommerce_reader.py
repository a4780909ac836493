"""Reader of the product CSV that WooCommerce exports.

A simple product and a variation each become a product. A variable product becomes the family of its
variations. Source: https://github.com/woocommerce/woocommerce/wiki/Product-CSV-Import-Schema.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from markethall.inventory.catalogue.domain.text_keys import label_key
from markethall.inventory.imports.contract import ImportFormat
from markethall.inventory.imports.domain.file_records import (
    FileChunk,
    FileRecord,
    RowError,
    UnreadableFile,
    read_csv_rows,
)
from markethall.inventory.imports.domain.foreign_values import stable_sku
from markethall.inventory.imports.domain.row_validation import (
    ReadStep,
    RowResult,
    StepReader,
    ValidatedRow,
    WooReferences,
    read_each,
    validate_family,
    validate_row,
)
from markethall.inventory.imports.domain.woocommerce_products import (
    VENDOR,
    combine_with_parent,
    derive_label,
    read_attributes,
    read_offer_values,
    read_options,
    read_seo,
    read_shared_values,
)
from markethall.inventory.imports.domain.woocommerce_row import (
    SIMPLE,
    VARIABLE,
    VARIATION,
    WooHeader,
    WooRow,
)

# per file; limits the memory of the index
MAX_VARIABLE_PRODUCTS: Final = 100_000
_FASTEST_COMPRESSION: Final = 1


@dataclass(frozen=True)
class VariableProduct:
    """The values that the variations of a product share.

    `attribute_names` are the keys of all attributes in its row. `is_valid` is false if the row has
    errors. The result of this row has the errors.
    """

    line: int
    family: str
    is_valid: bool
    values: Mapping[str, Any] = field(default_factory=dict)
    attribute_names: frozenset[str] = frozenset()


class VariableProducts:
    """The variable products of a file, by the references that variations use."""

    def __init__(self, header: WooHeader, delimiter: str) -> None:
        self._header = header
        self._delimiter = delimiter
        # by reference: a product with empty `values`, and its compressed values
        self._packed: dict[str, tuple[VariableProduct, bytes]] = {}
        # maps the reference of a product to the SKU keys of its first variation in the file
        self._first_variations: dict[str, tuple[str, ...]] = {}
        self._latest: tuple[str, VariableProduct] | None = None

    def get(self, reference: str) -> VariableProduct | None:
        # consecutive rows are mostly variations of the same product
        if self._latest and self._latest[0] == reference:
            return self._latest[1]
        packed = self._packed.get(reference)
        if packed is None:
            return None
        product, data = packed
        values, names = json.loads(zlib.decompress(data))
        product = replace(product, values=values, attribute_names=frozenset(names))
        self._latest = reference, product
        return product

    def first_variation(self, references: list[str]) -> tuple[str, ...]:
        """Return the SKU keys of the first variation of a product, or nothing if it has none."""
        found = (self._first_variations.get(reference) for reference in references)
        return next((keys for keys in found if keys), ())

    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        """Add the variable products of the chunk. Raises UnreadableFile if there are too many."""
        for record in read_csv_rows(chunk, self._delimiter, self._header.width):
            if not (record.error or record.is_blank):
                self._add_row(WooRow(record.line, self._header, record.cells))
            yield ReadStep((), 0, record.next_position, record.size)

    def _add_row(self, row: WooRow) -> None:
        kind = row.kind
        if kind == VARIATION and (reference := row.parent_reference):
            self._first_variations.setdefault(reference, row.sku_keys)
        if kind == VARIABLE:
            packed = _pack(row)
            for reference in row.references:
                self._packed.setdefault(reference, packed)
        # a product has at most two references: its number and its SKU
        if (
            len(self._first_variations) > MAX_VARIABLE_PRODUCTS
            or len(self._packed) > 2 * MAX_VARIABLE_PRODUCTS
        ):
            message = f"The file has more than {MAX_VARIABLE_PRODUCTS} variable products."
            raise UnreadableFile("too_many_products", message)


def _pack(row: WooRow) -> tuple[VariableProduct, bytes]:
    values = read_shared_values(row) | {"attributes": read_attributes(row)}
    names = {label_key(attribute.name) for attribute in row.attributes}
    if row.has("brands"):
        names.add(VENDOR)
    checked = validate_row(row.line, {**values, "sku": "-"}, lambda _: (row.line, ""))
    is_valid = not row.errors and not isinstance(checked, tuple) and "name" in values
    family = derive_label(row, values)
    data = json.dumps([values, sorted(names)] if is_valid else [{}, []]).encode()
    product = VariableProduct(row.line, family, is_valid)
    return product, zlib.compress(data, _FASTEST_COMPRESSION)


# fields that a family has in common with its products
_FAMILY_FIELDS: Final = ("name", "description", "category", "images")
# maps a product type that is not supported to the reason
_UNSUPPORTED: Final[Mapping[str, str]] = {
    "grouped": "a grouped product has no price: only its parts are imported",
    "external": "an external product is sold by another shop",
}
# maps a field of the model to the column that an error of the field names
_COLUMN_BY_FIELD: Final[Mapping[str, str]] = {
    "category": "categories",
    "price": "regular_price",
    "compare_at": "regular_price",
    "prices": "sale_price",
    "weight_grams": "weight",
    "low_stock_threshold": "low_stock",
    "inventory_policy": "backorders",
    "track_inventory": "stock",
    "on_hand": "stock",
    "status": "published",
    "family": "name",
}


class WooCommerceReader:
    format = ImportFormat.WOOCOMMERCE

    def __init__(self, header: Sequence[str], currency: str, delimiter: str) -> None:
        """Raises UnreadableFile."""
        self._header = WooHeader(header)
        self._currency = currency
        self._delimiter = delimiter
        self._products = VariableProducts(self._header, delimiter)

    @property
    def file_index(self) -> StepReader:
        return self._products

    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        return read_each(
            read_csv_rows(chunk, self._delimiter, self._header.width), self._read_record
        )

    def _read_record(self, record: FileRecord) -> RowResult:
        row = WooRow(record.line, self._header, record.cells)
        result = self._read_row(row)
        return tuple(row.errors) or result

    def _read_row(self, row: WooRow) -> RowResult:
        """Return the result of a row. If the row gets errors, the caller ignores the result."""
        if row.kind == SIMPLE:
            return self._read_simple(row)
        if row.kind == VARIABLE:
            return self._read_variable(row)
        if row.kind == VARIATION:
            return self._read_variation(row)
        reason = _UNSUPPORTED.get(row.kind, f"the type {row.kind[:40]!r} cannot be imported")
        row.fail("type", "unsupported_type", reason)
        return ()

    def _read_simple(self, row: WooRow) -> RowResult:
        values = {**read_shared_values(row), **read_offer_values(row, self._currency)}
        if self._header.has_attributes or row.has("brands"):
            values["attributes"] = read_attributes(row)
        values["sku"] = row.get("sku") or self._derived_sku(row, {})
        return self._validate(row, values, _attribute_names(row), WooReferences(row.sku_keys))

    def _read_variable(self, row: WooRow) -> RowResult:
        """Return the row of the family. Report errors in the values that its variations share."""
        found = (self._products.get(reference) for reference in row.references)
        indexed = next((product for product in found if product), None)
        if indexed and indexed.line != row.line:
            message = f"line {indexed.line} has the same product"
            row.fail("id" if row.id else "sku", "duplicate_product", message)
        values = {**read_shared_values(row), "attributes": read_attributes(row), "sku": "-"}
        family: dict[str, Any] = {name: values[name] for name in _FAMILY_FIELDS if name in values}
        family |= {"label": derive_label(row, values)} | read_seo(row)
        if "name" not in values:
            row.fail("name", "missing", "is required")
        siblings = self._products.first_variation(row.references)
        if not siblings:
            row.warn("type", "no_variations", "has no variations in this file: nothing to sell")
        checked = validate_row(row.line, values, lambda path: self._locate(row, path))
        if isinstance(checked, tuple):
            return checked
        return validate_family(
            row.line,
            family,
            lambda path: self._locate(row, path),
            warnings=tuple(row.warnings),
            woo=WooReferences(sibling_sku_keys=siblings),
        )

    def _read_variation(self, row: WooRow) -> RowResult:
        if not row.get("parent"):
            row.fail("parent", "missing", "is required")
            return ()
        parent = self._products.get(row.parent_reference)
        if parent is None:
            return self._read_variation_without_parent(row)
        if not parent.is_valid:
            message = f"the product in line {parent.line} has an error"
            row.fail("parent", "parent_invalid", message)
        own = read_shared_values(row)
        own.pop("name", None)
        for name in ("category", "tags"):
            # the category and tags of the product apply to all of its variations
            own.pop(name, None)
        values = combine_with_parent(parent.values, own) | self._own_values(row)
        values |= {"family": parent.family, "attributes": _attributes_of(parent, values["options"])}
        names = _attribute_names(row) | parent.attribute_names
        siblings = self._products.first_variation([row.parent_reference])
        return self._validate(row, values, names, WooReferences(row.sku_keys, siblings))

    def _read_variation_without_parent(self, row: WooRow) -> RowResult:
        """Read a variation whose product is not in the file.

        The row can only change a stored product.
        """
        values = self._own_values(row)
        result = self._validate(row, values, frozenset(), WooReferences(row.sku_keys))
        if isinstance(result, tuple):
            return result
        message = f"the file has no product {row.get('parent')[:80]!r}"
        error = RowError(row.line, row.column_name("parent"), "parent_missing", message)
        return replace(result, missing_field_errors=(error,))

    def _own_values(self, row: WooRow) -> dict[str, Any]:
        options = read_options(row)
        sku = row.get("sku") or self._derived_sku(row, options)
        return {"sku": sku, "options": options, **read_offer_values(row, self._currency)}

    def _derived_sku(self, row: WooRow, options: Mapping[str, str]) -> str:
        """Return the SKU for a row without one. With an ID, it does not depend on the name."""
        if row.id:
            return f"woo-{row.id}"
        base = row.get("parent") or row.get("name")
        if not base:
            row.fail("sku", "missing", "is required if the row has no ID")
        return stable_sku(base, options)

    def _validate(
        self,
        row: WooRow,
        values: Mapping[str, Any],
        attribute_names: frozenset[str],
        references: WooReferences,
    ) -> ValidatedRow | tuple[RowError, ...]:
        ignored = set() if row.get("sku") else {"sku"}
        if not self._header.has_attributes:
            ignored.add("options")
        return validate_row(
            row.line,
            values,
            lambda path: self._locate(row, path),
            not_for_existing=ignored,
            attribute_names=attribute_names,
            warnings=tuple(row.warnings),
            woo=references,
        )

    def _locate(self, row: WooRow, path: tuple[Any, ...]) -> tuple[int, str]:
        field = str(path[0]) if path else ""
        column = _COLUMN_BY_FIELD.get(field, field)
        if field in {"options", "attributes"} and len(path) > 1:
            columns = {attribute.name: attribute.column for attribute in row.attributes}
            column = columns.get(str(path[1]), column)
        return row.line, row.column_name(column)


def _attribute_names(row: WooRow) -> frozenset[str]:
    """Return the keys of the attributes that the row sets.

    The product keeps its other attributes.
    """
    names = {label_key(attribute.name) for attribute in row.attributes}
    return frozenset(names | ({VENDOR} if row.has("brands") else set()))


def _attributes_of(parent: VariableProduct, options: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes of the product that do not distinguish its variations."""
    keys = {label_key(name) for name in options}
    attributes: Mapping[str, str] = parent.values.get("attributes", {})
    return {name: value for name, value in attributes.items() if label_key(name) not in keys}
