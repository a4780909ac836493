"""A row of WooCommerce's product CSV, with the errors and warnings about its values."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from markethall.inventory.catalogue.domain.text_keys import sku_key
from markethall.inventory.imports.domain.csv_columns import InvalidCell
from markethall.inventory.imports.domain.file_records import RowError, RowWarning, sanitize
from markethall.inventory.imports.domain.woocommerce_columns import AttributeCells, WooHeader
from markethall.inventory.imports.domain.woocommerce_values import split_list

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
