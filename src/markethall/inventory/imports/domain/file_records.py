"""Positions, records and errors in an imported file."""

from dataclasses import dataclass
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


def sanitize(text: str) -> str:
    """Replace NUL and lone surrogates, because Postgres cannot store them."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


class UnreadableFile(Exception):
    """The file cannot be read. Programs may rely on `code`; users see `message`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
