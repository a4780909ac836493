"""Positions, records and errors of an imported file."""

from dataclasses import dataclass
from typing import Final

# the largest product fits, with its texts in every language; a longer record is an error
MAX_RECORD_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class FilePosition:
    """Position of a record: offset in bytes, and line number from 1.

    `in_oversized_row` is true inside a record that is too long. `truncated_handle` is a Shopify
    handle with too many rows: its further rows are errors.
    """

    offset: int = 0
    line: int = 1
    in_oversized_row: bool = False
    truncated_handle: str = ""


@dataclass(frozen=True)
class RowError:
    line: int
    field: str
    code: str
    message: str


@dataclass(frozen=True)
class FileRecord:
    """Row of the file: its cells (one JSON text in NDJSON), or its error."""

    line: int
    size: int
    cells: list[str]
    next_position: FilePosition
    error: RowError | None = None


def sanitize(text: str) -> str:
    """Replace NUL and lone surrogates, which Postgres rejects."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


class UnreadableFile(Exception):
    """The file cannot be read. `code` is stable, `message` is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
