"""Readers of our own formats: CSV with our columns, and NDJSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from markethall.inventory.contract import ImportFormat
from markethall.inventory.domain.importing.cells import (
    ABSENT,
    COLUMNS,
    HEADER,
    ON_HAND,
    Unfit,
    known_currency,
    whole,
)
from markethall.inventory.domain.importing.drafts import Row, Step, drafted
from markethall.inventory.domain.importing.places import Flaw, Record, Unreadable, legible
from markethall.inventory.domain.importing.records import Window, csv_records, ndjson_records
from markethall.shared.bodies import parsed_json

# a place inside of what one column holds
_INSIDE: Final = {"amount": "price", "currency": "currency"}


class CsvReader:
    """Our columns, any of them, in any order; `sku` must be there."""

    format = ImportFormat.CSV

    def __init__(self, header: Sequence[str], currency: str, delimiter: str) -> None:
        self._header = [name.strip().lower() for name in header]
        self._currency = currency
        self._delimiter = delimiter
        _check(self._header)

    def steps(self, window: Window) -> Iterator[Step]:
        for record in csv_records(window, self._delimiter):
            yield Step(self._rows(record), int(not _is_blank(record)), record.after)

    def _rows(self, record: Record) -> tuple[Row, ...]:
        if record.flaw:
            return ((record.flaw,),)
        if _is_blank(record):
            return ()
        if len(record.cells) != len(self._header):
            return (_ragged(record, len(self._header)),)
        return (self._row(record),)

    def _row(self, record: Record) -> Row:
        cells = dict(zip(self._header, record.cells, strict=True))
        currency = cells.get("currency", "").strip() or self._currency
        if not known_currency(currency):
            message = "must be an ISO 4217 currency code in capitals"
            return (Flaw(record.line, "currency", "currency", message),)
        if cells.get("compare_at") and not cells.get("price"):
            # of a product that is there, the currency may be another one
            message = "needs a price in the same row"
            return (Flaw(record.line, "compare_at", "price_missing", message),)
        values: dict[str, Any] = {}
        flaws = []
        for name, text in cells.items():
            try:
                value = _read(name, text, currency)
            except Unfit as error:
                flaws.append(Flaw(record.line, name, "invalid", str(error)))
            else:
                if value is not ABSENT:
                    values[name] = value
        return tuple(flaws) or drafted(record.line, values, _column)


class NdjsonReader:
    """A JSON object per line: contract.ImportedProduct."""

    format = ImportFormat.NDJSON

    def steps(self, window: Window) -> Iterator[Step]:
        for record in ndjson_records(window):
            blank = _is_blank(record)
            yield Step(() if blank else (self._row(record),), int(not blank), record.after)

    def _row(self, record: Record) -> Row:
        if record.flaw:
            return (record.flaw,)
        try:
            values = parsed_json(record.cells[0])
        except (ValueError, RecursionError):
            return (Flaw(record.line, "", "json", "is not JSON"),)
        if not isinstance(values, Mapping):
            return (Flaw(record.line, "", "json", "must be an object"),)
        return drafted(record.line, values, _pointer)


def _check(header: Sequence[str]) -> None:
    """Raises Unreadable."""
    unknown = [name for name in header if name not in HEADER]
    if "compare_at" in header and "price" not in header:
        raise Unreadable("header", "compare_at is an amount of the price: it needs a price beside.")
    if "sku" not in header:
        raise Unreadable("header", "The first line must name the columns; sku is missing.")
    if unknown:
        names = ", ".join(name[:40] or "an empty name" for name in unknown[:5])
        raise Unreadable("header", f"There are columns that are not known: {names}.")
    if len(set(header)) != len(header):
        raise Unreadable("header", "The first line names a column twice.")


def _read(name: str, text: str, currency: str) -> Any:
    if name == ON_HAND:
        return whole(text) if text else ABSENT
    return COLUMNS[name].read(text, currency)


def _is_blank(record: Record) -> bool:
    return not record.flaw and not any(record.cells)


def _ragged(record: Record, due: int) -> tuple[Flaw, ...]:
    message = f"has {len(record.cells)} cells, and the first line {due}"
    return (Flaw(record.line, "", "ragged", message),)


def _column(path: tuple[Any, ...]) -> str:
    first = str(path[0])[:100] if path else ""
    return _INSIDE.get(str(path[1]), first) if first == "price" and len(path) > 1 else first


def _pointer(path: tuple[Any, ...]) -> str:
    """RFC 6901."""
    parts = (str(part)[:100].replace("~", "~0").replace("/", "~1") for part in path)
    return legible("".join(f"/{part}" for part in parts))
