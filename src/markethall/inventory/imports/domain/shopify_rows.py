"""The columns of Shopify's product, price and inventory files, with their old and new names.

Letter case and spaces around a name are ignored. Unknown columns are ignored, too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from markethall.inventory.catalogue.contract.families import (
    MAX_SEO_DESCRIPTION_LENGTH,
    MAX_SEO_TITLE_LENGTH,
)
from markethall.inventory.catalogue.contract.fields import (
    MAX_TAG_LENGTH,
    ProductStatus,
    join_path,
    split_path,
)
from markethall.inventory.catalogue.contract.products import (
    MAX_ATTRIBUTE_LENGTH,
    MAX_DESCRIPTION_LENGTH,
    MAX_IMAGES,
    MAX_NAME_LENGTH,
    MAX_OPTION_LENGTH,
    MAX_TAGS,
)
from markethall.inventory.catalogue.domain.text_keys import fold_tags
from markethall.inventory.imports.domain.file_records import RowWarning, UnreadableFile
from markethall.inventory.imports.domain.foreign_values import (
    CUT_PATH_MESSAGE,
    complete_url,
    cut_path,
    html_to_text,
)

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


_MAX_LENGTH_BY_COLUMN: Final[Mapping[str, int]] = {
    "title": MAX_NAME_LENGTH,
    "body": MAX_DESCRIPTION_LENGTH,
    "vendor": MAX_ATTRIBUTE_LENGTH,
    "seo_title": MAX_SEO_TITLE_LENGTH,
    "seo_description": MAX_SEO_DESCRIPTION_LENGTH,
    **{column: MAX_OPTION_LENGTH for pair in OPTION_COLUMNS for column in pair},
}

Row = tuple[int, CellsByColumn]


def fit_row(header: ShopifyHeader, row: Row) -> tuple[Row, Sequence[RowWarning]]:
    """Cut the texts of a row to their limits, and convert its body to plain text.

    Return the new row, and warnings about the texts that were cut.
    """
    line, cells = row
    fitted = dict(cells)
    if cells.get("body"):
        fitted["body"] = html_to_text(cells["body"])
    warnings = []
    for column in ("type", "category"):
        path = cells.get(column) or ""
        fitted[column] = cut_path(path)
        if fitted[column] != join_path(split_path(path)):
            warnings.append(RowWarning(line, header.name(column), "cut", CUT_PATH_MESSAGE))
    for column, limit in _MAX_LENGTH_BY_COLUMN.items():
        if len(fitted.get(column, "")) > limit:
            fitted[column] = fitted[column][:limit].rstrip()
            message = f"has more than {limit} characters: cut"
            warnings.append(RowWarning(line, header.name(column), "cut", message))
    return (line, fitted), warnings


def first_row_warnings(header: ShopifyHeader, row: Row) -> Iterator[RowWarning]:
    line, cells = row
    status = cells.get("status", "")
    if status and status.casefold() not in set(ProductStatus):
        message = f"{status[:40]!r} is no status here: draft"
        yield RowWarning(line, header.name("status"), "unknown_status", message)
    tags = [tag.strip() for tag in cells.get("tags", "").split(",") if tag.strip()]
    name = header.name("tags")
    if any(len(tag) > MAX_TAG_LENGTH for tag in tags):
        message = f"a tag has more than {MAX_TAG_LENGTH} characters: cut"
        yield RowWarning(line, name, "cut", message)
    if len(fold_tags(tags)) > MAX_TAGS:
        yield RowWarning(
            line, name, "dropped", f"has more than {MAX_TAGS} tags: the rest is dropped"
        )


def split_tags(text: str) -> tuple[str, ...]:
    tags = (tag.strip()[:MAX_TAG_LENGTH] for tag in text.split(","))
    return fold_tags(tag for tag in tags if tag)[:MAX_TAGS]


def read_images(
    header: ShopifyHeader, rows: Iterable[Row]
) -> tuple[Sequence[str], Sequence[RowWarning]]:
    """Return the image URLs of a Handle, and warnings about the images that are dropped."""
    images: dict[str, None] = {}
    warnings = []
    for line, cells in rows:
        text = cells.get("image", "")
        url = complete_url(text)
        if url is None and text:
            message = "is not the URL of an image: dropped"
            warnings.append(RowWarning(line, header.name("image"), "dropped", message))
        elif url and url not in images and len(images) == MAX_IMAGES:
            message = f"a product has at most {MAX_IMAGES} images: dropped"
            warnings.append(RowWarning(line, header.name("image"), "dropped", message))
        elif url:
            images[url] = None
    return tuple(images), warnings
