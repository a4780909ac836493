"""The contract of taxes: the rates of a shop by country, region and tax class."""

from decimal import Decimal
from typing import Annotated, Final
from uuid import UUID

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from markethall.orders.configuration.contract import Items, ItemView
from markethall.orders.totals.domain import Destination
from markethall.shared.kernel.countries import Country
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.merge_patch import omittable_field, remove_null_defaults
from markethall.shared.kernel.model import RequestModel, Text, VisibleText

# 0 to 1 with at most six decimals
_RATE_PATTERN: Final = r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$"
Rate = Annotated[
    Text,
    Field(
        pattern=_RATE_PATTERN,
        json_schema_extra={"pattern": _RATE_PATTERN},
        description="A share of the price as a decimal: 0.19 is 19 %",
        examples=["0.19"],
    ),
]
Region = Annotated[
    VisibleText,
    Field(
        min_length=1,
        max_length=100,
        description="As in addresses; letter case and a country prefix are ignored",
        examples=["NY"],
    ),
]
TaxClassName = Annotated[VisibleText, Field(min_length=1, max_length=50, examples=["standard"])]
TaxName = Annotated[VisibleText, Field(min_length=1, max_length=100, examples=["VAT"])]


class NewTaxRate(RequestModel):
    """A tax rate of a country, or of a region of it.

    If the region of an address has rates for a tax class, these apply, else the rates of the
    country. Several rates of one country or region and tax class, with different names, are added
    up.
    """

    country: Country
    region: Region | None = None
    tax_class: TaxClassName = "standard"
    rate: Rate
    name: TaxName

    @field_validator("region")
    @classmethod
    def _check_region(cls, region: str | None, info: ValidationInfo) -> str | None:
        """Reject a region that has an empty key without its country, such as "US-"."""
        if region and not Destination(info.data.get("country"), region).region_key:
            raise PydanticCustomError("blank_region", "must have more than the country")
        return region

    @property
    def value(self) -> Decimal:
        return Decimal(self.rate)


class TaxRateChange(RequestModel):
    """A change of a rate, as a JSON merge patch (RFC 7396).

    Null restores the default of a field; a field without a default cannot be null.
    """

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    country: Country = omittable_field()
    region: Region | None = None
    tax_class: TaxClassName | None = None
    rate: Rate = omittable_field()
    name: TaxName = omittable_field()


class TaxRateView(ItemView):
    tax_rate_id: UUID
    country: str
    region: str | None
    tax_class: str
    rate: str
    name: str


class TaxRateNotFound(DomainError):
    """No tax rate has this id. Details: tax_rate_id."""

    code = "orders.tax_rate_not_found"
    status = 404
    title = "There is no such tax rate"


class TaxRateTaken(DomainError):
    """Another rate has this country, region, tax class and name. Details: key."""

    code = "orders.tax_rate_taken"
    status = 409
    title = "A tax rate with these values exists already"


class RegionRequired(DomainError):
    """The tax rates of a country are by region, and the address has no region. Details: country."""

    code = "orders.region_required"
    status = 422
    title = "The tax in this country depends on the region"


# the errors of this kind are TaxRateNotFound and TaxRateTaken
TaxRates = Items[NewTaxRate, TaxRateChange, TaxRateView]
