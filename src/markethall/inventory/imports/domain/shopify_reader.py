"""Reader of the product CSV that Shopify exports.

All rows with the same value in the column Handle describe one Shopify product. The first of these
rows has the texts. Each row with a price, a SKU or an option value is a variant; the other rows
only have images. A variant becomes a product here, and the variants of one Handle become a family.
Source: https://help.shopify.com/en/manual/products/import-export/using-csv.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from markethall.inventory.imports.contract import ImportFormat
from markethall.inventory.imports.domain.file_records import (
    FileChunk,
    FilePosition,
    FileRecord,
    RowError,
    RowWarning,
    read_csv_rows,
    sanitize,
)
from markethall.inventory.imports.domain.product_lookup import options_key
from markethall.inventory.imports.domain.row_validation import ReadStep, RowResult, ValidatedRow
from markethall.inventory.imports.domain.shopify_rows import (
    CellsByColumn,
    Row,
    ShopifyHeader,
    first_row_warnings,
    fit_row,
    read_images,
)
from markethall.inventory.imports.domain.shopify_variants import (
    HandleRows,
    VariantReader,
    VariantRow,
    is_variant,
)

# Shopify allows 2,048 variants and 250 images per product
MAX_ROWS_PER_HANDLE: Final = 2500
MAX_BYTES_PER_HANDLE: Final = 4 * 1024 * 1024


@dataclass
class _HandleGroup:
    """The rows of one Handle, as far as they have been read."""

    handle: str
    rows: list[tuple[int, CellsByColumn]] = field(default_factory=list)
    # the errors of rows without a Handle that stand between the rows of this Handle
    rows_without_handle: list[RowResult] = field(default_factory=list)
    size: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= MAX_ROWS_PER_HANDLE or self.size >= MAX_BYTES_PER_HANDLE


class ShopifyReader:
    format = ImportFormat.SHOPIFY
    file_index = None

    def __init__(self, header: Sequence[str], currency: str, delimiter: str) -> None:
        """Raises UnreadableFile."""
        self._header = ShopifyHeader(header)
        self._variants = VariantReader(self._header, currency)
        self._delimiter = delimiter

    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        """Yield the rows of one Handle per step.

        The last Handle of a chunk may continue in the next chunk, so it is not yielded yet.
        """
        group: _HandleGroup | None = None
        truncated_handle, position = chunk.position.truncated_handle, chunk.position
        # where the caller continues if the chunk ends inside a group
        resume_at = chunk.position
        for record in read_csv_rows(chunk, self._delimiter, self._header.width):
            cells = self._cells(record)
            handle = cells.get("handle", "")
            if group and handle not in {"", group.handle}:
                resume_at = position
                yield self._group_to_step(group, position)
                group = None
            position = record.next_position
            is_truncated = bool(truncated_handle) and sanitize(handle) == truncated_handle
            if not group and (not handle or is_truncated):
                rows = (
                    self._row_without_handle(record)
                    if not handle
                    else ((self._too_many_rows_error(record.line),),)
                )
                resume_at = _with_truncated_handle(position, truncated_handle)
                yield ReadStep(rows, len(rows), resume_at, record.size)
                continue
            group = group or _HandleGroup(handle)
            group.size += record.size
            if handle:
                truncated_handle = ""
                group.rows.append((record.line, cells))
            else:
                group.rows_without_handle += self._row_without_handle(record)
            if group.is_full:
                truncated_handle = sanitize(group.handle)
                resume_at = _with_truncated_handle(position, truncated_handle)
                yield self._group_to_step(group, resume_at)
                group = None
            else:
                yield ReadStep((), 0, resume_at, record.size)
        if group and chunk.is_last:
            yield self._group_to_step(group, position)

    def _cells(self, record: FileRecord) -> CellsByColumn:
        return {} if record.error or record.is_blank else self._header.cells(record.cells)

    def _row_without_handle(self, record: FileRecord) -> tuple[RowResult, ...]:
        """Return the error of a row without a Handle, or nothing for a blank row."""
        if record.is_blank:
            return ()
        missing = RowError(record.line, self._header.name("handle"), "missing", "is required")
        return ((record.error or missing,),)

    def _group_to_step(self, group: _HandleGroup, next_position: FilePosition) -> ReadStep:
        fitted = [fit_row(self._header, row) for row in group.rows]
        rows = [row for row, _ in fitted]
        images, image_warnings = read_images(self._header, rows)
        warnings = [
            *first_row_warnings(self._header, rows[0]),
            *(warning for _, row_warnings in fitted for warning in row_warnings),
            *image_warnings,
        ]
        handle_rows = HandleRows(group.handle, *rows[0], images)
        results = _report_once(
            self._variants.read(handle_rows, row) for row in self._variant_rows(handle_rows, rows)
        )
        return ReadStep(
            (
                *group.rows_without_handle,
                *self._family_rows(handle_rows, results),
                *_add_warnings(self._refuse_duplicates(results), warnings),
            ),
            len(group.rows) + len(group.rows_without_handle),
            next_position,
            0,
        )

    def _family_rows(
        self, handle_rows: HandleRows, results: Sequence[RowResult]
    ) -> Sequence[RowResult]:
        """Return the row of the family, if the file has its title and a variant is valid."""
        has_variant = any(isinstance(result, ValidatedRow) for result in results)
        if self._header.is_inventory or not handle_rows.first.get("title") or not has_variant:
            return ()
        return (self._variants.read_family(handle_rows),)

    def _variant_rows(self, handle_rows: HandleRows, rows: Sequence[Row]) -> Sequence[VariantRow]:
        variants = [VariantRow(line, cells) for line, cells in rows if is_variant(cells)]
        if self._header.is_inventory:
            return self._join_locations(handle_rows, variants)
        return variants or [VariantRow(*rows[0])]

    def _join_locations(
        self, handle_rows: HandleRows, rows: Sequence[VariantRow]
    ) -> Sequence[VariantRow]:
        joined: dict[object, VariantRow] = {}
        for row in rows:
            options = self._variants.options(handle_rows, row.cells)
            key = (options_key(options), row.cells.get("sku", "").casefold())
            if known := joined.get(key):
                locations = (*known.other_locations, row.cells)
                joined[key] = replace(known, other_locations=locations)
            else:
                joined[key] = row
        return list(joined.values())

    def _refuse_duplicates(self, results: Sequence[RowResult]) -> Sequence[RowResult]:
        """Replace a row by an error if an earlier row has the same options, but another SKU."""
        known: dict[object, ValidatedRow] = {}
        return [self._refuse_duplicate(result, known) for result in results]

    def _refuse_duplicate(self, row: RowResult, known: dict[object, ValidatedRow]) -> RowResult:
        if not isinstance(row, ValidatedRow) or row.variant is None or row.variant.options is None:
            return row
        earlier = known.setdefault(options_key(row.product.options), row)
        both_have_skus = row.variant.has_sku and earlier.variant and earlier.variant.has_sku
        if not both_have_skus or row.sku_key == earlier.sku_key:
            return row
        message = (
            f"{row.description} is in line {earlier.line} too, with the SKU {earlier.product.sku}"
        )
        return (RowError(*row.locate(("sku",)), "duplicate_variant", message[:200]),)

    def _too_many_rows_error(self, line: int) -> RowError:
        message = f"has more than {MAX_ROWS_PER_HANDLE} rows"
        return RowError(line, self._header.name("handle"), "too_many_rows", message)


def _report_once(results: Iterable[RowResult]) -> Sequence[RowResult]:
    """Keep each error once. An invalid value in the first row gives one error per variant."""
    reported: set[RowError] = set()
    kept: list[RowResult] = []
    for result in results:
        if isinstance(result, tuple):
            kept.append(tuple(error for error in result if error not in reported))
            reported.update(result)
        else:
            kept.append(result)
    return kept


def _add_warnings(
    results: Sequence[RowResult], warnings: Sequence[RowWarning]
) -> Iterator[RowResult]:
    """Add the warnings about a Handle to its first valid row."""
    for result in results:
        if warnings and isinstance(result, ValidatedRow):
            yield replace(result, warnings=(*warnings, *result.warnings))
            warnings = ()
        else:
            yield result


def _with_truncated_handle(position: FilePosition, truncated_handle: str) -> FilePosition:
    return FilePosition(position.offset, position.line, position.in_oversized_row, truncated_handle)
