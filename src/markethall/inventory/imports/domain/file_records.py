"""Positions, records and errors in an imported file.

A chunk of bytes is split into complete records of CSV (RFC 4180) or NDJSON. Invalid UTF-8 is
decoded to lone surrogates. The models reject the surrogates later, when the error can name the
cell.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

# enough for the largest valid product with all its translations; a longer record is an error
MAX_RECORD_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class FilePosition:
    """The position of a record: its offset in bytes and its line number, which begins at 1.

    `in_oversized_row` is true inside a record that is too long. `truncated_handle` is the last
    Shopify handle if it had too many rows; further rows with this handle are errors.
    """

    offset: int = 0
    line: int = 1
    in_oversized_row: bool = False
    truncated_handle: str = ""


@dataclass(frozen=True)
class RowNote:
    """A note about a row. Programs may rely on `code`; users see `message`."""

    line: int
    field: str
    code: str
    message: str


class RowError(RowNote):
    """The reason why a row is not imported."""


class RowWarning(RowNote):
    """A value of a row was cut or dropped, or an image was not fetched. The row is imported."""


class RowChange(RowNote):
    """A change of a product that a real import would make."""


@dataclass(frozen=True)
class FileRecord:
    """A row of the file with its cells or its error. In NDJSON its only cell is the JSON text.

    `size` is in bytes.
    """

    line: int
    size: int
    cells: list[str]
    next_position: FilePosition
    error: RowError | None = None

    @property
    def is_blank(self) -> bool:
        return not self.error and not any(self.cells)


def sanitize(text: str) -> str:
    """Replace NUL and lone surrogates, because Postgres cannot store them."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


