"""A row, validated: what it wants a product to be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import ValidationError

from markethall.inventory.contract import ImportedProduct
from markethall.inventory.domain.importing.places import Flaw, Place, legible
from markethall.inventory.domain.items import Item

MOST_FLAWS: Final = 10
_NOT_YET: Final = UUID(int=0)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
# stand in for what a row need not say of a product that is there already
_STAND_INS: Final[Mapping[str, Any]] = MappingProxyType(
    {"name": "-", "price": MappingProxyType({"amount": 0, "currency": "EUR"})}
)

# where pydantic found something -> what it is called in the file
Named = Callable[[tuple[Any, ...]], str]


@dataclass(frozen=True)
class Draft:
    """A row that makes sense. `given`: what it says of the product; the rest stays as it is."""

    line: int
    # as it would be if it were new; made with the draft, while the database is busy
    item: Item
    on_hand: int | None
    given: frozenset[str]
    missing: tuple[Flaw, ...] = ()

    @property
    def key(self) -> str:
        """Case does not count in a sku."""
        return self.item.sku.lower()

    def new(self, product_id: UUID, now: datetime) -> Item:
        own = {"product_id": product_id, "created_at": now, "updated_at": now}
        # not replace(): it costs as much as all else that is done for a row here
        return Item(**(vars(self.item) | own))

    def change(self, item: Item, now: datetime) -> bool:
        """False when the product is so already."""
        return item.become(self.item, self.given, now)


# a row that stands for a product: a draft, or what is wrong with it
Row = Draft | tuple[Flaw, ...]


class Step(NamedTuple):
    """Some records that belong together, and where the reading stands behind them."""

    rows: tuple[Row, ...]
    read: int
    after: Place


def drafted(line: int, values: Mapping[str, Any], named: Named) -> Row:
    """`values` are those that the row gives."""
    given = frozenset(values) - {"sku", "on_hand"}
    absent = [name for name in _STAND_INS if name not in values]
    whole = {**values, **{name: _STAND_INS[name] for name in absent}}
    try:
        command = ImportedProduct.model_validate(whole)
    except ValidationError as error:
        return _flaws(line, error, named)
    missing = tuple(Flaw(line, named((name,)), "missing", "is required") for name in absent)
    item = Item.new(_NOT_YET, command, _NEVER)
    return Draft(line, item, command.on_hand, given, missing)


def _flaws(line: int, error: ValidationError, named: Named) -> tuple[Flaw, ...]:
    found = error.errors(include_url=False, include_context=False)
    return tuple(_flaw(line, item, named) for item in found[:MOST_FLAWS])


def _flaw(line: int, item: Any, named: Named) -> Flaw:
    if isinstance(item["input"], str) and not _is_unicode(item["input"]):
        return Flaw(line, named(item["loc"]), "encoding", "is not UTF-8")
    return Flaw(line, named(item["loc"]), item["type"], _readable(item["msg"]))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _readable(message: str) -> str:
    return legible(message.removeprefix("Value error, "))[:200]
