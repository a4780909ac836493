"""Cut or drop values of Shopify's files that exceed the limits of a product, with a warning."""

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
from markethall.inventory.catalogue.domain.labels import fold_tags
from markethall.inventory.imports.domain.file_records import RowWarning
from markethall.inventory.imports.domain.html_text import html_to_text
from markethall.inventory.imports.domain.shopify_columns import (
    OPTION_COLUMNS,
    CellsByColumn,
    ShopifyHeader,
)
from markethall.inventory.imports.domain.value_limits import (
    CUT_PATH_MESSAGE,
    complete_url,
    cut_path,
)

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
