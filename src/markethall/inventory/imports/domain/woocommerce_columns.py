"""The columns of WooCommerce's product CSV, with their English and German names.

Letter case and spaces around a name are ignored. Unknown columns are ignored, too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markethall.inventory.catalogue.domain.text_keys import label_key
from markethall.inventory.imports.domain.file_records import UnreadableFile
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
GRAMS_BY_UNIT: Final[Mapping[str, str]] = {
    "kg": "1000",
    "g": "1",
    "lb": "453.59237",
    "lbs": "453.59237",
    "oz": "28.349523125",
}
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
