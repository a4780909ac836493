from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType, NoneType
from typing import Any, Final, Self
from uuid import UUID

from markethall.inventory.catalogue.contract.fields import (
    MAX_LANGUAGES,
    InventoryPolicy,
    ProductStatus,
)
from markethall.inventory.catalogue.contract.products import (
    MAX_ATTRIBUTES,
    MAX_OPTIONS,
    AdditionalPrice,
    AdditionalPriceView,
    NewProduct,
    Price,
    ProductChange,
    ProductView,
    Translation,
    TranslationView,
)
from markethall.inventory.catalogue.domain.text_keys import fold_names, fold_tags, respell_names
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.money import Money

# units, more than any order may have; the SQL function inventory.effective_backorder_limit has the
# same number
UNLIMITED_BACKORDER: Final = 1_000_000_000
_MIN_TIME: Final = datetime.min.replace(tzinfo=UTC)
_EMPTY_VALUES: Final[Mapping[str, Any]] = MappingProxyType(
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
_MAX_ENTRIES: Final = MappingProxyType(
    {"options": MAX_OPTIONS, "attributes": MAX_ATTRIBUTES, "translations": MAX_LANGUAGES}
)
# the fields in which tags or names may be equal ("Red" and "red"), each with the function that
# keeps only the first of equal ones
_FOLDS: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {"tags": fold_tags, "options": fold_names, "attributes": fold_names}
)
# Values of these types need no conversion. They are checked first, because an import converts
# millions of values and most have one of these types.
_PLAIN_TYPES: Final = frozenset({str, int, bool, NoneType, ProductStatus, InventoryPolicy})


@dataclass
class Product:
    """A product. Its collections are never mutated, because copies of the product share them."""

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
    prices: tuple[AdditionalPriceView, ...]
    translations: Mapping[str, TranslationView]
    backorder_limit: int
    inventory_policy: InventoryPolicy
    track_inventory: bool
    low_stock_threshold: int | None
    status: ProductStatus
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def new(cls, product_id: UUID, command: NewProduct, now: datetime) -> Self:
        fields = {
            name: _to_stored_field(name, getattr(command, name)) for name in NewProduct.model_fields
        }
        return cls(product_id=product_id, version=1, created_at=now, updated_at=now, **fields)

    def change(self, command: ProductChange, now: datetime) -> bool:
        """Apply a merge patch. Return False when nothing changes. Raises ValidationFailed."""
        patched = {
            name: _patch_value(getattr(self, name), name, getattr(command, name))
            for name in command.model_fields_set
        }
        return self._mark_changed(now) if set_fields(self, patched) else False

    def copy_fields_from(
        self, source: Self, field_names: Collection[str], now: datetime
    ) -> Sequence[str]:
        """Copy the named fields of `source`. Return the names of the fields that changed."""
        changed = set_fields(self, {name: getattr(source, name) for name in field_names})
        if changed:
            self._mark_changed(now)
        return changed

    def archive(self, now: datetime) -> bool:
        """Archive the product. Return False when it is archived already."""
        if self.status == ProductStatus.ARCHIVED:
            return False
        self.status = ProductStatus.ARCHIVED
        return self._mark_changed(now)

    @property
    def effective_backorder_limit(self) -> int:
        """The number of units that can be sold beyond the units on hand."""
        if self.track_inventory and self.inventory_policy == InventoryPolicy.DENY:
            return self.backorder_limit
        return UNLIMITED_BACKORDER

    @property
    def is_active(self) -> bool:
        return self.status == ProductStatus.ACTIVE

    def price_at(self, now: datetime) -> tuple[Money, int | None]:
        """Return the price that is valid at this time, and its `compare_at`."""
        latest = self._additional_price(self.price.currency, now)
        if latest is None:
            return self.price, self.compare_at
        return Money(amount=latest.amount, currency=latest.currency), latest.compare_at

    def price_in(self, currency: str | None, now: datetime) -> Money:
        """Return the price in this currency; if there is none, or for None, the normal price."""
        latest = self._additional_price(currency, now) if currency else None
        if latest is None:
            return self.price_at(now)[0]
        return Money(amount=latest.amount, currency=latest.currency)

    def _additional_price(self, currency: str, now: datetime) -> AdditionalPriceView | None:
        """Return the additional price that is valid at this time and that began last.

        Of several prices with the same valid_from, the last one in the list applies.
        """
        valid = [price for price in self.prices if _is_valid_at(price, currency, now)]
        entries = enumerate(valid)
        return (
            max(entries, key=lambda entry: (entry[1].valid_from or _MIN_TIME, entry[0]))[1]
            if valid
            else None
        )

    def to_view(self, available: int, now: datetime) -> ProductView:
        price, compare_at = self.price_at(now)
        fields = {**vars(self), "price": price, "compare_at": compare_at}
        return ProductView(**fields, available=available)

    def _mark_changed(self, now: datetime) -> bool:
        self.version += 1
        self.updated_at = now
        return True


