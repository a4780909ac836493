"""Reader of Shopify's product CSV, as Shopify exports it.

Rows of one Handle are one product: the first says what it is, each with a price is a variant, the
others only bring images. A variant becomes a product of ours, and the variants of one Handle a
family. See https://help.shopify.com/en/manual/products/import-export/using-csv.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from markethall.inventory.contract import ImportFormat, ProductStatus
from markethall.inventory.domain.importing.cells import Unfit, amount
from markethall.inventory.domain.importing.drafts import Row, Step, drafted
from markethall.inventory.domain.importing.places import Flaw, Place, Record, legible
from markethall.inventory.domain.importing.plain import plain_text
from markethall.inventory.domain.importing.records import Window, csv_records

# of one Handle; Shopify itself knows 2,048 variants and 250 images
MOST_ROWS: Final = 2500
MOST_BYTES: Final = 4 * 1024 * 1024
MOST_IMAGES: Final = 20
LONGEST_SKU: Final = 64

_OPTIONS: Final = tuple((f"Option{n} Name", f"Option{n} Value") for n in (1, 2, 3))
_ONLY: Final = ("Title", "Default Title")
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_UNUSABLE: Final = re.compile(r"[^A-Za-z0-9_-]+")
_NUMBER: Final = re.compile(r"(-?[0-9]{1,9})(?:\.[0-9]{1,6})?")
# what our model calls it -> the column it came from
_COLUMNS: Final[Mapping[str, str]] = {
    "sku": "Variant SKU",
    "name": "Title",
    "description": "Body (HTML)",
    "price": "Variant Price",
    "compare_at": "Variant Compare At Price",
    "barcode": "Variant Barcode",
    "weight_grams": "Variant Grams",
    "category": "Type",
    "family": "Handle",
    "tags": "Tags",
    "images": "Image Src",
    "attributes": "Vendor",
    "status": "Status",
    "on_hand": "Variant Inventory Qty",
    "options": "Option1 Value",
}

Cells = Mapping[str, str]


def is_shopify(header: Sequence[str]) -> bool:
    return {"Handle", "Title"} <= set(header) and any(
        name.startswith(("Variant ", "Option1 ")) for name in header
    )


@dataclass
class _Group:
    """The rows of one Handle, as they come in."""

    handle: str
    rows: list[tuple[int, Cells]] = field(default_factory=list)
    # rows in between that make no sense
    strays: list[Row] = field(default_factory=list)
    size: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.rows) >= MOST_ROWS or self.size >= MOST_BYTES


class ShopifyReader:
    format = ImportFormat.SHOPIFY

    def __init__(self, header: Sequence[str], currency: str, delimiter: str) -> None:
        self._header = list(header)
        self._currency = currency
        self._delimiter = delimiter

    def steps(self, window: Window) -> Iterator[Step]:
        """A Handle at a time: one that may go on behind the window is left for the next."""
        group: _Group | None = None
        full, place = window.place.full, window.place
        for record in csv_records(window, self._delimiter):
            cells = self._cells(record)
            handle = cells.get("Handle", "")
            if group and handle not in {"", group.handle}:
                yield self._step(group, place)
                group = None
            place = record.after
            if not handle:
                stray = self._stray(record)
                if group:
                    group.strays += stray
                else:
                    yield Step(stray, len(stray), _within(place, full))
                continue
            if full and legible(handle) == full:
                yield Step(((_too_many(record.line),),), 1, _within(place, full))
                continue
            full = ""
            group = group or _Group(handle)
            group.rows.append((record.line, cells))
            group.size += record.size
            if group.is_full:
                full = legible(handle)
                yield self._step(group, _within(place, full))
                group = None
        if group and window.last:
            yield self._step(group, place)

    def _cells(self, record: Record) -> Cells:
        if record.flaw or len(record.cells) != len(self._header):
            return {}
        return dict(zip(self._header, record.cells, strict=True))

    def _stray(self, record: Record) -> tuple[Row, ...]:
        """What is wrong with a row of no Handle; nothing with an empty one."""
        if record.flaw:
            return ((record.flaw,),)
        if not any(record.cells):
            return ()
        if len(record.cells) != len(self._header):
            message = f"has {len(record.cells)} cells, and the first line {len(self._header)}"
            return ((Flaw(record.line, "", "ragged", message),),)
        return ((Flaw(record.line, "Handle", "missing", "is required"),),)

    def _step(self, group: _Group, after: Place) -> Step:
        images = _distinct(row.get("Image Src", "") for _, row in group.rows)
        first = group.rows[0][1]
        variants = [(line, row) for line, row in group.rows if _is_variant(row)]
        if not variants:
            variants = group.rows[:1]
        rows = tuple(self._row(line, first, row, images) for line, row in variants)
        return Step((*group.strays, *rows), len(group.rows) + len(group.strays), after)

    def _row(self, line: int, first: Cells, row: Cells, images: Sequence[str]) -> Row:
        try:
            values = self._values(first, row, images)
        except _Wrong as wrong:
            return (Flaw(line, wrong.column, "invalid", wrong.message),)
        return drafted(line, values, _named)

    def _values(self, first: Cells, row: Cells, images: Sequence[str]) -> dict[str, Any]:
        """What a variant's row and the first of its Handle say. Raises _Wrong."""
        handle = row["Handle"]
        options = _options(first, row)
        values: dict[str, Any] = {
            "sku": _unquoted(row.get("Variant SKU", "")) or stable_sku(handle, options),
            "name": first["Title"],
            "description": plain_text(first.get("Body (HTML)", "")),
            "category": _category(first),
            "family": handle if options else None,
            "options": options,
            "tags": _distinct(tag.strip() for tag in first.get("Tags", "").split(",")),
            "images": _distinct([row.get("Variant Image", ""), *images])[:MOST_IMAGES],
            "attributes": {"vendor": first["Vendor"]} if first.get("Vendor") else {},
            "status": _status(first),
        }
        if price := row.get("Variant Price", ""):
            minor = self._amount("Variant Price", price)
            values["price"] = {"amount": minor, "currency": self._currency}
        if quantity := row.get("Variant Inventory Qty", ""):
            # sold beyond what was there: nothing is on hand
            values["on_hand"] = max(0, _number("Variant Inventory Qty", quantity))
        return values | self._more(row)

    def _more(self, row: Cells) -> dict[str, Any]:
        """Raises _Wrong."""
        more: dict[str, Any] = {
            "barcode": _unquoted(row.get("Variant Barcode", "")) or None,
            "compare_at": None,
            "weight_grams": None,
        }
        if weight := row.get("Variant Grams", ""):
            more["weight_grams"] = _number("Variant Grams", weight) or None
        if before := row.get("Variant Compare At Price", ""):
            more["compare_at"] = self._amount("Variant Compare At Price", before) or None
        return more

    def _amount(self, column: str, text: str) -> int:
        try:
            return amount(text, self._currency)
        except Unfit as error:
            raise _Wrong(column, str(error)) from None


