from markethall.inventory.catalogue.contract.products.api import Catalogue
from markethall.inventory.catalogue.contract.products.commands import (
    AdditionalPrice,
    NewProduct,
    Price,
    ProductChange,
    Translation,
)
from markethall.inventory.catalogue.contract.products.errors import SkuTaken
from markethall.inventory.catalogue.contract.products.fields import (
    MAX_ATTRIBUTE_LENGTH,
    MAX_ATTRIBUTES,
    MAX_BARCODE_LENGTH,
    MAX_DESCRIPTION_LENGTH,
    MAX_IMAGE_URL_LENGTH,
    MAX_IMAGES,
    MAX_NAME_LENGTH,
    MAX_OPTION_LENGTH,
    MAX_OPTION_VALUES,
    MAX_OPTIONS,
    MAX_TAGS,
)
from markethall.inventory.catalogue.contract.products.views import (
    AdditionalPriceView,
    PriceRange,
    ProductView,
    RenderedResponse,
    TranslationView,
)

__all__ = [
    "MAX_ATTRIBUTES",
    "MAX_ATTRIBUTE_LENGTH",
    "MAX_BARCODE_LENGTH",
    "MAX_DESCRIPTION_LENGTH",
    "MAX_IMAGES",
    "MAX_IMAGE_URL_LENGTH",
    "MAX_NAME_LENGTH",
    "MAX_OPTIONS",
    "MAX_OPTION_LENGTH",
    "MAX_OPTION_VALUES",
    "MAX_TAGS",
    "AdditionalPrice",
    "AdditionalPriceView",
    "Catalogue",
    "NewProduct",
    "Price",
    "PriceRange",
    "ProductChange",
    "ProductView",
    "RenderedResponse",
    "SkuTaken",
    "Translation",
    "TranslationView",
]
