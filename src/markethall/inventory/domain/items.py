"""Products as they are kept."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Self
from uuid import UUID

from markethall.inventory.contract import (
    MAX_ATTRIBUTES,
    MAX_OPTIONS,
    NewProduct,
    Price,
    Product,
    ProductChange,
    ProductStatus,
)
from markethall.shared.errors import Invalid
from markethall.shared.money import Money

_CLEARED: Final[Mapping[str, Any]] = MappingProxyType(
    {"description": "", "tags": (), "images": (), "options": {}, "attributes": {}}
)
_MOST: Final = MappingProxyType({"options": MAX_OPTIONS, "attributes": MAX_ATTRIBUTES})


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

    def seen_with(self, available: int) -> Product:
        return Product(**vars(self), available=available)

    def _changed(self, now: datetime) -> bool:
        self.version += 1
        self.updated_at = now
        return True


def _kept(value: Any) -> Any:
    """A request's value as the entity keeps it: tags once, money as Money."""
    if isinstance(value, Price):
        return Money(amount=value.amount, currency=value.currency)
    return tuple(dict.fromkeys(value)) if isinstance(value, tuple) else value


def _patched(now: Any, name: str, value: Any) -> Any:
    if value is None:
        return _CLEARED.get(name)
    return _merged(now, name, value) if name in _MOST else _kept(value)


def _merged(now: Mapping[str, Any], name: str, patch: Mapping[str, Any]) -> Mapping[str, Any]:
    merged = {key: value for key, value in {**now, **patch}.items() if value is not None}
    if len(merged) > _MOST[name]:
        message = f"should have at most {_MOST[name]} after the change"
        raise Invalid(errors=[{"field": f"/{name}", "code": "too_long", "message": message}])
    return merged