def invalid_field(field: str, code: str, message: str) -> ValidationFailed:
    """Build the error of one field. `field` is a JSON pointer."""
    return ValidationFailed(errors=[{"field": field, "code": code, "message": message}])


def set_fields(entity: object, values: Mapping[str, Any]) -> Sequence[str]:
    """Set fields to these values. Return the names of those that change."""
    changed = [name for name, value in values.items() if getattr(entity, name) != value]
    for name in changed:
        setattr(entity, name, values[name])
    return changed


def _is_valid_at(price: AdditionalPriceView, currency: str, now: datetime) -> bool:
    return (
        price.currency == currency
        and (price.valid_from is None or price.valid_from <= now)
        and (price.valid_until is None or now < price.valid_until)
    )


def _to_stored_field(name: str, value: Any) -> Any:
    """Convert a field of a request to its stored form.

    Keep only the first of equal tags, option names or attribute names ("Red" and "red").
    """
    fold = _FOLDS.get(name) if value else None
    return to_stored_value(fold(value) if fold else value)


def to_stored_value(value: Any) -> Any:
    """Convert a value of a request to its stored form. Remove duplicates from lists."""
    if type(value) in _PLAIN_TYPES:
        return value
    match value:
        case dict():
            return sort_like_jsonb({name: to_stored_value(part) for name, part in value.items()})
        case tuple():
            return tuple(dict.fromkeys(map(to_stored_value, value)))
        case AdditionalPrice():
            return AdditionalPriceView(**value.model_dump())
        case Price():
            return Money(amount=value.amount, currency=value.currency)
        case Translation():
            return TranslationView(name=value.name, description=value.description)
    return value


def sort_like_jsonb(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sort the keys by length and then by bytes, as Postgres sorts the keys of a jsonb value.

    So the memory store and the Postgres store return the same JSON.
    """
    if len(values) < 2:  # noqa: PLR2004 - nothing to sort
        return dict(values)
    return dict(sorted(values.items(), key=lambda pair: (len(pair[0].encode()), pair[0].encode())))


def _patch_value(current: Any, name: str, value: Any) -> Any:
    if value is None:
        return _EMPTY_VALUES.get(name)
    if name not in _MAX_ENTRIES:
        return _to_stored_field(name, value)
    patch = respell_names(current, fold_names(value)) if name in _FOLDS else value
    return merge_entries(name, current, patch, _MAX_ENTRIES[name])


def _merge_value(current: Any, patch: Any) -> Any:
    """Merge one value by RFC 7396. In a translation, texts that the patch omits stay unchanged."""
    if isinstance(current, TranslationView) and isinstance(patch, Translation):
        provided = {name: getattr(patch, name) for name in patch.model_fields_set}
        return current.model_copy(update=provided)
    return to_stored_value(patch)


def merge_entries(
    field: str, current: Mapping[str, Any], patch: Mapping[str, Any], limit: int
) -> Mapping[str, Any]:
    """Merge a mapping by RFC 7396. Raises ValidationFailed for more than `limit` entries."""
    patched = {name: _merge_value(current.get(name), part) for name, part in patch.items()}
    combined = {**current, **patched}
    merged = sort_like_jsonb({name: value for name, value in combined.items() if value is not None})
    if len(merged) > limit:
        raise invalid_field(
            f"/{field}", "too_long", f"should have at most {limit} after the change"
        )
    return merged
