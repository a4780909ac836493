from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from markethall.inventory.catalogue.contract.fields import Tag
from markethall.inventory.contract import MAX_UNITS
from markethall.shared.kernel.model import MAX_AMOUNT, Bool, Int, Text, VisibleText


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
