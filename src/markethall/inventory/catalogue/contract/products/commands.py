from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from markethall.inventory.catalogue.contract.fields import (
    MAX_LANGUAGES,
    CategoryPath,
    InventoryPolicy,
    Label,
    Language,
    ProductStatus,
)
from markethall.inventory.catalogue.contract.products.fields import (
    MAX_ATTRIBUTES,
    MAX_OPTIONS,
    MAX_PRICES,
    AttributeValue,
    Barcode,
    Description,
    Grams,
    Images,
    MinorUnits,
    OptionName,
    OptionValue,
    ProductName,
    Quantity,
    Sku,
    Tags,
    TaxClass,
    TranslatedDescription,
)
from markethall.shared.kernel.merge_patch import omittable_field, remove_null_defaults
from markethall.shared.kernel.model import MAX_AMOUNT, Bool, Int, RequestModel, UtcDatetime
from markethall.shared.kernel.money import Currency


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
