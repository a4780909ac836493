"""A row of WooCommerce's product CSV, with the errors and warnings about its values."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from markethall.inventory.catalogue.domain.text_keys import label_key, sku_key
from markethall.inventory.imports.domain.csv_columns import InvalidCell
from markethall.inventory.imports.domain.file_records import (
    RowError,
    RowWarning,
    UnreadableFile,
    sanitize,
)
from markethall.inventory.imports.domain.foreign_values import split_list
from markethall.shared.kernel.csv_format import unescape_formula

# maps the column name that the code uses to the names in files
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "id": ("ID",),
    "type": ("Type", "Typ"),
    "sku": ("SKU", "Artikelnummer"),
    "barcode": ("GTIN, UPC, EAN, or ISBN", "GTIN, UPC, EAN oder ISBN"),
    "name": ("Name",),
    "published": ("Published", "Veröffentlicht"),
    "featured": ("Is featured?", "Ist hervorgehoben?"),
    "visibility": ("Visibility in catalog", "Sichtbarkeit im Katalog"),
    "short_description": ("Short description", "Kurzbeschreibung"),
    "description": ("Description", "Beschreibung"),
    "sale_starts": (
        "Date sale price starts",
        "Datum, an dem Angebotspreis beginnt",
        "Datum, an dem der Angebotspreis beginnt",
    ),
    "sale_ends": (
        "Date sale price ends",
        "Datum, an dem Angebotspreis endet",
        "Datum, an dem der Angebotspreis endet",
    ),
    "tax_status": ("Tax status", "Steuerstatus"),
    "tax_class": ("Tax class", "Steuerklasse"),
    "in_stock": ("In stock?", "Vorrätig?"),
    "stock": ("Stock", "Lager", "Bestand", "Lagerbestand"),
    "low_stock": ("Low stock amount", "Geringe Lagermenge"),
    "backorders": (
        "Backorders allowed?",
        "Lieferrückstände erlaubt?",
        "Lieferrückstande erlaubt?",
        "Rückstände erlaubt?",
    ),
    "sold_individually": ("Sold individually?", "Nur einzeln verkaufen?"),
    "sale_price": ("Sale price", "Angebotspreis"),
    "regular_price": ("Regular price", "Regulärer Preis"),
    "categories": ("Categories", "Kategorien"),
    "tags": ("Tags", "Schlagwörter"),
    "images": ("Images", "Bilder"),
    "parent": ("Parent", "Übergeordnetes Produkt"),
    "brands": ("Brands", "Marken"),
    "yoast_title": ("Meta: _yoast_wpseo_title",),
    "yoast_description": ("Meta: _yoast_wpseo_metadesc",),
    "rank_math_title": ("Meta: rank_math_title",),
    "rank_math_description": ("Meta: rank_math_description",),
}
_COLUMN_BY_NAME: Final = {
    label_key(name): column for column, names in _NAMES.items() for name in names
}
_WEIGHT: Final = re.compile(r"(?:weight|gewicht) \((\w+)\)")
_ATTRIBUTE: Final = re.compile(
    r"attribute? ([0-9]{1,4}) (?:(name)|(value\(s\)|wert\(e\))|(visible|sichtbar))"
)
_ATTRIBUTE_PARTS: Final = ("name", "value", "visible")
# columns that neither a native CSV file nor a Shopify file has
_IDENTIFYING: Final = frozenset(
    {
        "featured",
        "visibility",
        "sale_starts",
        "sale_ends",
        "tax_status",
        "in_stock",
        "backorders",
        "sold_individually",
        "sale_price",
        "regular_price",
    }
)
_PRODUCT_COLUMNS: Final = frozenset({"id", "sku", "name"})


@dataclass(frozen=True)
class AttributeCells:
    """One attribute of a row. `value` is one text in a variation, else a comma-separated list.

    `WooHeader.name(column)` returns the name of the column that contains the value.
    """

    column: str
    name: str
    value: str
    is_visible: bool


def is_woocommerce(header: Sequence[str]) -> bool:
    keys = [label_key(name) for name in header]
    columns = {_COLUMN_BY_NAME.get(key) for key in keys}
    has_attributes = any(_ATTRIBUTE.fullmatch(key) for key in keys)
    is_identified = has_attributes or not columns.isdisjoint(_IDENTIFYING)
    return is_identified and not columns.isdisjoint(_PRODUCT_COLUMNS)


class WooHeader:
    """The header of a file: the positions of its columns, and their names in the file."""

    def __init__(self, names: Sequence[str]) -> None:
        """Raises UnreadableFile."""
        self.width = len(names)
        self.weight_unit = ""
        self._positions: dict[str, int] = {}
        self._names: dict[str, str] = {}
        # maps the number of an attribute to the cell position of each of its parts
        self._attributes: dict[int, dict[str, int]] = {}
        for position, name in enumerate(names):
            self._add_column(position, name.strip())

    @property
    def has_attributes(self) -> bool:
        return bool(self._attributes)

    def has(self, *columns: str) -> bool:
        return any(column in self._positions for column in columns)

    def name(self, column: str) -> str:
        """Return the name of the column in the file, or its English name if the file lacks it."""
        return self._names.get(column) or _NAMES.get(column, (column,))[0]

    def text(self, column: str, cells: Sequence[str]) -> str:
        """Return the text of the cell, or an empty text if the file lacks the column."""
        position = self._positions.get(column)
        return "" if position is None else unescape_formula(cells[position].strip())

    def attributes(self, cells: Sequence[str]) -> tuple[AttributeCells, ...]:
        """Return the attributes that the row names, in the order of their numbers."""
        attributes = (
            self._attribute(cells, self._attributes[number]) for number in sorted(self._attributes)
        )
        return tuple(attribute for attribute in attributes if attribute.name)

    def _attribute(self, cells: Sequence[str], parts: Mapping[str, int]) -> AttributeCells:
        name, value, visible = (
            unescape_formula(cells[parts[part]].strip()) if part in parts else ""
            for part in _ATTRIBUTE_PARTS
        )
        column = _attribute_column(parts.get("value", parts.get("name", 0)))
        return AttributeCells(column, name, value, visible != "0")

    def _add_column(self, position: int, name: str) -> None:
        """Raises UnreadableFile."""
        key = label_key(name)
        column = _COLUMN_BY_NAME.get(key)
        if weight := _WEIGHT.fullmatch(key):
            column, self.weight_unit = "weight", weight[1]
        if attribute := _ATTRIBUTE.fullmatch(key):
            part = _ATTRIBUTE_PARTS[(attribute.lastindex or 2) - 2]
            parts = self._attributes.setdefault(int(attribute[1]), {})
            column, parts[part] = _attribute_column(position), position
        if column is None:
            return
        if column in self._names:
            message = f"The columns {self._names[column]} and {name} are the same."
            raise UnreadableFile("header", message)
        self._names[column] = name
        if not attribute:
            self._positions[column] = position


def _attribute_column(position: int) -> str:
    return f"attribute {position}"


T = TypeVar("T")

SIMPLE: Final = "simple"
VARIABLE: Final = "variable"
VARIATION: Final = "variation"
# types that state how a product is delivered, not whether it has variations
_DELIVERY_TYPES: Final = frozenset({"virtual", "downloadable"})
_ID_PREFIX: Final = "id:"
_MAX_ID_DIGITS: Final = 20


@dataclass
class WooRow:
    line: int
    header: WooHeader
    cells: Sequence[str]
    errors: list[RowError] = field(default_factory=list)
    warnings: list[RowWarning] = field(default_factory=list)

    def get(self, column: str) -> str:
        return self.header.text(column, self.cells)

    def has(self, *columns: str) -> bool:
        return self.header.has(*columns)

    @property
    def kind(self) -> str:
        """The type of the product, in lower case. A file may lack this column."""
        types = split_list(self.get("type").casefold())
        kinds = [name for name in types if name not in _DELIVERY_TYPES]
        if kinds:
            return kinds[0]
        return VARIATION if self.get("parent") else SIMPLE

    @property
    def id(self) -> str:
        """The number that WooCommerce has assigned to the product, or an empty text."""
        text = self.get("id")
        return text if text.isdecimal() and text.isascii() and len(text) <= _MAX_ID_DIGITS else ""

    @property
    def attributes(self) -> tuple[AttributeCells, ...]:
        return self.header.attributes(self.cells)

    @property
    def references(self) -> list[str]:
        """The texts by which variations refer to this product."""
        references = [f"{_ID_PREFIX}{int(self.id)}"] if self.id else []
        return [*references, sku_key(self.get("sku"))] if self.get("sku") else references

    @property
    def parent_reference(self) -> str:
        """The reference to the product of a variation, as in `references`."""
        text = self.get("parent")
        prefix, number = text[: len(_ID_PREFIX)].casefold(), text[len(_ID_PREFIX) :]
        if prefix == _ID_PREFIX and number.isdecimal() and number.isascii():
            return f"{_ID_PREFIX}{number.lstrip('0') or '0'}"
        return sku_key(text)

    @property
    def sku_keys(self) -> tuple[str, ...]:
        """The keys of the SKU in the row, and of the SKU that is derived if the row has none."""
        skus = [self.get("sku"), f"woo-{self.id}" if self.id else ""]
        return tuple(sku_key(sku) for sku in skus if sku)

    def fail(self, column: str, code: str, message: str) -> None:
        self.errors.append(RowError(self.line, self.column_name(column), code, message[:300]))

    def warn(self, column: str, code: str, message: str) -> None:
        self.warnings.append(RowWarning(self.line, self.column_name(column), code, message[:300]))

    def column_name(self, column: str) -> str:
        return sanitize(self.header.name(column))

    def parse(self, column: str, read: Callable[[str], T]) -> T | None:
        """Return the value of a cell. Return None for an empty or an invalid cell."""
        text = self.get(column)
        try:
            return read(text) if text else None
        except InvalidCell as error:
            self.fail(column, "invalid", str(error))
            return None

    def cut(self, column: str, text: str, limit: int) -> str:
        """Cut a text to its limit, with a warning."""
        if len(text) <= limit:
            return text
        self.warn(column, "cut", f"has more than {limit} characters: cut")
        return text[:limit].rstrip()


def unescape_text(text: str) -> str:
    r"""Replace `\,` by a comma and `&amp;` by `&`, as the export of WooCommerce writes them."""
    return html.unescape(text.replace("\\,", ","))
