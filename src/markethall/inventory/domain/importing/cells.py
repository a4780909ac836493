"""Between a product and the cells of our own CSV: both ways here, so that they stay the same.

A spreadsheet takes a cell that begins with = + - @, a tab or a return for a formula, and runs it.
So an export puts an apostrophe in front of such a text, also where there are apostrophes already,
and an import takes one away: what goes out comes back as it was.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markethall.inventory.domain.items import Item
from markethall.shared.bodies import parsed_json
from markethall.shared.model import Dto
from markethall.shared.money import EXPONENT, from_major_units, in_major_units

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_GUARDED: Final = re.compile(r"''*[=+\-@\t\r]")
_QUOTED: Final = re.compile(r'[",\r\n]')
_WHOLE: Final = re.compile(r"-?[0-9]{1,15}")
# nothing in a cell: left as it is
ABSENT: Final = object()


class Unfit(ValueError):
    """What a cell says makes no sense: words for people."""


@dataclass(frozen=True)
class Column:
    """`read` gives the value that the model takes, of the cell's text and the row's currency, or
    ABSENT; it raises Unfit. `write` gives the text.
    """

    name: str
    read: Callable[[str, str], Any]
    write: Callable[[Item], str]


def guarded(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    return text[1:] if _GUARDED.match(text) else text


def csv_row(cells: Sequence[str]) -> str:
    """RFC 4180."""
    quoted = (f'"{c.replace(chr(34), chr(34) * 2)}"' if _QUOTED.search(c) else c for c in cells)
    return ",".join(quoted) + "\r\n"


def _text(name: str) -> Column:
    """Empty is a text too."""
    return Column(name, lambda text, _: unguarded(text), lambda item: guarded(getattr(item, name)))


def _set_text(name: str) -> Column:
    """Never empty: an empty cell leaves it."""
    return Column(
        name,
        lambda text, _: unguarded(text) if text else ABSENT,
        lambda item: guarded(str(getattr(item, name))),
    )


def _optional(name: str) -> Column:
    """An empty cell clears it."""
    return Column(
        name,
        lambda text, _: unguarded(text) or None,
        lambda item: guarded(getattr(item, name) or ""),
    )


def _number(name: str, empty: Any = None) -> Column:
    def write(item: Item) -> str:
        value = getattr(item, name)
        return "" if value is None else str(value)

    return Column(name, lambda text, _: whole(text) if text else empty, write)


def whole(text: str) -> int:
    """Raises Unfit."""
    text = text.strip()
    if not _WHOLE.fullmatch(text):
        raise Unfit("must be a whole number")
    return int(text)


def amount(text: str, currency: str) -> int:
    """In minor units. Raises Unfit."""
    try:
        return from_major_units(text.strip(), currency)
    except ValueError as error:
        raise Unfit(str(error)) from None


def _price(text: str, currency: str) -> Any:
    return {"amount": amount(text, currency), "currency": currency} if text else ABSENT


def _amount_of(minor: int | None, currency: str) -> str:
    return "" if minor is None else in_major_units(minor, currency)


def _json(name: str, empty: Callable[[], Any]) -> Column:
    def write(item: Item) -> str:
        value = plain(getattr(item, name))
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else ""

    return Column(name, lambda text, _: _parsed(text) if text else empty(), write)


def _list(name: str) -> Column:
    """JSON, as we write it; or several parted by commas, as people do."""
    column = _json(name, tuple)

    def read(text: str, currency: str) -> Any:
        if not text or text.lstrip().startswith("["):
            return column.read(text, currency)
        return tuple(part.strip() for part in text.split(",") if part.strip())

    return Column(name, read, column.write)


def _parsed(text: str) -> Any:
    try:
        return parsed_json(text)
    except (ValueError, RecursionError):
        raise Unfit("must be JSON") from None


def plain(value: Any) -> Any:
    """As JSON knows it."""
    if isinstance(value, Dto):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


# the order of the export
COLUMNS: Final[Mapping[str, Column]] = {
    column.name: column
    for column in (
        _text("sku"),
        _text("name"),
        _text("description"),
        Column("price", _price, lambda item: _amount_of(item.price.amount, item.price.currency)),
        # read before all others, since amounts depend on it
        Column("currency", lambda _, __: ABSENT, lambda item: item.price.currency),
        Column(
            "compare_at",
            lambda text, currency: amount(text, currency) if text else None,
            lambda item: _amount_of(item.compare_at, item.price.currency),
        ),
        _json("prices", tuple),
        _optional("category"),
        _optional("family"),
        _json("options", dict),
        _list("tags"),
        _list("images"),
        _json("attributes", dict),
        _json("translations", dict),
        _optional("barcode"),
        _number("weight_grams"),
        _set_text("tax_class"),
        _number("backorder_limit", ABSENT),
        _number("low_stock_threshold"),
        Column("status", lambda text, _: text or ABSENT, lambda item: item.status.value),
    )
}
ON_HAND: Final = "on_hand"
HEADER: Final = (*COLUMNS, ON_HAND)


def cells_of(item: Item, on_hand: int) -> list[str]:
    return [*(column.write(item) for column in COLUMNS.values()), str(on_hand)]


def known_currency(text: str) -> bool:
    return text in EXPONENT
