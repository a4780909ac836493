"""Readers of the native formats: NDJSON, and CSV with the columns of the export."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from markethall.inventory.imports.contract import ImportFormat
from markethall.inventory.imports.domain.csv_columns import (
    ABSENT,
    COLUMNS,
    CSV_HEADER,
    ON_HAND,
    InvalidCell,
    is_known_currency,
    parse_integer,
)
from markethall.inventory.imports.domain.family_rows import validate_family
from markethall.inventory.imports.domain.file_records import (
    FileRecord,
    RowError,
    UnreadableFile,
    sanitize,
)
from markethall.inventory.imports.domain.record_parser import (
    FileChunk,
    fit_cells,
    read_csv_records,
    read_ndjson_records,
)
from markethall.inventory.imports.domain.row_validation import ReadStep, RowResult, validate_row
from markethall.shared.kernel.strict_json import parse_strict_json

# field of the price in the model -> column of the file
_PRICE_COLUMNS: Final = {"amount": "price", "currency": "currency"}


class CsvReader:
    """Reader of native CSV. The columns may be in any order; only `sku` is required."""

    format = ImportFormat.CSV
    file_index = None

    def __init__(self, header: Sequence[str], currency: str, delimiter: str) -> None:
        self._header = [name.strip().lower() for name in header]
        # lower-case name -> the name as the file spells it, for error messages
        self._names = dict(zip(self._header, header, strict=True))
        self._currency = currency
        self._delimiter = delimiter
        _check_header(self._header)

    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        for record in read_csv_records(chunk, self._delimiter):
            yield ReadStep(
                self._validate_record(record),
                int(not _is_blank(record)),
                record.next_position,
                record.size,
            )

    def _validate_record(self, record: FileRecord) -> tuple[RowResult, ...]:
        if record.error:
            return ((record.error,),)
        if _is_blank(record):
            return ()
        texts = fit_cells(record.cells, len(self._header))
        if len(texts) != len(self._header):
            return (_cell_count_errors(record, len(self._header)),)
        return (self._validate_cells(record.line, dict(zip(self._header, texts, strict=True))),)

    def _validate_cells(self, line: int, cells: Mapping[str, str]) -> RowResult:
        currency = cells.get("currency", "").strip() or self._currency
        if not is_known_currency(currency):
            message = "must be an ISO 4217 currency code in capitals"
            return (RowError(*self._locate(line, "currency"), "currency", message),)
        if cells.get("compare_at") and not cells.get("price"):
            # without a price in the row, the currency of compare_at would be unknown
            message = "needs a price in the same row"
            return (RowError(*self._locate(line, "compare_at"), "price_missing", message),)
        values: dict[str, Any] = {}
        errors = []
        for name, text in cells.items():
            try:
                value = _parse_cell(name, text, currency)
            except InvalidCell as error:
                errors.append(RowError(*self._locate(line, name), "invalid", str(error)))
            else:
                if value is not ABSENT:
                    values[name] = value
        return tuple(errors) or validate_row(
            line, values, lambda path: self._locate(line, _column_of(path))
        )

    def _locate(self, line: int, column: str) -> tuple[int, str]:
        return line, self._names.get(column, column)


class NdjsonReader:
    """Reader of NDJSON. Each line is a JSON object with the fields of `ImportedProduct`."""

    format = ImportFormat.NDJSON
    file_index = None

    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        for record in read_ndjson_records(chunk):
            is_blank = _is_blank(record)
            yield ReadStep(
                () if is_blank else (self._validate_record(record),),
                int(not is_blank),
                record.next_position,
                record.size,
            )

    def _validate_record(self, record: FileRecord) -> RowResult:
        if record.error:
            return (record.error,)
        try:
            values = parse_strict_json(record.cells[0])
        except (ValueError, RecursionError):
            return (RowError(record.line, "", "json", "is not JSON"),)
        if not isinstance(values, Mapping):
            return (RowError(record.line, "", "json", "must be an object"),)
        # a product has a SKU, a family has a label
        validate = validate_family if "label" in values and "sku" not in values else validate_row
        return validate(record.line, values, lambda path: (record.line, _json_pointer(path)))


def _check_header(header: Sequence[str]) -> None:
    """Raises UnreadableFile."""
    unknown = [name for name in header if name not in CSV_HEADER]
    if "compare_at" in header and "price" not in header:
        raise UnreadableFile(
            "header", "compare_at is an amount of the price: it needs a price beside."
        )
    if "sku" not in header:
        raise UnreadableFile("header", "The first line must name the columns; sku is missing.")
    if unknown:
        names = ", ".join(name[:40] or "an empty name" for name in unknown[:5])
        raise UnreadableFile("header", f"There are columns that are not known: {names}.")
    if len(set(header)) != len(header):
        raise UnreadableFile("header", "The first line names a column twice.")


def _parse_cell(name: str, text: str, currency: str) -> Any:
    if name == ON_HAND:
        return parse_integer(text) if text else ABSENT
    return COLUMNS[name].read(text, currency)


def _is_blank(record: FileRecord) -> bool:
    return not record.error and not any(record.cells)


def _cell_count_errors(record: FileRecord, expected: int) -> tuple[RowError, ...]:
    message = f"has {len(record.cells)} cells, and the first line {expected}"
    return (RowError(record.line, "", "ragged", message),)


def _column_of(path: tuple[Any, ...]) -> str:
    first = str(path[0])[:100] if path else ""
    return _PRICE_COLUMNS.get(str(path[1]), first) if first == "price" and len(path) > 1 else first


def _json_pointer(path: tuple[Any, ...]) -> str:
    """Format a JSON pointer (RFC 6901)."""
    parts = (str(part)[:100].replace("~", "~0").replace("/", "~1") for part in path)
    return sanitize("".join(f"/{part}" for part in parts))
