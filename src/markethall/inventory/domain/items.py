"""Products as they are kept."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType, NoneType
from typing import Any, Final, Self
from uuid import UUID

from markethall.inventory.contract import (
    MAX_ATTRIBUTES,
    MAX_LANGUAGES,
    MAX_OPTIONS,
    FurtherPrice,
    NewProduct,
    Price,
    PriceView,
    Product,
    ProductChange,
    ProductStatus,
    Translation,
    TranslationView,
)
from markethall.shared.errors import Invalid
from markethall.shared.money import Money

_EVER: Final = datetime.min.replace(tzinfo=UTC)
_CLEARED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "description": "",
        "tags": (),
        "images": (),
        "options": {},
        "attributes": {},
        "prices": (),
        "translations": {},
    }
)
_MOST: Final = MappingProxyType(
    {"options": MAX_OPTIONS, "attributes": MAX_ATTRIBUTES, "translations": MAX_LANGUAGES}
)
# most values of a product, and an import has millions of them
_AS_THEY_ARE: Final = frozenset({str, int, NoneType, ProductStatus})


@dataclass
class Item:
    """A product as it is kept. Its values are replaced, never changed in place."""

    product_id: UUID
    sku: str
    name: str
    description: str
    price: Money
    category: str | None
    family: str | None
    options: Mapping[str, str]
    tags: tuple[str, ...]
    images: tuple[str, ...]
    attributes: Mapping[str, str | int | bool]
    barcode: str | None
    weight_grams: int | None
    tax_class: str
    compare_at: int | None
    prices: tuple[PriceView, ...]
    translations: Mapping[str, TranslationView]
    backorder_limit: int
    low_stock_threshold: int | None
    status: ProductStatus
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def new(cls, product_id: UUID, command: NewProduct, now: datetime) -> Self:
        fields = {name: _kept(getattr(command, name)) for name in NewProduct.model_fields}
        return cls(product_id=product_id, version=1, created_at=now, updated_at=now, **fields)

    def change(self, command: ProductChange, now: datetime) -> bool:
        """False when everything is so already. Raises Invalid."""
        wanted = {
            name: _patched(getattr(self, name), name, getattr(command, name))
            for name in command.model_fields_set
        }
        new = {name: value for name, value in wanted.items() if value != getattr(self, name)}
        for name, value in new.items():
            setattr(self, name, value)
        return self._changed(now) if new else False

    def become(self, wanted: Self, names: Collection[str], now: datetime) -> bool:
        """As `wanted` in what is named. False when everything is so already."""
        changed = [name for name in names if getattr(self, name) != getattr(wanted, name)]
        for name in changed:
            setattr(self, name, getattr(wanted, name))
        return self._changed(now) if changed else False

    def archive(self, now: datetime) -> bool:
        """False when it is archived already."""
        if self.status == ProductStatus.ARCHIVED:
            return False
        self.status = ProductStatus.ARCHIVED
        return self._changed(now)

    def price_at(self, now: datetime) -> tuple[Money, int | None]:
        """What it costs at that time, and what it is compared with."""
        timed = [price for price in self.prices if self._holds(price, now)]
        if not timed:
            return self.price, self.compare_at
        # the later entry, where two began at once
        last = max(enumerate(timed), key=lambda entry: (_begin(entry[1]), entry[0]))[1]
        return Money(amount=last.amount, currency=last.currency), last.compare_at

    def seen_with(self, available: int, now: datetime) -> Product:
        price, compare_at = self.price_at(now)
        fields = {**vars(self), "price": price, "compare_at": compare_at}
        return Product(**fields, available=available)

    def _holds(self, price: PriceView, now: datetime) -> bool:
        return (
            price.currency == self.price.currency
            and (price.valid_from is None or price.valid_from <= now)
            and (price.valid_until is None or now < price.valid_until)
        )

    def _changed(self, now: datetime) -> bool:
        self.version += 1
        self.updated_at = now
        return True


def _begin(price: PriceView) -> datetime:
    return price.valid_from or _EVER


def _kept(value: Any) -> Any:
    """A request's value as the entity keeps it: tags once, money as Money."""
    if type(value) in _AS_THEY_ARE:
        return value
    match value:
        case dict():
            return in_order({name: _kept(part) for name, part in value.items()})
        case tuple():
            return tuple(dict.fromkeys(map(_kept, value)))
        case FurtherPrice():
            return PriceView(**value.model_dump())
        case Price():
            return Money(amount=value.amount, currency=value.currency)
        case Translation():
            return TranslationView(name=value.name, description=value.description)
    return value


def in_order(named: Mapping[str, Any]) -> dict[str, Any]:
    """The order of PostgreSQL's jsonb, so that every storage shows the same."""
    if len(named) < 2:  # noqa: PLR2004 - nothing to put in order
        return dict(named)
    return dict(sorted(named.items(), key=lambda pair: (len(pair[0].encode()), pair[0].encode())))


def _patched(now: Any, name: str, value: Any) -> Any:
    if value is None:
        return _CLEARED.get(name)
    return _merged(now, name, value) if name in _MOST else _kept(value)


def _onto(now: Any, patch: Any) -> Any:
    """RFC 7396: of a translation, a text that is absent stays as it is."""
    if isinstance(now, TranslationView) and isinstance(patch, Translation):
        given = {name: getattr(patch, name) for name in patch.model_fields_set}
        return now.model_copy(update=given)
    return _kept(patch)


def _merged(now: Mapping[str, Any], name: str, patch: Mapping[str, Any]) -> Mapping[str, Any]:
    both = {**now, **{key: _onto(now.get(key), part) for key, part in patch.items()}}
    merged = in_order({key: value for key, value in both.items() if value is not None})
    if len(merged) > _MOST[name]:
        message = f"should have at most {_MOST[name]} after the change"
        raise Invalid(errors=[{"field": f"/{name}", "code": "too_long", "message": message}])
    return merged
