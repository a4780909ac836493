"""The contract of the shop: its name, currencies, countries and tax settings."""

from typing import Annotated, Any, Final, LiteralString, Protocol, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, WrapValidator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.countries import Country
from markethall.shared.kernel.email_address import EmailAddress
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import ExpectedVersions
from markethall.shared.kernel.merge_patch import remove_null_defaults
from markethall.shared.kernel.model import Bool, Dto, RequestModel, Text, VisibleText
from markethall.shared.kernel.money import Currency

T = TypeVar("T")


def non_blank(max_length: int, **options: Any) -> Any:
    """Build a Field for a text that is not empty."""
    return Field(min_length=1, max_length=max_length, **options)


def distinct(name: str, code: LiteralString, message: LiteralString) -> AfterValidator:
    """Build a validator that rejects two elements with the same value of this attribute."""

    def check(elements: tuple[T, ...]) -> tuple[T, ...]:
        if len({getattr(element, name) for element in elements}) < len(elements):
            raise PydanticCustomError(code, message)
        return elements

    return AfterValidator(check)


class Address(RequestModel):
    recipient: Annotated[VisibleText, non_blank(200, examples=["Ada Lovelace"])]
    line1: Annotated[VisibleText, non_blank(200, examples=["Keizersgracht 1"])]
    line2: Annotated[VisibleText, non_blank(200)] | None = None
    city: Annotated[VisibleText, non_blank(100, examples=["Amsterdam"])]
    region: Annotated[VisibleText, non_blank(100)] | None = None
    postal_code: Annotated[VisibleText, non_blank(20, examples=["1015 CJ"])]
    country: Country
    phone: Annotated[VisibleText, non_blank(40)] | None = None


AddressText = Annotated[
    VisibleText, non_blank(500, examples=["Keizersgracht 1, 1015 CJ Amsterdam, NL"])
]
_ADDRESS_TEXT: Final[TypeAdapter[str]] = TypeAdapter(AddressText)


def _parse_by_shape(value: Any, _: Any) -> str | Address:
    """Choose the type by the JSON type of the value.

    Without this validator, Pydantic would try both types, and report the errors of both.
    """
    if isinstance(value, Address | dict):
        return Address.model_validate(value)
    return _ADDRESS_TEXT.validate_python(value)


AnyAddress = TypeAliasType(
    "AnyAddress", Annotated[AddressText | Address, WrapValidator(_parse_by_shape)]
)


DEFAULT_NUMBER_PREFIX: Final = "MH-"
# the last character is not a digit, so that the number after the prefix can be parsed
_PREFIX_PATTERN: Final = r"^([A-Za-z0-9_#-]{0,19}[A-Za-z_#-])?$"
_URL_PATTERN: Final = r"^https?://[^\s/\u0000][^\s\u0000]*$"


def _without_duplicates(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("duplicate", "must name each value once")
    return values


ShopName = Annotated[VisibleText, non_blank(200, examples=["Tea House"])]
Currencies = Annotated[
    tuple[Currency, ...],
    Field(
        max_length=50,
        fail_fast=True,
        description="Empty: every currency",
        json_schema_extra={"uniqueItems": True},
    ),
    AfterValidator(_without_duplicates),
]
Countries = Annotated[
    tuple[Country, ...],
    Field(
        max_length=250,
        fail_fast=True,
        description="Empty: every country",
        json_schema_extra={"uniqueItems": True},
    ),
    AfterValidator(_without_duplicates),
]
AtLeastOneCountry = Annotated[
    tuple[Country, ...],
    Field(min_length=1, max_length=250, fail_fast=True, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_without_duplicates),
]
# `json_schema_extra` repeats the patterns, because the schema would have that of `Text`
NumberPrefix = Annotated[
    Text,
    Field(
        pattern=_PREFIX_PATTERN,
        examples=["MH-"],
        description="Of new orders",
        json_schema_extra={"pattern": _PREFIX_PATTERN},
    ),
]
SupportEmail = Annotated[EmailAddress, Field(examples=["help@teahouse.example"])]
TaxId = Annotated[VisibleText, non_blank(50, examples=["DE123456789"])]
LogoUrl = Annotated[
    Text,
    Field(
        max_length=2000,
        pattern=_URL_PATTERN,
        examples=["https://images.example/logo.png"],
        json_schema_extra={"pattern": _URL_PATTERN},
    ),
]


DefaultCurrency = Annotated[
    Currency,
    Field(
        description="Of carts and orders that name no currency. It only applies if `currencies` is "
        "not empty; otherwise they have the currency of their products"
    ),
]


class ShopSettings(RequestModel):
    """The settings of the shop. Their defaults apply until an admin changes them."""

    name: ShopName = "Shop"
    currencies: Currencies = ()
    default_currency: DefaultCurrency = "EUR"
    countries: Countries = ()
    prices_include_tax: Bool = True
    order_number_prefix: NumberPrefix = DEFAULT_NUMBER_PREFIX
    support_email: SupportEmail | None = None
    address: AnyAddress | None = None
    tax_id: TaxId | None = None
    logo_url: LogoUrl | None = None


class ShopChange(RequestModel):
    """A change of the shop, as a JSON merge patch (RFC 7396). Null restores the default."""

    model_config = ConfigDict(json_schema_extra=remove_null_defaults)

    name: ShopName | None = None
    currencies: Currencies | None = None
    default_currency: DefaultCurrency | None = None
    countries: Countries | None = None
    prices_include_tax: Bool | None = None
    order_number_prefix: NumberPrefix | None = None
    support_email: SupportEmail | None = None
    address: AnyAddress | None = None
    tax_id: TaxId | None = None
    logo_url: LogoUrl | None = None


class ShopView(Dto):
    name: str
    currencies: tuple[str, ...]
    default_currency: str
    countries: tuple[str, ...]
    prices_include_tax: bool
    order_number_prefix: str
    support_email: str | None
    address: AnyAddress | None
    tax_id: str | None
    logo_url: str | None
    version: int


class CountryNotServed(DomainError):
    """The shop does not sell to the country of the address. Details: country, countries."""

    code = "orders.country_not_served"
    status = 422
    title = "The shop does not deliver to this country"


class Shop(Protocol):
    """The settings of the shop."""

    async def get(self, ctx: CallContext) -> ShopView: ...

    async def change(
        self, ctx: CallContext, patch: ShopChange, expected_versions: ExpectedVersions
    ) -> ShopView:
        """Apply a merge patch. Raises PreconditionFailed, ValidationFailed."""
