"""Readers of the native formats: NDJSON, and CSV with the columns of the exports."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from markethall.inventory.imports.contract import ImportFormat
from markethall.inventory.imports.domain.csv_columns import (
    CSV_READERS,
    FAMILY_COLUMNS,
    FAMILY_READERS,
    SEO_COLUMNS,
    check_columns,
    read_cells,
)
from markethall.inventory.imports.domain.file_records import (
    BOM,
    MAX_RECORD_BYTES,
    FileChunk,
    FilePosition,
    FileRecord,
    RowError,
    UnreadableFile,
    read_csv_records,
    read_csv_rows,
    read_ndjson_records,
    sanitize,
)
from markethall.inventory.imports.domain.row_validation import (
    ReadStep,
    RowResult,
    StepReader,
    read_each,
    validate_family,
    validate_row,
)
from markethall.inventory.imports.domain.shopify_reader import ShopifyReader
from markethall.inventory.imports.domain.shopify_rows import is_shopify
from markethall.inventory.imports.domain.woocommerce_reader import WooCommerceReader
from markethall.inventory.imports.domain.woocommerce_row import is_woocommerce
from markethall.shared.kernel.money import EXPONENT_BY_CURRENCY
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
        return read_each(
            read_csv_rows(chunk, self._delimiter, len(self._header)), self._validate_record
        )

    def _validate_record(self, record: FileRecord) -> RowResult:
        line, cells = record.line, dict(zip(self._header, record.cells, strict=True))
        currency = cells.get("currency", "").strip() or self._currency
        if currency not in EXPONENT_BY_CURRENCY:
            message = "must be an ISO 4217 currency code in capitals"
            return (RowError(*self._locate(line, "currency"), "currency", message),)
        if cells.get("compare_at") and not cells.get("price"):
            # without a price in the row, the currency of compare_at would be unknown
            message = "needs a price in the same row"
            return (RowError(*self._locate(line, "compare_at"), "price_missing", message),)
        values, errors = read_cells(
            cells, currency, CSV_READERS, lambda name: self._locate(line, name)
        )
        return errors or validate_row(
            line, values, lambda path: self._locate(line, _column_of(path))
        )

    def _locate(self, line: int, column: str) -> tuple[int, str]:
        return line, self._names.get(column, column)


class FamilyCsvReader:
    """Reader of the CSV of families. The columns may be in any order; only `label` is required."""

    format = ImportFormat.FAMILIES
    file_index = None

    def __init__(self, header: Sequence[str], delimiter: str) -> None:
        """Raises UnreadableFile."""
        self._header = [name.strip().lower() for name in header]
        # maps each name in lower case to its spelling in the file, for error messages
        self._names = dict(zip(self._header, header, strict=True))
        self._delimiter = delimiter
        check_columns(self._header, FAMILY_COLUMNS)
        if self._names.keys() & SEO_COLUMNS.keys() not in (set(), set(SEO_COLUMNS)):
            message = (
                "The file needs both seo_title and seo_description, because they are replaced "
                "together."
            )
            raise UnreadableFile("header", message)

    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        return read_each(
            read_csv_rows(chunk, self._delimiter, len(self._header)), self._validate_record
        )

    def _validate_record(self, record: FileRecord) -> RowResult:
        line, cells = record.line, dict(zip(self._header, record.cells, strict=True))
        values, errors = read_cells(
            cells, "", FAMILY_READERS, lambda name: (line, self._names[name])
        )
        if "seo_title" in values:
            values["seo"] = {part: values.pop(name) for name, part in SEO_COLUMNS.items()}
        return errors or validate_family(line, values, lambda path: (line, self._column_of(path)))

    def _column_of(self, path: tuple[Any, ...]) -> str:
        name = "_".join(str(part) for part in path[:2]) if path[:1] == ("seo",) else str(path[0])
        return self._names.get(name, name[:100])


class NdjsonReader:
    """Reader of NDJSON. Each line is a JSON object with the fields of `ImportedProduct`."""

    format = ImportFormat.NDJSON
    file_index = None

    def read_steps(self, chunk: FileChunk) -> Iterator[ReadStep]:
        return read_each(read_ndjson_records(chunk), self._validate_record)

    def _validate_record(self, record: FileRecord) -> RowResult:
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
    if "compare_at" in header and "price" not in header:
        raise UnreadableFile(
            "header", "compare_at is an amount of the price: it needs a price beside."
        )
    if "sku" not in header:
        raise UnreadableFile("header", "The first line must name the columns; sku is missing.")
    check_columns(header, CSV_READERS)


def _column_of(path: tuple[Any, ...]) -> str:
    first = str(path[0])[:100] if path else ""
    return _PRICE_COLUMNS.get(str(path[1]), first) if first == "price" and len(path) > 1 else first


def _json_pointer(path: tuple[Any, ...]) -> str:
    """Format a JSON pointer (RFC 6901)."""
    parts = (str(part)[:100].replace("~", "~0").replace("/", "~1") for part in path)
    return sanitize("".join(f"/{part}" for part in parts))


_SEPARATOR_LINE: Final = re.compile(rb'"?sep=([,;|\t])"?[,;\t ]*(?:\r\n|\r|\n)', re.IGNORECASE)
_LINE_END: Final = re.compile(rb"[\r\n]")
_NOT_TEXT: Final = re.compile("[\x00\udc80-\udcff]")


class RowReader(StepReader, Protocol):
    @property
    def format(self) -> ImportFormat: ...

    @property
    def file_index(self) -> StepReader | None:
        """The index that the reader needs, or None.

        The caller passes the whole file to the index before it reads the first row.
        """


def open_reader(
    format_: ImportFormat, currency: str, head: bytes, *, is_whole_file: bool
) -> tuple[RowReader, FilePosition]:
    """Return the reader of the file and the position of its first row. Raises UnreadableFile.

    `head` is the beginning of the file. It must contain the first line, or more bytes than a line
    may have.
    """
    start = FilePosition(offset=len(BOM) if head.startswith(BOM) else 0)
    data = head[start.offset :]
    if not data:
        raise UnreadableFile("empty", "The file is empty.")
    if format_ == ImportFormat.NDJSON:
        return NdjsonReader(), start
    start, data, delimiter = _read_delimiter(start, data)
    header = next(read_csv_records(FileChunk(data, start, is_whole_file), delimiter), None)
    if header is None or header.error:
        raise UnreadableFile(
            "header", f"The first line is no header, or longer than {MAX_RECORD_BYTES} bytes."
        )
    if any(_NOT_TEXT.search(name) for name in header.cells):
        raise UnreadableFile("encoding", "The file is not UTF-8.")
    names = [name.strip() for name in header.cells]
    while names and not names[-1]:
        # empty names at the end of the line are ignored
        names.pop()
    if is_shopify(names):
        return ShopifyReader(names, currency, delimiter), header.next_position
    lower_names = {name.lower() for name in names}
    if "label" in lower_names and "sku" not in lower_names:
        return FamilyCsvReader(names, delimiter), header.next_position
    if is_woocommerce(names):
        return WooCommerceReader(names, currency, delimiter), header.next_position
    return CsvReader(names, currency, delimiter), header.next_position


def _read_delimiter(start: FilePosition, data: bytes) -> tuple[FilePosition, bytes, str]:
    """Return the position of the header, the bytes from there, and the delimiter.

    A first line such as `sep=;` sets the delimiter, as in Excel.
    """
    if not (line := _SEPARATOR_LINE.match(data)):
        return start, data, _detect_delimiter(data)
    position = FilePosition(start.offset + line.end(), start.line + 1)
    return position, data[line.end() :], line[1].decode()


def _detect_delimiter(data: bytes) -> str:
    """Return the most frequent of comma, semicolon and tab in the first line, outside quotes.

    In some countries, spreadsheets separate cells by semicolons.
    """
    line = _LINE_END.split(data[:MAX_RECORD_BYTES], maxsplit=1)[0]
    unquoted = b"".join(line.split(b'"')[::2])
    return max(",;\t", key=lambda candidate: unquoted.count(candidate.encode()))
