"""Where in a file the reading stands."""

from dataclasses import dataclass
from typing import Final

# of one record, in bytes: the largest product fits, with its texts in every language. What is
# longer is an error, and is passed over
MAX_RECORD_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class FilePosition:
    """At the beginning of a record: its first byte, its line (counted from one).

    `skipping`: inside a record that is too long. `full`: the Shopify handle that has too many
    rows, so that the rest of them are errors.
    """

    offset: int = 0
    line: int = 1
    in_oversized_row: bool = False
    truncated_handle: str = ""


@dataclass(frozen=True)
class RowError:
    """One thing that is wrong with a row."""

    line: int
    field: str
    code: str
    message: str


@dataclass(frozen=True)
class FileRecord:
    """One row as it stands in the file: cells (or one JSON text), or what is wrong with it."""

    line: int
    size: int
    cells: list[str]
    next_position: FilePosition
    error: RowError | None = None


def sanitize(text: str) -> str:
    """What Postgres keeps: no NUL, and nothing that is no Unicode."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


class UnreadableFile(Exception):
    """The file as a whole cannot be read: a stable code, and words for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
