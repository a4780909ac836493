"""Which format a file is of, by its head."""

import re
from collections.abc import Iterator
from typing import Final, Protocol

from markethall.inventory.contract import ImportFormat
from markethall.inventory.domain.importing.drafts import Step
from markethall.inventory.domain.importing.places import LONGEST, Place, Unreadable
from markethall.inventory.domain.importing.records import BOM, Window, csv_records
from markethall.inventory.domain.importing.shopify import ShopifyReader, is_shopify
from markethall.inventory.domain.importing.tables import CsvReader, NdjsonReader

_FOREIGN: Final = re.compile("[\x00\udc80-\udcff]")


class Reader(Protocol):
    @property
    def format(self) -> ImportFormat: ...

    def steps(self, window: Window) -> Iterator[Step]:
        """What the window holds whole, in small steps; nothing when it is too small."""


def opened(
    format_: ImportFormat, currency: str, head: bytes, *, last: bool
) -> tuple[Reader, Place]:
    """The file's reader, and the place of its first row. `head` holds the first line, or as much
    as a line may have. Raises Unreadable.
    """
    begin = Place(offset=len(BOM) if head.startswith(BOM) else 0)
    data = head[begin.offset :]
    if not data:
        raise Unreadable("empty", "The file is empty.")
    if format_ == ImportFormat.NDJSON:
        return NdjsonReader(), begin
    delimiter = _delimiter(data)
    header = next(csv_records(Window(data, begin, last), delimiter), None)
    if header is None or header.flaw:
        raise Unreadable("header", f"The first line is no header, or longer than {LONGEST} bytes.")
    if any(_FOREIGN.search(name) for name in header.cells):
        raise Unreadable("encoding", "The file is not UTF-8.")
    names = [name.strip() for name in header.cells]
    if is_shopify(names):
        return ShopifyReader(names, currency, delimiter), header.after
    return CsvReader(names, currency, delimiter), header.after


def _delimiter(data: bytes) -> str:
    """Spreadsheets of some countries part cells by semicolons."""
    line = data[:LONGEST].split(b"\n", 1)[0]
    return max(",;\t", key=lambda one: line.count(one.encode()))
