"""The columns of Shopify's product, price and inventory files, with their old and new names.

Letter case and spaces around a name are ignored. Unknown columns are ignored, too.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from markethall.inventory.imports.domain.file_records import UnreadableFile

CellsByColumn = Mapping[str, str]

# the column name that the code uses -> its names in files, the newest last
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "handle": ("handle", "url handle"),
    "title": ("title",),
    "body": ("body (html)", "body html", "description"),
    "vendor": ("vendor",),
    "category": ("product category", "standard product type"),
    "type": ("type", "custom product type"),
    "tags": ("tags",),
    "published": ("published", "published on online store"),
    "status": ("status",),
    "option1_name": ("option1 name",),
    "option1_value": ("option1 value",),
    "option2_name": ("option2 name",),
    "option2_value": ("option2 value",),
    "option3_name": ("option3 name",),
    "option3_value": ("option3 value",),
    "sku": ("variant sku", "sku"),
    "price": ("variant price", "price"),
    "compare_at": ("variant compare at price", "compare-at price", "compare at price"),
    "barcode": ("variant barcode", "barcode"),
    "grams": ("variant grams", "weight value (grams)"),
    "tracker": ("variant inventory tracker", "inventory tracker"),
    "policy": ("variant inventory policy", "continue selling when out of stock"),
    "quantity": ("variant inventory qty", "inventory quantity"),
    "available": ("available",),
    "on_hand": ("on hand", "on hand (current)"),
    "new_on_hand": ("on hand (new)",),
    "location": ("location",),
    "image": ("image src", "product image url"),
    "seo_title": ("seo title",),
    "seo_description": ("seo description",),
    "variant_image": ("variant image", "variant image url"),
}
_COLUMN_BY_NAME: Final = {name: column for column, names in _NAMES.items() for name in names}
# the units on hand are in the first of these columns that is not empty
QUANTITY_COLUMNS: Final = ("new_on_hand", "on_hand", "quantity", "available")
OPTION_COLUMNS: Final = tuple((f"option{n}_name", f"option{n}_value") for n in (1, 2, 3))
# a file with the column handle and one of these columns is a Shopify file
_IDENTIFYING: Final = frozenset({"title", "option1_value", "sku", "price"})


def is_shopify(header: Sequence[str]) -> bool:
    columns = {_COLUMN_BY_NAME.get(_fold(name)) for name in header}
    return "handle" in columns and not columns.isdisjoint(_IDENTIFYING)


class ShopifyHeader:
    """The first line of a file: the columns that it has, and the names that it gives them."""

    def __init__(self, names: Sequence[str]) -> None:
        """Raises UnreadableFile."""
        self.width = len(names)
        self._positions: dict[str, int] = {}
        self._names: dict[str, str] = {}
        for position, name in enumerate(names):
            column = _COLUMN_BY_NAME.get(_fold(name))
            if column in self._positions:
                message = f"The columns {self._names[column]} and {name.strip()} are the same."
                raise UnreadableFile("header", message)
            if column:
                self._positions[column], self._names[column] = position, name.strip()
        self.has_options = any(value in self._positions for _, value in OPTION_COLUMNS)
        # in an inventory file, every column except the quantities only identifies the variant
        self.is_inventory = "location" in self._positions

    def has(self, *columns: str) -> bool:
        return any(column in self._positions for column in columns)

    def name(self, column: str) -> str:
        """Return the name of the column in the file, or its usual name if the file lacks it."""
        return self._names.get(column) or _NAMES.get(column, (column,))[0]

    def cells(self, record_cells: Sequence[str]) -> CellsByColumn:
        return {
            column: record_cells[position].strip() for column, position in self._positions.items()
        }


def _fold(name: str) -> str:
    return " ".join(name.split()).casefold()
