"""The columns of the native CSV format. Each column reads and writes its cells."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from markethall.inventory.catalogue.domain.products import Product
from markethall.shared.kernel.csv_format import escape_formula, unescape_formula
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import (
    EXPONENT_BY_CURRENCY,
    format_major_units,
    parse_major_units,
)
from markethall.shared.kernel.strict_json import parse_strict_json

_INTEGER_PATTERN: Final = re.compile(r"-?[0-9]{1,15}")
# `CsvColumn.read` returns this for an empty cell that leaves the field unchanged
ABSENT: Final = object()


class InvalidCell(ValueError):
    """The text of a cell is invalid. The user of the import sees the message."""


@dataclass(frozen=True)
class CsvColumn:
    """A column of the CSV format.

    `read` takes the text of a cell and the currency of its row. It returns the value for the model
    or ABSENT, or raises InvalidCell. `write` returns the text of a product's cell.
    """

    name: str
    read: Callable[[str, str], Any]
    write: Callable[[Product], str]


def _text_column(name: str) -> CsvColumn:
    """Build a column in which an empty cell means an empty text."""
    return CsvColumn(
        name,
        lambda text, _: unescape_formula(text),
        lambda product: escape_formula(getattr(product, name)),
    )


def _required_text_column(name: str) -> CsvColumn:
    """Build a column in which an empty cell leaves the field unchanged."""
    return CsvColumn(
        name,
        lambda text, _: unescape_formula(text) if text else ABSENT,
        lambda product: escape_formula(str(getattr(product, name))),
    )


def _optional_text_column(name: str) -> CsvColumn:
    """Build a column in which an empty cell clears the field."""
    return CsvColumn(
        name,
        lambda text, _: unescape_formula(text) or None,
        lambda product: escape_formula(getattr(product, name) or ""),
    )


def _number_column(name: str, empty: Any = None) -> CsvColumn:
    def write(product: Product) -> str:
        value = getattr(product, name)
        return "" if value is None else str(value)

    return CsvColumn(name, lambda text, _: parse_integer(text) if text else empty, write)


def _boolean_column(name: str) -> CsvColumn:
    """Build a column of true and false, in which an empty cell leaves the field unchanged."""
    return CsvColumn(
        name,
        lambda text, _: _parse_boolean(text) if text else ABSENT,
        lambda product: str(getattr(product, name)).lower(),
    )


def _parse_boolean(text: str) -> bool:
    """Raises InvalidCell."""
    folded = text.strip().lower()
    if folded not in {"true", "false"}:
        raise InvalidCell("must be true or false")
    return folded == "true"


def parse_integer(text: str) -> int:
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


def _parse_price(text: str, currency: str) -> Any:
    return {"amount": parse_amount(text, currency), "currency": currency} if text else ABSENT


def _format_amount(minor: int | None, currency: str) -> str:
    return "" if minor is None else format_major_units(minor, currency)


def _json_column(name: str, empty: Callable[[], Any]) -> CsvColumn:
    def write(product: Product) -> str:
        value = to_json_value(getattr(product, name))
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else ""

    return CsvColumn(name, lambda text, _: parse_json_cell(text) if text else empty(), write)


def _list_column(name: str) -> CsvColumn:
    """Build a column that reads a JSON array or a comma-separated list, and writes JSON."""
    column = _json_column(name, tuple)

    return CsvColumn(name, lambda text, _: parse_list_cell(text), column.write)


def parse_list_cell(text: str) -> Any:
    """Parse a JSON array or a comma-separated list. Raises InvalidCell."""
    if text.lstrip().startswith("["):
        return parse_json_cell(text)
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_json_cell(text: str) -> Any:
    """Raises InvalidCell."""
    try:
        return parse_strict_json(text)
    except (ValueError, RecursionError):
        raise InvalidCell("must be JSON") from None


def to_json_value(value: Any) -> Any:
    """Convert DTOs, mappings and tuples to JSON types."""
    if isinstance(value, Dto):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {name: to_json_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(part) for part in value]
    return value


# the export writes the columns in this order
COLUMNS: Final[Mapping[str, CsvColumn]] = {
    column.name: column
    for column in (
        _text_column("sku"),
        _text_column("name"),
        _text_column("description"),
        CsvColumn(
            "price",
            _parse_price,
            lambda product: _format_amount(product.price.amount, product.price.currency),
        ),
        # the reader handles the currency before the other columns, because amounts depend on it
        CsvColumn("currency", lambda _, __: ABSENT, lambda product: product.price.currency),
        CsvColumn(
            "compare_at",
            lambda text, currency: parse_amount(text, currency) if text else None,
            lambda product: _format_amount(product.compare_at, product.price.currency),
        ),
        _json_column("prices", tuple),
        _optional_text_column("category"),
        _optional_text_column("family"),
        _json_column("options", dict),
        _list_column("tags"),
        _list_column("images"),
        _json_column("attributes", dict),
        _json_column("translations", dict),
        _optional_text_column("barcode"),
        _number_column("weight_grams"),
        _required_text_column("tax_class"),
        _number_column("backorder_limit", ABSENT),
        _required_text_column("inventory_policy"),
        _boolean_column("track_inventory"),
        _number_column("low_stock_threshold"),
        CsvColumn("status", lambda text, _: text or ABSENT, lambda product: product.status.value),
    )
}
ON_HAND: Final = "on_hand"
CSV_HEADER: Final = (*COLUMNS, ON_HAND)


def product_to_cells(product: Product, on_hand: int) -> list[str]:
    return [*(column.write(product) for column in COLUMNS.values()), str(on_hand)]


def format_field(product: Product, name: str) -> str:
    """Format the value of a field for a message, with at most 80 characters."""
    text = COLUMNS[name].write(product)
    if name == "price":
        text = f"{text} {product.price.currency}"
    return repr(text[:80])


def is_known_currency(text: str) -> bool:
    return text in EXPONENT_BY_CURRENCY