class UnreadableFile(Exception):
    """The file cannot be read. Programs may rely on `code`; users see `message`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


BOM: Final = b"\xef\xbb\xbf"
# A single cell may be as long as a row. This limit of the csv module applies to the whole process.
csv.field_size_limit(MAX_RECORD_BYTES)

_TOO_LONG_MESSAGE: Final = f"is longer than {MAX_RECORD_BYTES} bytes"
_UNCLOSED_MESSAGE: Final = (
    f"a quoted cell does not end, or is longer than {MAX_RECORD_BYTES} characters"
)


@dataclass(frozen=True)
class FileChunk:
    """Bytes from `position` on. If `is_last` is true, they reach the end of the file."""

    data: bytes
    position: FilePosition
    is_last: bool


def read_ndjson_records(chunk: FileChunk) -> Iterator[FileRecord]:
    """Yield one record per line. Empty lines and the rest of an oversized line have no cells."""
    position = chunk.position
    for line in _complete_lines(chunk, b"\n"):
        after = _position_after(position, line)
        error = None if position.in_oversized_row else _too_long_error(position, line)
        text = "" if error or position.in_oversized_row else _decode(line).strip()
        yield FileRecord(position.line, len(line), [text] if text else [], after, error)
        position = after


def read_csv_records(chunk: FileChunk, delimiter: str = ",") -> Iterator[FileRecord]:
    """Yield one record per row. A row may span several lines."""
    lines = list(_complete_lines(chunk, None))
    position, index = chunk.position, 0
    while index < len(lines):
        if position.in_oversized_row or len(lines[index]) > MAX_RECORD_BYTES:
            after = _position_after(position, lines[index])
            error = None if position.in_oversized_row else _too_long_error(position, lines[index])
            yield FileRecord(position.line, len(lines[index]), [], after, error)
            position, index = after, index + 1
            continue
        for parsed in _parse_rows(lines, index, position, delimiter):
            # None means that the row does not end in this chunk
            if (
                parsed is None
                and not chunk.is_last
                and sum(map(len, lines[index:])) < MAX_RECORD_BYTES
            ):
                return
            record = parsed or _unclosed_record(lines[index], position)
            yield record
            position = record.next_position
            if record.error:
                index += 1
                break
            index += record.next_position.line - record.line


def read_csv_rows(chunk: FileChunk, delimiter: str, width: int) -> Iterator[FileRecord]:
    """Yield the records of a CSV file with `width` columns. A record of another width is an error.

    Empty cells after the last column are dropped. A blank record may have any width.
    """
    for record in read_csv_records(chunk, delimiter):
        yield _fit(record, width)


def _fit(record: FileRecord, width: int) -> FileRecord:
    if record.error or record.is_blank or len(record.cells) == width:
        return record
    if len(record.cells) > width and not any(cell.strip() for cell in record.cells[width:]):
        return replace(record, cells=record.cells[:width])
    message = f"has {len(record.cells)} cells, and the first line {width}"
    return replace(record, error=RowError(record.line, "", "ragged", message))


def _parse_rows(
    lines: list[bytes], index: int, position: FilePosition, delimiter: str
) -> Iterator[FileRecord | None]:
    """Yield rows up to and including the first malformed one.

    If the malformed row does not end in `lines` (a quoted cell is open), yield None instead.
    """
    lines_read = 0
    size = 0

    def feed() -> Iterator[str]:
        nonlocal lines_read, size
        for line in lines[index:]:
            if len(line) > MAX_RECORD_BYTES:
                return
            lines_read += 1
            size += len(line)
            yield _decode(line)

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        start, lines_before, size_before = position, lines_read, size
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _malformed_record(lines, index + lines_before, start, str(error))
            return
        position = FilePosition(
            position.offset + size - size_before, position.line + lines_read - lines_before
        )
        yield FileRecord(start.line, size - size_before, cells, position)


def _malformed_record(
    lines: list[bytes], index: int, position: FilePosition, reason: str
) -> FileRecord | None:
    """Build the record of a row that the csv module rejects. Return None if the row does not end.

    The caller continues at the next line of the file, so a wrong quote makes only one row invalid.
    """
    if "unexpected end" in reason:
        return None
    code = "cell_too_long" if "field larger" in reason else "quotes"
    message = _UNCLOSED_MESSAGE if code == "cell_too_long" else "text stands behind a closing quote"
    error = RowError(position.line, "", code, message)
    return FileRecord(
        position.line, len(lines[index]), [], _position_after(position, lines[index]), error
    )


def _unclosed_record(line: bytes, position: FilePosition) -> FileRecord:
    error = RowError(position.line, "", "quotes", _UNCLOSED_MESSAGE)
    return FileRecord(position.line, len(line), [], _position_after(position, line), error)


def _complete_lines(chunk: FileChunk, line_end: bytes | None) -> Iterator[bytes]:
    """Yield complete lines with their line ends.

    If a line is too long, yield only the part of it that is in this chunk.
    """
    data = chunk.data
    lines = data.splitlines(keepends=True) if line_end is None else _split_lines(data, line_end)
    if lines and not chunk.is_last and not lines[-1].endswith(b"\n"):
        # the last line may continue in the next chunk; after "\r" too, because "\n" may follow
        incomplete = lines.pop()
        if len(incomplete) > MAX_RECORD_BYTES or (chunk.position.in_oversized_row and not lines):
            lines.append(incomplete)
    yield from lines


def _split_lines(data: bytes, line_end: bytes) -> list[bytes]:
    lines = [line + line_end for line in data.split(line_end)]
    lines[-1] = lines[-1].removesuffix(line_end)
    return lines if lines[-1] else lines[:-1]


def _position_after(position: FilePosition, line: bytes) -> FilePosition:
    """Return the position after a line. A line without a line end is part of an oversized row."""
    is_complete = line.endswith((b"\n", b"\r"))
    return FilePosition(
        position.offset + len(line), position.line + is_complete, in_oversized_row=not is_complete
    )


def _too_long_error(position: FilePosition, line: bytes) -> RowError | None:
    return (
        RowError(position.line, "", "row_too_long", _TOO_LONG_MESSAGE)
        if len(line) > MAX_RECORD_BYTES
        else None
    )


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
