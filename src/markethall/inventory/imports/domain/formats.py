"""Choose the reader of a file by the requested format and the first line."""

import re
from collections.abc import Sequence
from typing import Final, Protocol

from markethall.inventory.imports.contract import ImportFormat
from markethall.inventory.imports.domain.family_rows import FamilyCsvReader, is_families_csv
from markethall.inventory.imports.domain.file_records import (
    MAX_RECORD_BYTES,
    FilePosition,
    UnreadableFile,
)
from markethall.inventory.imports.domain.native_readers import CsvReader, NdjsonReader
from markethall.inventory.imports.domain.record_parser import BOM, FileChunk, read_csv_records
from markethall.inventory.imports.domain.row_validation import StepReader
from markethall.inventory.imports.domain.shopify_columns import is_shopify
from markethall.inventory.imports.domain.shopify_reader import ShopifyReader
from markethall.inventory.imports.domain.woocommerce_columns import is_woocommerce
from markethall.inventory.imports.domain.woocommerce_reader import WooCommerceReader

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
    names = trim_names(header.cells)
    if is_shopify(names):
        return ShopifyReader(names, currency, delimiter), header.next_position
    if is_families_csv(names):
        return FamilyCsvReader(names, delimiter), header.next_position
    if is_woocommerce(names):
        return WooCommerceReader(names, currency, delimiter), header.next_position
    return CsvReader(names, currency, delimiter), header.next_position


def trim_names(cells: Sequence[str]) -> list[str]:
    """Trim the names of the columns, and drop empty ones at the end of the line."""
    names = [name.strip() for name in cells]
    while names and not names[-1]:
        names.pop()
    return names


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
