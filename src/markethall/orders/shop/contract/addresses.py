"""Shipping and billing addresses: free text or structured."""

from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, WrapValidator
from typing_extensions import TypeAliasType

from markethall.shared.kernel.countries import Country
from markethall.shared.kernel.model import RequestModel, VisibleText


def non_blank(max_length: int, **options: Any) -> Any:
    """Build a Field for a text that is not empty."""
    return Field(min_length=1, max_length=max_length, **options)


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
