"""An index of the variable products of a WooCommerce file.

A variation refers to its product, whose row may be anywhere in the file. So the whole file is read
once before the import, and the values that variations share are kept in memory. The index is
smaller than the file, because long texts are cut and the values are compressed.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from markethall.inventory.catalogue.domain.text_keys import label_key
from markethall.inventory.imports.domain.file_records import FileRecord, UnreadableFile
from markethall.inventory.imports.domain.record_parser import (
    FileChunk,
    fit_cells,
    read_csv_records,
)
from markethall.inventory.imports.domain.row_validation import ReadStep, validate_row
from markethall.inventory.imports.domain.woocommerce_columns import WooHeader
from markethall.inventory.imports.domain.woocommerce_products import (
    VENDOR,
    derive_label,
    read_attributes,
    read_shared_values,
)
from markethall.inventory.imports.domain.woocommerce_row import VARIABLE, VARIATION, WooRow

# per file; limits the memory of the index
MAX_VARIABLE_PRODUCTS: Final = 100_000
_FASTEST_COMPRESSION: Final = 1


@dataclass(frozen=True)
class VariableProduct:
    """The values that the variations of a product share.

    `attribute_names` are the keys of all attributes in its row. `is_valid` is false if the row has
    errors, which the row itself reports.
    """

    line: int
    family: str
    values: Mapping[str, Any]
    attribute_names: frozenset[str]
    is_valid: bool


@dataclass(frozen=True)
class _PackedProduct:
    line: int
    family: str
    data: bytes
    is_valid: bool


class VariableProducts:
    """The variable products of a file, by the references that variations use."""

    def __init__(self, header: WooHeader, delimiter: str) -> None:
        self._header = header
        self._delimiter = delimiter
        self._packed: dict[str, _PackedProduct] = {}
        # maps a reference to a product to the SKU keys of its first variation in the file
        self._first_variations: dict[str, tuple[str, ...]] = {}
        self._latest: tuple[str, VariableProduct] | None = None

    def get(self, reference: str) -> VariableProduct | None:
        # consecutive rows are mostly variations of the same product
        if self._latest and self._latest[0] == reference:
            return self._latest[1]
        packed = self._packed.get(reference)
        if packed is None:
            return None
        self._latest = reference, _unpack(packed)
        return self._latest[1]

    def first_variation(self, references: list[str]) -> tuple[str, ...]:
        """Return the SKU keys of the first variation of a product, or nothing if it has none."""
        found = (self._first_variations.get(reference) for reference in references)
        return next((keys for keys in found if keys), ())

    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        """Add the variable products of the chunk. Raises UnreadableFile if there are too many."""
        for record in read_csv_records(chunk, self._delimiter):
            self._add_record(record)
            yield ReadStep((), 0, record.next_position, record.size)

    def _add_record(self, record: FileRecord) -> None:
        cells = fit_cells(record.cells, self._header.width)
        if record.error or len(cells) != self._header.width:
            return
        row = WooRow(record.line, self._header, cells)
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


def _pack(row: WooRow) -> _PackedProduct:
    values = read_shared_values(row) | {"attributes": read_attributes(row)}
    names = {label_key(attribute.name) for attribute in row.attributes}
    if row.has("brands"):
        names.add(VENDOR)
    checked = validate_row(row.line, {**values, "sku": "-"}, lambda _: (row.line, ""))
    is_valid = not row.errors and not isinstance(checked, tuple) and "name" in values
    family = derive_label(row, values)
    data = json.dumps([values, sorted(names)] if is_valid else [{}, []]).encode()
    return _PackedProduct(row.line, family, zlib.compress(data, _FASTEST_COMPRESSION), is_valid)


def _unpack(packed: _PackedProduct) -> VariableProduct:
    values, names = json.loads(zlib.decompress(packed.data))
    return VariableProduct(packed.line, packed.family, values, frozenset(names), packed.is_valid)
