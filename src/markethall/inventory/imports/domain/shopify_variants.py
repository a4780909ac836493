"""Read the values of a variant from its row and from the first row of its Handle."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markethall.inventory.catalogue.contract.fields import InventoryPolicy, ProductStatus
from markethall.inventory.catalogue.contract.products import MAX_BARCODE_LENGTH, MAX_IMAGES
from markethall.inventory.imports.domain.csv_columns import InvalidCell, parse_amount
from markethall.inventory.imports.domain.file_records import RowError, RowWarning, sanitize
from markethall.inventory.imports.domain.foreign_values import complete_url, distinct, stable_sku
from markethall.inventory.imports.domain.row_validation import (
    FamilyRow,
    RowResult,
    Variant,
    validate_family,
    validate_row,
)
from markethall.inventory.imports.domain.shopify_rows import (
    OPTION_COLUMNS,
    QUANTITY_COLUMNS,
    CellsByColumn,
    ShopifyHeader,
    split_tags,
)

_DEFAULT_OPTION: Final = ("Title", "Default Title")
_NUMBER_PATTERN: Final = re.compile(r"(-?[0-9]{1,9})(?:\.[0-9]{1,6})?")
# Field of the model -> column in which an error of this field is reported. Other fields have a
# column of the same name.
_COLUMN_BY_FIELD: Final[Mapping[str, str]] = {
    "name": "title",
    "description": "body",
    "weight_grams": "grams",
    "category": "type",
    "family": "handle",
    "label": "handle",
    "images": "image",
    "attributes": "vendor",
    "options": "option1_value",
}
_FAMILY_TEXT_FIELDS: Final = ("name", "description", "category")
_FAMILY_FIELDS: Final = (*_FAMILY_TEXT_FIELDS, "images")
_SEO_FIELDS: Final = ("title", "description")
# fields that only the first row of a Handle has
_FIRST_ROW_FIELDS: Final = frozenset(
    {"name", "description", "category", "tags", "attributes", "status"}
)
# the only field that an inventory file changes; its other columns only identify the variant
_INVENTORY_FIELDS: Final = frozenset({"on_hand"})


class _InvalidValue(Exception):
    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column
        self.message = message


@dataclass(frozen=True)
class HandleRows:
    """The rows of one Handle: the line and cells of the first row, and the images of all rows."""

    handle: str
    first_line: int
    first: CellsByColumn
    images: Sequence[str]


@dataclass(frozen=True)
class VariantRow:
    """The row of a variant.

    An inventory file has one row per variant and location. `other_locations` are the cells of the
    other rows of this variant.
    """

    line: int
    cells: CellsByColumn
    other_locations: Sequence[CellsByColumn] = ()


class VariantReader:
    """Reader of variants. It provides no value for a field whose column is absent."""

    def __init__(self, header: ShopifyHeader, currency: str) -> None:
        self._header = header
        self._currency = currency

    def read(self, group: HandleRows, row: VariantRow) -> RowResult:
        try:
            values = self._values(group, row)
        except _InvalidValue as error:
            name = self._header.name(error.column)
            return (RowError(row.line, name, "invalid", error.message),)
        has_sku = bool(_sku(row.cells))
        options = values["options"] if self._header.has_options else None
        provided = {
            "sku": has_sku,
            "status": bool(group.first.get("status")),
            "options": self._header.has_options,
        }
        ignored = {name for name, is_provided in provided.items() if not is_provided}
        if self._header.is_inventory:
            ignored = set(values) - _INVENTORY_FIELDS
        return validate_row(
            row.line,
            values,
            lambda path: self._locate(path, group, row),
            not_for_existing=ignored,
            variant=Variant(group.handle, options, has_sku),
            attribute_names=frozenset({"vendor"}),
            warnings=self._warnings(row),
        )

    def read_family(self, group: HandleRows) -> FamilyRow | tuple[RowError, ...]:
        """Return the family, with the values of the first row and all images."""
        shared = self._product_values(group, group.first)
        shared["images"] = group.images
        provided = _FAMILY_FIELDS if self._header.has("image") else _FAMILY_TEXT_FIELDS
        values = {name: shared[name] for name in provided if name in shared}
        if self._header.has("seo_title", "seo_description"):
            texts = {name: group.first.get(f"seo_{name}") or None for name in _SEO_FIELDS}
            values["seo"] = texts
        values["label"] = group.handle
        row = VariantRow(group.first_line, group.first)
        return validate_family(
            group.first_line, values, lambda path: self._locate(path, group, row)
        )

    def _warnings(self, row: VariantRow) -> tuple[RowWarning, ...]:
        warnings = []
        if len(_strip_apostrophe(row.cells.get("barcode", ""))) > MAX_BARCODE_LENGTH:
            warnings.append(("barcode", f"has more than {MAX_BARCODE_LENGTH} characters: dropped"))
        image = row.cells.get("variant_image", "")
        if image and complete_url(image) is None:
            warnings.append(("variant_image", "is not the URL of an image: dropped"))
        return tuple(
            RowWarning(row.line, self._header.name(column), "dropped", message)
            for column, message in warnings
        )

    def options(self, group: HandleRows, cells: CellsByColumn) -> dict[str, str]:
        """Return the options of a variant. Only the first row of a Handle has the option names."""
        pairs = [
            (cells.get(name) or group.first.get(name, ""), cells.get(value, ""))
            for name, value in OPTION_COLUMNS
        ]
        return {
            name: value
            for name, value in pairs
            if name and value and (name, value) != _DEFAULT_OPTION
        }

    def _values(self, group: HandleRows, row: VariantRow) -> dict[str, Any]:
        """Raises _InvalidValue."""
        options = self.options(group, row.cells)
        return {
            "sku": _sku(row.cells) or stable_sku(group.handle, options),
            "family": group.handle,
            "options": options,
            "status": _status(group.first),
            **self._product_values(group, row.cells),
            **self._variant_values(row.cells),
            **self._quantity_values(row),
        }

    def _product_values(self, group: HandleRows, cells: CellsByColumn) -> dict[str, Any]:
        """Return the values that the variants of a Handle share, and the images of this variant."""
        first, has = group.first, self._header.has
        values: dict[str, Any] = {}
        if name := first.get("title"):
            values["name"] = name
        if has("body"):
            values["description"] = first["body"]
        if has("type", "category"):
            values["category"] = first.get("type") or first.get("category") or None
        if has("tags"):
            values["tags"] = split_tags(first["tags"])
        if has("vendor"):
            values["attributes"] = {"vendor": first["vendor"]} if first["vendor"] else {}
        if has("image", "variant_image"):
            own = complete_url(cells.get("variant_image", "")) or ""
            values["images"] = distinct([own, *group.images])[:MAX_IMAGES]
        return values

    def _variant_values(self, cells: CellsByColumn) -> dict[str, Any]:
        """Raises _InvalidValue."""
        values: dict[str, Any] = {}
        if self._header.has("barcode"):
            barcode = _strip_apostrophe(cells["barcode"])
            values["barcode"] = barcode if 0 < len(barcode) <= MAX_BARCODE_LENGTH else None
        if self._header.has("grams"):
            weight = cells["grams"]
            values["weight_grams"] = _parse_number("grams", weight) or None if weight else None
        if self._header.has("tracker"):
            values["track_inventory"] = bool(cells["tracker"])
        if policy := cells.get("policy"):
            values["inventory_policy"] = _inventory_policy(policy)
        if price := cells.get("price"):
            amount = self._parse_amount("price", price)
            values["price"] = {"amount": amount, "currency": self._currency}
        if self._header.has("compare_at"):
            values["compare_at"] = self._compare_at(cells["compare_at"], price)
        return values

    def _compare_at(self, text: str, price: str | None) -> int | None:
        """Raises _InvalidValue."""
        if text and not price:
            # without a price in the row, the currency of compare_at would be unknown
            raise _InvalidValue("compare_at", "needs a price in the same row")
        return self._parse_amount("compare_at", text) or None if text else None

    def _quantity_values(self, row: VariantRow) -> dict[str, Any]:
        """Return the sum of the quantities of all locations. Raises _InvalidValue."""
        counted = [
            quantity
            for cells in (row.cells, *row.other_locations)
            if (quantity := self._quantity(cells)) is not None
        ]
        return {"on_hand": sum(counted)} if counted else {}

    def _quantity(self, cells: CellsByColumn) -> int | None:
        """Raises _InvalidValue."""
        column = next((name for name in QUANTITY_COLUMNS if cells.get(name)), None)
        # the row has no quantity, or this location does not stock the variant
        if column is None or cells[column].casefold() == "not stocked":
            return None
        # Shopify exports a negative number for an oversold product
        return max(0, _parse_number(column, cells[column]))

    def _parse_amount(self, column: str, text: str) -> int:
        """Raises _InvalidValue."""
        try:
            return parse_amount(text, self._currency)
        except InvalidCell as error:
            raise _InvalidValue(column, str(error)) from None

    def _locate(self, path: tuple[Any, ...], group: HandleRows, row: VariantRow) -> tuple[int, str]:
        field = str(path[0]) if path else ""
        if field == "options" and len(path) > 1:
            return self._locate_option(str(path[1]), group, row, is_name=path[-1] == "[key]")
        column = _COLUMN_BY_FIELD.get(field, field)
        if field == "on_hand":
            column = next((name for name in QUANTITY_COLUMNS if self._header.has(name)), field)
        if field == "seo" and len(path) > 1:
            column = f"seo_{path[1]}"
        if field == "category" and not group.first.get("type"):
            column = "category"
        name = self._header.name(column)[:100]
        return (group.first_line if field in _FIRST_ROW_FIELDS else row.line), sanitize(name)

    def _locate_option(
        self, option: str, group: HandleRows, row: VariantRow, *, is_name: bool
    ) -> tuple[int, str]:
        for name, value in OPTION_COLUMNS:
            own = row.cells.get(name)
            if (own or group.first.get(name)) == option:
                line = row.line if own or not is_name else group.first_line
                return line, self._header.name(name if is_name else value)
        return row.line, self._header.name("option1_value")


def is_variant(cells: CellsByColumn) -> bool:
    return any(cells.get(column) for column in ("price", "sku", "option1_value"))


def _sku(cells: CellsByColumn) -> str:
    return _strip_apostrophe(cells.get("sku", ""))


def _inventory_policy(text: str) -> str:
    may_continue = text.casefold() in {"continue", "true", "yes"}
    return InventoryPolicy.CONTINUE if may_continue else InventoryPolicy.DENY


def _status(first: CellsByColumn) -> str:
    """Return the status in the file, by default active.

    Return draft if the status is unknown, or if it is active and the product is not published.
    """
    status = first.get("status", "").casefold() or ProductStatus.ACTIVE
    hidden = first.get("published", "").casefold() == "false"
    if status not in set(ProductStatus) or (hidden and status == ProductStatus.ACTIVE):
        return ProductStatus.DRAFT
    return status


def _parse_number(column: str, text: str) -> int:
    """Raises _InvalidValue."""
    match = _NUMBER_PATTERN.fullmatch(text)
    if not match:
        raise _InvalidValue(column, "must be a number")
    return int(match[1])


def _strip_apostrophe(text: str) -> str:
    """Remove the apostrophe by which Shopify makes spreadsheets read digits as text."""
    return text.removeprefix("'")