class _Wrong(Exception):
    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column
        self.message = message


def stable_sku(handle: str, options: Mapping[str, str]) -> str:
    """For a variant without one: the same each time, and another for each variant."""
    parts = [handle, *options.values()]
    sku = ".".join(parts)
    plain = all(_PLAIN.fullmatch(part) for part in parts)
    # case does not count in a sku: of m and M one would become the other
    if plain and sku == sku.lower() and len(sku) <= LONGEST_SKU:
        return sku
    # letters were lost: what tells it from its like is in the digest
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:12]
    readable = ".".join(_UNUSABLE.sub("-", part).strip("-_") for part in parts).strip(".")
    return f"{readable[: LONGEST_SKU - 13]}-{digest}" if readable else digest


def _is_variant(row: Cells) -> bool:
    return bool(row.get("Variant Price") or row.get("Variant SKU") or row.get("Option1 Value"))


def _options(first: Cells, row: Cells) -> dict[str, str]:
    """The names stand in the first row only."""
    named = [(first.get(name, ""), row.get(value, "")) for name, value in _OPTIONS]
    return {name: value for name, value in named if name and value and (name, value) != _ONLY}


def _category(first: Cells) -> str | None:
    """Of Shopify's own tree, only the leaf."""
    return first.get("Type") or first.get("Product Category", "").split(">")[-1].strip() or None


def _status(first: Cells) -> str:
    status = first.get("Status", "").strip().lower() or ProductStatus.ACTIVE
    hidden = first.get("Published", "").strip().lower() == "false"
    return ProductStatus.DRAFT if hidden and status == ProductStatus.ACTIVE else status


def _number(column: str, text: str) -> int:
    """Raises _Wrong."""
    found = _NUMBER.fullmatch(text.strip())
    if not found:
        raise _Wrong(column, "must be a number")
    return int(found[1])


def _unquoted(text: str) -> str:
    """Shopify puts an apostrophe in front of digits, for spreadsheets."""
    return text.strip().removeprefix("'")


def _distinct(texts: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


def _within(place: Place, full: str) -> Place:
    return Place(place.offset, place.line, place.skipping, full)


def _too_many(line: int) -> Flaw:
    return Flaw(line, "Handle", "too_many_rows", f"has more than {MOST_ROWS} rows")


def _named(path: tuple[Any, ...]) -> str:
    return _COLUMNS.get(str(path[0]), str(path[0])[:100]) if path else ""
