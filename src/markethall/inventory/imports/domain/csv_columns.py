"""The columns of the native CSV formats. Each column reads and writes its cells."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from markethall.inventory.catalogue.contract.families import FamilyStatus
from markethall.inventory.catalogue.domain.families import Family
from markethall.inventory.catalogue.domain.products import Product
from markethall.inventory.imports.domain.file_records import RowError, UnreadableFile
from markethall.shared.kernel.csv_format import escape_formula, unescape_formula
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import format_major_units, parse_major_units
from markethall.shared.kernel.strict_json import parse_strict_json

E = TypeVar("E")
CellReader = Callable[[str, str], Any]

_INTEGER_PATTERN: Final = re.compile(r"-?[0-9]{1,15}")
# `CsvColumn.read` returns this for an empty cell that leaves the field unchanged
ABSENT: Final = object()


class InvalidCell(ValueError):
    """The text of a cell is invalid. The user of the import sees the message."""


@dataclass(frozen=True)
class CsvColumn(Generic[E]):
    """A column of a native CSV format.

    `read` takes the text of a cell and the currency of its row. It returns the value for the model
    or ABSENT, or raises InvalidCell. `write` returns the text of the cell of an entity.
    """

    name: str
    read: CellReader
    write: Callable[[E], str]


def text_column(name: str, empty: Any) -> CsvColumn[Any]:
    """Build a column in which an empty cell means `empty`."""
    return CsvColumn(
        name,
        lambda text, _: unescape_formula(text) if text else empty,
        lambda entity: escape_formula(str(getattr(entity, name) or "")),
    )


def _number_column(name: str, empty: Any = None) -> CsvColumn[Product]:
    def write(product: Product) -> str:
        value = getattr(product, name)
        return "" if value is None else str(value)

    return CsvColumn(name, lambda text, _: _parse_integer(text) if text else empty, write)


def _parse_boolean(text: str) -> bool:
    """Raises InvalidCell."""
    folded = text.strip().lower()
    if folded not in {"true", "false"}:
        raise InvalidCell("must be true or false")
    return folded == "true"


def _parse_integer(text: str) -> int:
    """Raises InvalidCell."""
    text = text.strip()
    if not _INTEGER_PATTERN.fullmatch(text):
        raise InvalidCell("must be a whole number")
    return int(text)


def parse_amount(text: str, currency: str) -> int:
    """Convert an amount such as "12.50" to minor units. Raises InvalidCell."""
    try:
        return parse_major_units(text.strip(), currency)
    except ValueError as error:
        raise InvalidCell(str(error)) from None


def _format_amount(minor: int | None, currency: str) -> str:
    return "" if minor is None else format_major_units(minor, currency)


def json_column(name: str, empty: Callable[[], Any]) -> CsvColumn[Any]:
    def write(entity: Any) -> str:
        value = _to_json_value(getattr(entity, name))
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else ""

    return CsvColumn(name, lambda text, _: _parse_json(text) if text else empty(), write)


def list_column(name: str) -> CsvColumn[Any]:
    """Build a column that reads a JSON array or a comma-separated list, and writes JSON."""
    return replace(json_column(name, tuple), read=lambda text, _: _parse_list(text))


def _parse_list(text: str) -> Any:
    """Raises InvalidCell."""
    if text.lstrip().startswith("["):
        return _parse_json(text)
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _parse_json(text: str) -> Any:
    """Raises InvalidCell."""
    try:
        return parse_strict_json(text)
    except (ValueError, RecursionError):
        raise InvalidCell("must be JSON") from None


def _to_json_value(value: Any) -> Any:
    """Convert DTOs, mappings and tuples to JSON types."""
    if isinstance(value, Dto):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {name: _to_json_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json_value(part) for part in value]
    return value


# the export writes the columns in this order
COLUMNS: Final[Mapping[str, CsvColumn[Product]]] = {
    column.name: column
    for column in (
        text_column("sku", ""),
        text_column("name", ""),
        text_column("description", ""),
        CsvColumn(
            "price",
            lambda text, currency: (
                {"amount": parse_amount(text, currency), "currency": currency} if text else ABSENT
            ),
            lambda product: _format_amount(product.price.amount, product.price.currency),
        ),
        # the reader handles the currency before the other columns, because amounts depend on it
        CsvColumn("currency", lambda _, __: ABSENT, lambda product: product.price.currency),
        CsvColumn(
            "compare_at",
            lambda text, currency: parse_amount(text, currency) if text else None,
            lambda product: _format_amount(product.compare_at, product.price.currency),
        ),
        json_column("prices", tuple),
        text_column("category", None),
        text_column("family", None),
        json_column("options", dict),
        list_column("tags"),
        list_column("images"),
        json_column("attributes", dict),
        json_column("translations", dict),
        text_column("barcode", None),
        _number_column("weight_grams"),
        text_column("tax_class", ABSENT),
        _number_column("backorder_limit", ABSENT),
        text_column("inventory_policy", ABSENT),
        CsvColumn(
            "track_inventory",
            lambda text, _: _parse_boolean(text) if text else ABSENT,
            lambda product: str(product.track_inventory).lower(),
        ),
        _number_column("low_stock_threshold"),
        CsvColumn("status", lambda text, _: text or ABSENT, lambda product: product.status.value),
    )
}
# the functions that read the cells of a file; the quantity is no field of a product
CSV_READERS: Final[Mapping[str, CellReader]] = {
    **{column.name: column.read for column in COLUMNS.values()},
    "on_hand": lambda text, _: _parse_integer(text) if text else ABSENT,
}
CSV_HEADER: Final = tuple(CSV_READERS)


def product_to_cells(product: Product, on_hand: int) -> list[str]:
    return [*(column.write(product) for column in COLUMNS.values()), str(on_hand)]


def format_field(product: Product, name: str) -> str:
    """Format the value of a field for a message, with at most 80 characters."""
    text = COLUMNS[name].write(product)
    if name == "price":
        text = f"{text} {product.price.currency}"
    return repr(text[:80])


def _seo_column(name: str) -> CsvColumn[Family]:
    return CsvColumn(
        f"seo_{name}",
        lambda text, _: unescape_formula(text) or None,
        lambda family: escape_formula(getattr(family.seo, name) or ""),
    )


# the export writes the columns in this order
FAMILY_COLUMNS: Final[Mapping[str, CsvColumn[Family]]] = {
    column.name: column
    for column in (
        text_column("label", ""),
        text_column("slug", ABSENT),
        text_column("name", None),
        text_column("description", ""),
        text_column("category", None),
        list_column("images"),
        _seo_column("title"),
        _seo_column("description"),
        json_column("metadata", dict),
        json_column("translations", dict),
        CsvColumn(
            "status",
            lambda text, _: text or ABSENT,
            lambda family: FamilyStatus(family.status).value,
        ),
    )
}
FAMILY_HEADER: Final = tuple(FAMILY_COLUMNS)
FAMILY_READERS: Final = {column.name: column.read for column in FAMILY_COLUMNS.values()}
SEO_COLUMNS: Final = {"seo_title": "title", "seo_description": "description"}


def family_to_cells(family: Family) -> list[str]:
    return [column.write(family) for column in FAMILY_COLUMNS.values()]


def describe_family_change(before: Family, after: Family, name: str) -> str:
    """Format the change of a field for a message, each value with at most 80 characters."""
    return " -> ".join(_format_family_field(family, name) for family in (before, after))


def _format_family_field(family: Family, name: str) -> str:
    columns = SEO_COLUMNS if name == "seo" else (name,)
    text = ", ".join(FAMILY_COLUMNS[column].write(family) for column in columns)
    return repr(text[:80])


def check_columns(header: Sequence[str], known: Collection[str]) -> None:
    """Raises UnreadableFile for a name that is not known or occurs twice."""
    unknown = [name for name in header if name not in known]
    if unknown:
        names = ", ".join(name[:40] or "an empty name" for name in unknown[:5])
        raise UnreadableFile("header", f"There are columns that are not known: {names}.")
    if len(set(header)) != len(header):
        raise UnreadableFile("header", "The first line names a column twice.")


def read_cells(
    cells: Mapping[str, str],
    currency: str,
    readers: Mapping[str, CellReader],
    locate: Callable[[str], tuple[int, str]],
) -> tuple[dict[str, Any], tuple[RowError, ...]]:
    """Return the values of the cells by column, without those that are ABSENT, and the errors."""
    values: dict[str, Any] = {}
    errors = []
    for name, text in cells.items():
        try:
            value = readers[name](text, currency)
        except InvalidCell as error:
            errors.append(RowError(*locate(name), "invalid", str(error)))
        else:
            if value is not ABSENT:
                values[name] = value
    return values, tuple(errors)
