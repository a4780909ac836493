from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, PlainSerializer
from typing_extensions import TypeAliasType

from markethall.inventory.catalogue.contract.fields import InventoryPolicy, ProductStatus
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.money import Money

FrozenTexts = Annotated[
    Mapping[str, str],
    AfterValidator(lambda texts: MappingProxyType(dict(texts))),
    PlainSerializer(dict, return_type=dict[str, str]),
]
AttributeValueView = TypeAliasType("AttributeValueView", str | int | bool)
FrozenAttributes = Annotated[
    Mapping[str, AttributeValueView],
    AfterValidator(lambda attributes: MappingProxyType(dict(attributes))),
    PlainSerializer(dict, return_type=dict[str, AttributeValueView]),
]


class AdditionalPriceView(Money):
    """An additional price. `compare_at` is in minor units. The times are in UTC."""

    compare_at: int | None
    valid_from: datetime | None
    valid_until: datetime | None


class TranslationView(Dto):
    """Texts in one language. If a text is null, the product's own text is used."""

    name: str | None
    description: str | None


FrozenTranslations = Annotated[
    Mapping[str, TranslationView],
    AfterValidator(lambda texts: MappingProxyType(dict(texts))),
    PlainSerializer(dict, return_type=dict[str, TranslationView]),
]


class ProductView(Dto):
    """A product with its price and its available units at the time of the request.

    `compare_at` is the regular price of a product on sale, in minor units. `price` may be one of
    the additional `prices`. Product lists ignore the additional prices when they sort and filter
    by price.
    """

    product_id: UUID
    sku: str
    name: str
    description: str
    category: str | None
    family: str | None
    options: FrozenTexts
    tags: tuple[str, ...]
    images: tuple[str, ...]
    attributes: FrozenAttributes
    barcode: str | None
    weight_grams: int | None
    tax_class: str
    prices: tuple[AdditionalPriceView, ...]
    translations: FrozenTranslations
    backorder_limit: int
    inventory_policy: InventoryPolicy
    track_inventory: bool
    low_stock_threshold: int | None
    status: ProductStatus
    version: int
    created_at: datetime
    updated_at: datetime
    price: Money
    compare_at: int | None
    available: int


@dataclass(frozen=True)
class RenderedResponse:
    """A response body with its ETag, which includes the quotes.

    The ETag of a product is "v{version}-{12 hex digits of the body's hash}". If-Match compares
    only the version: a sale changes the body, but must not make a concurrent edit fail. A public
    response is the same for every caller. `is_current()` tells whether the cache still has the
    response; the field is None if the response does not come from the cache.
    """

    body: bytes
    etag: str
    is_public: bool = True
    is_current: Callable[[], bool] | None = field(default=None, compare=False)


class PriceRange(Dto):
    """The lowest and highest price in one currency, in minor units."""

    currency: str
    lowest: int
    highest: int
