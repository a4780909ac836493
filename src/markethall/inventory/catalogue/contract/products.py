from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Protocol, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from markethall.inventory.catalogue.contract.fields import (
    MAX_LANGUAGES,
    CategoryPath,
    InventoryPolicy,
    Label,
    Language,
    ProductStatus,
    Tag,
    frozen_as,
)
from markethall.inventory.contract import MAX_UNITS
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.merge_patch import omittable_field, remove_null_defaults
from markethall.shared.kernel.model import (
    MAX_AMOUNT,
    Bool,
    Dto,
    Int,
    RequestModel,
    Text,
    UtcDatetime,
    VisibleText,
)
from markethall.shared.kernel.money import Currency, Money


def _validate_attribute(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        raise PydanticCustomError("attribute", "must be a text, an integer or a boolean") from None


def _check_sku(sku: str) -> str:
    """Trim the SKU, and require printable characters. They may belong to any script."""
    sku = sku.strip()
    if not sku.isprintable():
        raise PydanticCustomError("not_printable", "must have printable characters only")
    return sku


MAX_SKU_LENGTH: Final = 100
Sku = Annotated[
    VisibleText,
    AfterValidator(_check_sku),
    Field(min_length=1, max_length=MAX_SKU_LENGTH, examples=["TEA-SENCHA-100"]),
]
MAX_NAME_LENGTH: Final = 255
MAX_DESCRIPTION_LENGTH: Final = 50_000
# shorter than MAX_DESCRIPTION_LENGTH, because a product may have a text in each of 50 languages
MAX_TRANSLATED_DESCRIPTION_LENGTH: Final = 10_000
MAX_TAGS: Final = 250
MAX_IMAGES: Final = 250
MAX_IMAGE_URL_LENGTH: Final = 2000
MAX_OPTION_LENGTH: Final = 255
MAX_BARCODE_LENGTH: Final = 64
MAX_ATTRIBUTE_LENGTH: Final = 1000
ProductName = Annotated[
    VisibleText, Field(min_length=1, max_length=MAX_NAME_LENGTH, examples=["Sencha, 100 g"])
]
Description = Annotated[
    Text, Field(max_length=MAX_DESCRIPTION_LENGTH, examples=["Green tea from Uji."])
]
TranslatedDescription = Annotated[Text, Field(max_length=MAX_TRANSLATED_DESCRIPTION_LENGTH)]
Tags = Annotated[tuple[Tag, ...], Field(max_length=MAX_TAGS, fail_fast=True)]
_IMAGE_URL: Final = r"^(https?://[^\s/\u0000][^\s\u0000]*|/media/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/[1-9][0-9]{0,4}\.webp)$"
ImageUrl = Annotated[
    Text,
    Field(
        max_length=MAX_IMAGE_URL_LENGTH,
        pattern=_IMAGE_URL,
        json_schema_extra={"pattern": _IMAGE_URL},
        description="A URL, or the path of an image of this API",
        examples=["https://images.example/sencha.jpg"],
    ),
]
Images = Annotated[tuple[ImageUrl, ...], Field(max_length=MAX_IMAGES, fail_fast=True)]
OptionName = Annotated[VisibleText, Field(min_length=1, max_length=MAX_OPTION_LENGTH)]
OptionValue = Annotated[VisibleText, Field(min_length=1, max_length=MAX_OPTION_LENGTH)]
AttributeValue = TypeAliasType(
    "AttributeValue",
    Annotated[
        Annotated[Text, Field(max_length=MAX_ATTRIBUTE_LENGTH)]
        | Annotated[Int, Field(ge=-MAX_AMOUNT, le=MAX_AMOUNT)]
        | Bool,
        # reports one error for the value instead of one for each type of the union
        WrapValidator(_validate_attribute),
    ],
)
Barcode = Annotated[
    VisibleText, Field(min_length=1, max_length=MAX_BARCODE_LENGTH, examples=["4006381333931"])
]
Grams = Annotated[Int, Field(ge=0, le=10**9, examples=[120])]
MinorUnits = Annotated[Int, Field(ge=0, le=MAX_AMOUNT, examples=[1490])]
TaxClass = Annotated[VisibleText, Field(min_length=1, max_length=50, examples=["reduced"])]
Quantity = Annotated[Int, Field(ge=0, le=MAX_UNITS)]
MAX_PRICES: Final = 50
MAX_OPTIONS: Final = 10
# the largest number of values of one option in a family
MAX_OPTION_VALUES: Final = 100
MAX_ATTRIBUTES: Final = 50


FrozenTexts = Annotated[Mapping[str, str], *frozen_as(dict[str, str])]
AttributeValueView = TypeAliasType("AttributeValueView", str | int | bool)
FrozenAttributes = Annotated[
    Mapping[str, AttributeValueView], *frozen_as(dict[str, AttributeValueView])
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
    Mapping[str, TranslationView], *frozen_as(dict[str, TranslationView])
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


class Price(RequestModel):
    """A price. `amount` is in minor units: 1999 with EUR means 19.99 euro."""

    amount: Annotated[Int, Field(ge=0, le=MAX_AMOUNT, examples=[1250])]
    currency: Currency


class AdditionalPrice(Price):
    """A price in another currency, or a price for the period valid_from <= time < valid_until.

    A null `valid_from` or `valid_until` sets no limit. If several prices in the product's own
    currency are valid, the price with the latest `valid_from` applies. Of prices with the same
    `valid_from`, the last one in the list applies.
    """

    compare_at: MinorUnits | None = None
    valid_from: Annotated[UtcDatetime, Field(examples=["2026-11-27T00:00:00Z"])] | None = None
    valid_until: Annotated[UtcDatetime, Field(examples=["2026-12-01T00:00:00Z"])] | None = None

    @model_validator(mode="after")
    def _check_validity_window(self) -> Self:
        if self.valid_from and self.valid_until and self.valid_from >= self.valid_until:
            raise PydanticCustomError("window", "valid_from must be before valid_until")
        return self


AdditionalPrices = Annotated[
    tuple[AdditionalPrice, ...], Field(max_length=MAX_PRICES, fail_fast=True)
]


class Translation(RequestModel):
    """Texts in one language. If a text is null, the product's own text is used."""

    name: ProductName | None = None
    description: TranslatedDescription | None = None


class NewProduct(RequestModel):
    """A new product with one SKU.

    Variants, such as sizes, are separate products: they share a `family` and differ by `options`.
    """

    sku: Sku
    name: ProductName
    price: Price
    description: Description = ""
    category: Annotated[CategoryPath, Field(examples=["tea"])] | None = None
    family: Annotated[Label, Field(examples=["sencha"])] | None = None
    options: dict[OptionName, OptionValue] = Field(
        default_factory=dict, max_length=MAX_OPTIONS, examples=[{"weight": "100 g"}]
    )
    tags: Tags = ()
    images: Images = ()
    attributes: dict[OptionName, AttributeValue] = Field(
        default_factory=dict,
        max_length=MAX_ATTRIBUTES,
        examples=[{"origin": "Uji", "organic": True}],
    )
    barcode: Barcode | None = None
    weight_grams: Grams | None = None
    tax_class: TaxClass = "standard"
    compare_at: MinorUnits | None = None
    prices: AdditionalPrices = ()
    translations: dict[Language, Translation] = Field(
        default_factory=dict, max_length=MAX_LANGUAGES, examples=[{"de": {"name": "Sencha, 100 g"}}]
    )
    backorder_limit: Quantity = 0
    inventory_policy: InventoryPolicy = Field(
        default=InventoryPolicy.DENY, description="continue: backorder without limit"
    )
    track_inventory: Bool = Field(default=True, description="false: always available")
    low_stock_threshold: Quantity | None = None
    status: ProductStatus = ProductStatus.ACTIVE


class ProductChange(RequestModel):
    """A change of a product, as a JSON merge patch (RFC 7396).

    Absent fields stay unchanged, and null clears a field. Options and attributes are merged by
    name, translations by language; all other fields are replaced. These fields cannot be null:
    `sku`, `name`, `price`, `tax_class`, `backorder_limit`, `inventory_policy`, `track_inventory`,
    `status`.
    """

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    sku: Sku = omittable_field()
    name: ProductName = omittable_field()
    price: Price = omittable_field()
    description: Description | None = None
    category: CategoryPath | None = None
    family: Label | None = None
    options: Annotated[
        dict[OptionName, OptionValue | None] | None, Field(max_length=MAX_OPTIONS)
    ] = None
    tags: Tags | None = None
    images: Images | None = None
    attributes: Annotated[
        dict[OptionName, AttributeValue | None] | None, Field(max_length=MAX_ATTRIBUTES)
    ] = None
    barcode: Barcode | None = None
    weight_grams: Grams | None = None
    tax_class: TaxClass = omittable_field()
    compare_at: MinorUnits | None = None
    prices: AdditionalPrices | None = None
    translations: Annotated[
        dict[Language, Translation | None] | None, Field(max_length=MAX_LANGUAGES)
    ] = None
    backorder_limit: Quantity = omittable_field()
    inventory_policy: InventoryPolicy = omittable_field()
    track_inventory: Bool = omittable_field()
    low_stock_threshold: Quantity | None = None
    status: ProductStatus = omittable_field()


class SkuTaken(DomainError):
    """Another product has this SKU. The comparison ignores letter case. Details: sku."""

    code = "inventory.sku_taken"
    status = 409
    title = "Another product has this SKU"


class Catalogue(Protocol):
    """The public API of products.

    Only callers with the scope catalogue:write get drafts and archived products.
    """

    async def get_product(self, ctx: CallContext, product_id: UUID) -> ProductView:
        """Raises ProductNotFound."""

    async def get_product_by_sku(self, ctx: CallContext, sku: str) -> ProductView:
        """Return the product with this SKU, ignoring letter case. Raises ProductNotFound."""

    async def render_product(self, ctx: CallContext, product_id: UUID) -> RenderedResponse:
        """Return the result of `get_product` as JSON. Raises ProductNotFound.

        The result comes from a cache. Callers with the scope catalogue:write get a fresh result.
        """

    async def render_product_by_sku(self, ctx: CallContext, sku: str) -> RenderedResponse:
        """Return the result of `get_product_by_sku` as JSON, never from a cache.

        Raises ProductNotFound.
        """

    async def create(
        self, ctx: CallContext, command: NewProduct, attempt: IdempotentCommand
    ) -> ProductView:
        """Create a product. `attempt.id` becomes the product id.

        Raises SkuTaken, CategoryAmbiguous.
        """

    async def change(
        self,
        ctx: CallContext,
        product_id: UUID,
        command: ProductChange,
        expected_versions: ExpectedVersions,
    ) -> ProductView:
        """Apply a merge patch.

        Raises ProductNotFound, PreconditionFailed, SkuTaken, CategoryAmbiguous, ValidationFailed.
        """

    async def archive(
        self, ctx: CallContext, product_id: UUID, expected_versions: ExpectedVersions
    ) -> None:
        """Stop selling the product. Raises ProductNotFound, PreconditionFailed."""

    async def count(self) -> int:
        """Return the number of active products."""
