"""Reader of the product CSV that Shopify exports.

All rows with the same value in the column Handle describe one Shopify product. Its first row has
the texts, each row with a price is a variant, and the other rows only have images. A variant
becomes a product here, and the variants of one Handle become a family. Source:
https://help.shopify.com/en/manual/products/import-export/using-csv.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.imports.contract import ImportFormat
from markethall.inventory.imports.domain.csv_columns import InvalidCell, parse_amount
from markethall.inventory.imports.domain.file_records import (
    FilePosition,
    FileRecord,
    RowError,
    sanitize,
)
from markethall.inventory.imports.domain.html_text import html_to_text
from markethall.inventory.imports.domain.record_parser import FileChunk, read_csv_records
from markethall.inventory.imports.domain.row_validation import ReadStep, RowResult, validate_row

# Shopify allows 2,048 variants and 250 images per product
MAX_ROWS_PER_HANDLE: Final = 2500
MAX_BYTES_PER_HANDLE: Final = 4 * 1024 * 1024
MAX_IMAGES: Final = 20
MAX_SKU_LENGTH: Final = 64

_OPTION_COLUMNS: Final = tuple((f"Option{n} Name", f"Option{n} Value") for n in (1, 2, 3))
_DEFAULT_OPTION: Final = ("Title", "Default Title")
_SAFE_SKU_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_UNSAFE_SKU_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9_-]+")
_NUMBER_PATTERN: Final = re.compile(r"(-?[0-9]{1,9})(?:\.[0-9]{1,6})?")
# the field of the model -> the column of the file
_COLUMN_BY_FIELD: Final[Mapping[str, str]] = {
    "sku": "Variant SKU",
    "name": "Title",
    "description": "Body (HTML)",
    "price": "Variant Price",
    "compare_at": "Variant Compare At Price",
    "barcode": "Variant Barcode",
    "weight_grams": "Variant Grams",
    "category": "Type",
    "family": "Handle",
    "tags": "Tags",
    "images": "Image Src",
    "attributes": "Vendor",
    "status": "Status",
    "on_hand": "Variant Inventory Qty",
    "options": "Option1 Value",
}

CellsByColumn = Mapping[str, str]


def is_shopify(header: Sequence[str]) -> bool:
    return {"Handle", "Title"} <= set(header) and any(
        name.startswith(("Variant ", "Option1 ")) for name in header
    )


@dataclass
class _HandleGroup:
    """The rows of one Handle that were read so far."""

    handle: str
    rows: list[tuple[int, CellsByColumn]] = field(default_factory=list)
    # the errors of rows without a Handle between them
    rows_without_handle: list[RowResult] = field(default_factory=list)
    size: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= MAX_ROWS_PER_HANDLE or self.size >= MAX_BYTES_PER_HANDLE


class ShopifyReader:
    format = ImportFormat.SHOPIFY

    def __init__(self, header: Sequence[str], currency: str, delimiter: str) -> None:
        self._header = list(header)
        self._currency = currency
        self._delimiter = delimiter

    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        """Yield the rows of one Handle per step.

        The last Handle of a chunk may continue in the next chunk, so it is not yielded yet.
        """
        group: _HandleGroup | None = None
        truncated_handle, position = chunk.position.truncated_handle, chunk.position
        for record in read_csv_records(chunk, self._delimiter):
            cells = self._cells(record)
            handle = cells.get("Handle", "")
            if group and handle not in {"", group.handle}:
                yield self._group_to_step(group, position)
                group = None
            position = record.next_position
            if not handle:
                invalid_rows = self._row_without_handle(record)
                if group:
                    group.rows_without_handle += invalid_rows
                else:
                    yield ReadStep(
                        invalid_rows,
                        len(invalid_rows),
                        _with_truncated_handle(position, truncated_handle),
                    )
                continue
            if truncated_handle and sanitize(handle) == truncated_handle:
                yield ReadStep(
                    ((_too_many_rows_error(record.line),),),
                    1,
                    _with_truncated_handle(position, truncated_handle),
                )
                continue
            truncated_handle = ""
            group = group or _HandleGroup(handle)
            group.rows.append((record.line, cells))
            group.size += record.size
            if group.is_full:
                truncated_handle = sanitize(handle)
                yield self._group_to_step(group, _with_truncated_handle(position, truncated_handle))
                group = None
        if group and chunk.is_last:
            yield self._group_to_step(group, position)

    def _cells(self, record: FileRecord) -> CellsByColumn:
        if record.error or len(record.cells) != len(self._header):
            return {}
        return dict(zip(self._header, record.cells, strict=True))

    def _row_without_handle(self, record: FileRecord) -> tuple[RowResult, ...]:
        """Return the error of a row without a Handle. An empty row has none."""
        if record.error:
            return ((record.error,),)
        if not any(record.cells):
            return ()
        if len(record.cells) != len(self._header):
            message = f"has {len(record.cells)} cells, and the first line {len(self._header)}"
            return ((RowError(record.line, "", "ragged", message),),)
        return ((RowError(record.line, "Handle", "missing", "is required"),),)

    def _group_to_step(self, group: _HandleGroup, next_position: FilePosition) -> ReadStep:
        images = _distinct(row.get("Image Src", "") for _, row in group.rows)
        first = group.rows[0][1]
        variants = [(line, row) for line, row in group.rows if _is_variant(row)]
        if not variants:
            variants = group.rows[:1]
        rows = tuple(self._validate_variant(line, first, row, images) for line, row in variants)
        return ReadStep(
            (*group.rows_without_handle, *rows),
            len(group.rows) + len(group.rows_without_handle),
            next_position,
        )

    def _validate_variant(
        self, line: int, first: CellsByColumn, row: CellsByColumn, images: Sequence[str]
    ) -> RowResult:
        try:
            values = self._variant_values(first, row, images)
        except _InvalidValue as error:
            return (RowError(line, error.column, "invalid", error.message),)
        return validate_row(line, values, _column_of)

    def _variant_values(
        self, first: CellsByColumn, row: CellsByColumn, images: Sequence[str]
    ) -> dict[str, Any]:
        """Merge the row of a variant with the first row of its Handle. Raises _InvalidValue."""
        handle = row["Handle"]
        options = _variant_options(first, row)
        values: dict[str, Any] = {
            "sku": _strip_apostrophe(row.get("Variant SKU", "")) or stable_sku(handle, options),
            "name": first["Title"],
            "description": html_to_text(first.get("Body (HTML)", "")),
            "category": _product_category(first),
            "family": handle if options else None,
            "options": options,
            "tags": _distinct(tag.strip() for tag in first.get("Tags", "").split(",")),
            "images": _distinct([row.get("Variant Image", ""), *images])[:MAX_IMAGES],
            "attributes": {"vendor": first["Vendor"]} if first.get("Vendor") else {},
            "status": _product_status(first),
        }
        if price := row.get("Variant Price", ""):
            minor = self._parse_amount("Variant Price", price)
            values["price"] = {"amount": minor, "currency": self._currency}
        if quantity := row.get("Variant Inventory Qty", ""):
            # Shopify exports a negative number for an oversold product
            values["on_hand"] = max(0, _parse_number("Variant Inventory Qty", quantity))
        return values | self._optional_values(row)

    def _optional_values(self, row: CellsByColumn) -> dict[str, Any]:
        """Raises _InvalidValue."""
        values: dict[str, Any] = {
            "barcode": _strip_apostrophe(row.get("Variant Barcode", "")) or None,
            "compare_at": None,
            "weight_grams": None,
        }
        if weight := row.get("Variant Grams", ""):
            values["weight_grams"] = _parse_number("Variant Grams", weight) or None
        if compare_at := row.get("Variant Compare At Price", ""):
            values["compare_at"] = (
                self._parse_amount("Variant Compare At Price", compare_at) or None
            )
        return values

    def _parse_amount(self, column: str, text: str) -> int:
        try:
            return parse_amount(text, self._currency)
        except InvalidCell as error:
            raise _InvalidValue(column, str(error)) from None


class _InvalidValue(Exception):
    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column
        self.message = message


def stable_sku(handle: str, options: Mapping[str, str]) -> str:
    """Derive a SKU for a variant that has none. The same variant always gets the same SKU."""
    parts = [handle, *options.values()]
    sku = ".".join(parts)
    is_plain = all(_SAFE_SKU_PART.fullmatch(part) for part in parts)
    # only lower case, because SKUs ignore case, and so the options "m" and "M" would collide
    if is_plain and sku == sku.lower() and len(sku) <= MAX_SKU_LENGTH:
        return sku
    # two variants can differ only in characters that are replaced; the digest differs then
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:12]
    readable = ".".join(_UNSAFE_SKU_CHARACTERS.sub("-", part).strip("-_") for part in parts).strip(
        "."
    )
    return f"{readable[: MAX_SKU_LENGTH - 13]}-{digest}" if readable else digest


def _is_variant(row: CellsByColumn) -> bool:
    return bool(row.get("Variant Price") or row.get("Variant SKU") or row.get("Option1 Value"))


def _variant_options(first: CellsByColumn, row: CellsByColumn) -> dict[str, str]:
    """Return the options of a variant. Only the first row of a Handle has the option names."""
    pairs = [(first.get(name, ""), row.get(value, "")) for name, value in _OPTION_COLUMNS]
    return {
        name: value for name, value in pairs if name and value and (name, value) != _DEFAULT_OPTION
    }


def _product_category(first: CellsByColumn) -> str | None:
    """Return the product type, or the last part of Shopify's category path."""
    return first.get("Type") or first.get("Product Category", "").split(">")[-1].strip() or None


def _product_status(first: CellsByColumn) -> str:
    status = first.get("Status", "").strip().lower() or ProductStatus.ACTIVE
    hidden = first.get("Published", "").strip().lower() == "false"
    return ProductStatus.DRAFT if hidden and status == ProductStatus.ACTIVE else status


def _parse_number(column: str, text: str) -> int:
    """Raises _InvalidValue."""
    match = _NUMBER_PATTERN.fullmatch(text.strip())
    if not match:
        raise _InvalidValue(column, "must be a number")
    return int(match[1])


def _strip_apostrophe(text: str) -> str:
    """Remove the apostrophe that Shopify writes before digits, for spreadsheets."""
    return text.strip().removeprefix("'")


def _distinct(texts: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


def _with_truncated_handle(position: FilePosition, truncated_handle: str) -> FilePosition:
    return FilePosition(position.offset, position.line, position.in_oversized_row, truncated_handle)


def _too_many_rows_error(line: int) -> RowError:
    return RowError(line, "Handle", "too_many_rows", f"has more than {MAX_ROWS_PER_HANDLE} rows")


def _column_of(path: tuple[Any, ...]) -> str:
    return _COLUMN_BY_FIELD.get(str(path[0]), str(path[0])[:100]) if path else ""
